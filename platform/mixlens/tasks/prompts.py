"""The phrasings of every question type, from `prompts.yaml`."""

import hashlib
from functools import cache
from importlib import resources

import yaml

Prompts = dict[str, tuple[tuple[str, str], ...]]


def prompts_text() -> str:
    """The file as it is."""
    return resources.files("mixlens.tasks").joinpath("prompts.yaml").read_text()


@cache
def prompts() -> Prompts:
    """Question type -> its phrasings as (id such as `left_of.0`, %-format template)."""
    return {
        kind: tuple(
            (f"{kind}.{i}", phrasing.replace("{", "%(").replace("}", ")s"))
            for i, phrasing in enumerate(phrasings)
        )
        for kind, phrasings in yaml.safe_load(prompts_text()).items()
    }


@cache
def prompts_digest() -> str:
    """16 hex digits of the SHA-256 of `prompts.yaml`, for the record of a run."""
    return hashlib.sha256(prompts_text().encode()).hexdigest()[:16]
