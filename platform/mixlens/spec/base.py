"""What every part of a sweep file has in common: it is frozen, strict, and has a digest."""

import hashlib
import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


class Spec(BaseModel):
    """A frozen part of a sweep file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


def _both_ends(value: Any) -> Any:
    """A single number stands for the range that holds only this number."""
    return (value, value) if isinstance(value, int | float) else value


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(
            f"the range starts at {bounds[0]} but ends at {bounds[1]}. Give the smaller one first."
        )
    return bounds


Range = Annotated[tuple[float, float], BeforeValidator(_both_ends), AfterValidator(_ordered)]
IntRange = Annotated[tuple[int, int], BeforeValidator(_both_ends), AfterValidator(_ordered)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
