"""The phrasings of every question type, from `prompts.yaml` and `photo/prompts.yaml`."""

import hashlib
from functools import cache
from importlib import resources

import yaml

Prompts = dict[str, tuple[tuple[str, str], ...]]

_FILES = ("prompts.yaml", "photo/prompts.yaml")


def prompts_text() -> str:
    """The files as they are, one after the other: every question about scenes, then photographs."""
    return "\n".join(_text(file) for file in _FILES)


@cache
def prompts() -> Prompts:
    """Question type -> its phrasings as (id such as `left_of.0`, %-format template).

    Questions about scenes, which are also the words that the built-in model knows.
    """
    return _read(_FILES[0])


@cache
def photo_prompts() -> Prompts:
    """The same for questions about photographs, some of which are phrased as those about scenes."""
    return prompts() | _read(_FILES[1])


@cache
def prompts_digest() -> str:
    """16 hex digits of the SHA-256 of all phrasings, for the record of a run."""
    return hashlib.sha256(prompts_text().encode()).hexdigest()[:16]


def _text(file: str) -> str:
    return resources.files("mixlens.tasks").joinpath(file).read_text()


def _read(file: str) -> Prompts:
    return {
        kind: tuple(
            (f"{kind}.{i}", phrasing.replace("{", "%(").replace("}", ")s"))
            for i, phrasing in enumerate(phrasings)
        )
        for kind, phrasings in yaml.safe_load(_text(file)).items()
    }
