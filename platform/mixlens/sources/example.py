"""The one row contract of every source: an image, what is asked about it, and its attributes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mixlens.tasks.turn import Turn

Attributes = Mapping[str, float | int | str | None]

# In place of an image where turns are about none: models take it, though no source gives it yet.
NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


@dataclass(frozen=True, slots=True)
class Example:
    """One image with its turns.

    Attributes:
        example_id: `component/index`, unique in a sweep.
        component: name of the component it was drawn from.
        image: uint8 [height, width, 3] RGB, or the bytes of an encoded image file; `NO_IMAGE`.
        turns: questions and answers, in the order they are asked.
        attributes: exact facts about the image (object count, ink fraction, ...), same names and
            types for every example of a source. An unknown number is NaN, an unknown name None.
    """

    example_id: str
    component: str
    image: np.ndarray | bytes
    turns: tuple[Turn, ...]
    attributes: Attributes


def to_row(example: Example) -> dict[str, Any]:
    """An Arrow-friendly row: pixels or file bytes as one binary, the rest as text.

    `height` is 0 for an encoded image file.
    """
    image = example.image
    return {
        "example_id": example.example_id,
        "component": example.component,
        "image": image if isinstance(image, bytes) else image.tobytes(),
        "height": 0 if isinstance(image, bytes) else image.shape[0],
        "turns": json.dumps([asdict(turn) for turn in example.turns]),
        "attributes": json.dumps(example.attributes),
    }


def from_row(row: dict[str, Any]) -> Example:
    """The example that `to_row` made this row of."""
    image: np.ndarray | bytes = row["image"]
    if row["height"]:
        image = np.frombuffer(row["image"], np.uint8).reshape(row["height"], -1, 3)
    return Example(
        example_id=row["example_id"],
        component=row["component"],
        image=image,
        turns=tuple(
            Turn(**{**turn, "choices": tuple(turn["choices"])}) for turn in json.loads(row["turns"])
        ),
        attributes=json.loads(row["attributes"]),
    )
