"""The phrasings of every question type, from `prompts.yaml`."""

import hashlib
from functools import cache
from importlib import resources

import yaml

Prompts = dict[str, tuple[tuple[str, str], ...]]


def _file() -> bytes:
    return resources.files("mixlens.tasks").joinpath("prompts.yaml").read_bytes()


@cache
def prompts() -> Prompts:
    """Question type -> its phrasings as (id such as `left_of.0`, %-format template)."""
    return {
        kind: tuple(
            (f"{kind}.{i}", phrasing.replace("{", "%(").replace("}", ")s"))
            for i, phrasing in enumerate(phrasings)
        )
        for kind, phrasings in yaml.safe_load(_file()).items()
    }


@cache
def prompts_digest() -> str:
    """16 hex digits of the SHA-256 of `prompts.yaml`, for the record of a run."""
    return hashlib.sha256(_file()).hexdigest()[:16]
