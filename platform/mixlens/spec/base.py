"""What every part of a sweep file has in common: it is frozen, strict, and has a digest."""

import hashlib
import json
import re
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from mixlens.errors import explain

LONGEST_NAME = 100


class Spec(BaseModel):
    """A frozen part of a sweep file; unknown keys are refused, and so is a value of another type.

    No value is made fit: `yes` is no number, `'1'` neither, and 1.0 counts nothing. Every number is
    finite.
    """

    moved: ClassVar[dict[str, str]] = {}
    """Keys that earlier files had -> where to write them now."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _lists_as_tuples(cls, content: Any) -> Any:
        """Files hold lists, and fields are tuples: a list is the only thing that is made fit."""
        if not isinstance(content, dict):
            return content
        return {key: _as_tuple(value) for key, value in content.items()}

    def canonical(self) -> dict[str, Any]:
        """The content that decides results, as plain JSON values."""
        return self.model_dump(mode="json")

    def digest(self) -> str:
        """16 hex digits of the SHA-256 of `canonical()`: equal content, equal digest."""
        return digest_of(self.canonical())


def digest_of(content: dict[str, Any]) -> str:
    """16 hex digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_digest(path: str, fingerprint: str, **more: object) -> str:
    """Of a model as it is: its weights told by their fingerprint; `more` says what became of it."""
    return digest_of({"fingerprint": fingerprint or path, **more})


def _as_tuple(value: Any) -> Any:
    """Lists as tuples at any depth, but below a part of its own, which does so by itself."""
    if isinstance(value, list | tuple):
        return tuple(_as_tuple(one) for one in value)
    if isinstance(value, dict):
        return {key: _as_tuple(one) for key, one in value.items()}
    return value


def _fit_for_files(name: str) -> str:
    if not re.fullmatch(rf"[A-Za-z0-9][A-Za-z0-9_-]{{0,{LONGEST_NAME - 1}}}", name):
        raise ValueError(
            f"got {name!r}: folders and MLflow cannot all take this name. Begin with a letter or "
            f"digit; use letters A to Z, digits, _ and - only, {LONGEST_NAME} at most."
        )
    return name


def _both_ends(value: Any) -> Any:
    """A single number stands for the range that holds only this number."""
    return (value, value) if isinstance(value, int | float) else value


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(
            f"the range starts at {bounds[0]} but ends at {bounds[1]}. Give the smaller one first."
        )
    return bounds


Name = Annotated[str, AfterValidator(_fit_for_files)]
"""Of a sweep, a component, an arm or a data set: part of a folder and of names in MLflow."""
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_both_ends, json_schema_input_type=float | tuple[float, float]),
    AfterValidator(_ordered),
]
IntRange = Annotated[
    tuple[int, int],
    BeforeValidator(_both_ends, json_schema_input_type=int | tuple[int, int]),
    AfterValidator(_ordered),
]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


def _on_a_file_system(folder: str) -> str:
    """Results are written to as files: a URL would be taken for a folder of that name."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", folder):
        raise ValueError(
            explain("runs_dir", folder, "a URL, but results are kept in a folder",
                    "Give a folder; on a cluster one that all nodes mount, such as "
                    "/mnt/shared/runs.")
        )  # fmt: skip
    return folder


RunsDir = Annotated[str, AfterValidator(_on_a_file_system)]

BUILTIN_MODELS = ("builtin:tiny-vllm",)


def _builtin_or_elsewhere(model: str) -> str:
    if model.startswith("builtin:") and model not in BUILTIN_MODELS:
        raise ValueError(
            explain("model", model, "no such built-in model", f"There is {BUILTIN_MODELS[0]}.")
        )
    return model


Model = Annotated[str, AfterValidator(_builtin_or_elsewhere)]
"""A built-in model, a folder or a hub id."""
