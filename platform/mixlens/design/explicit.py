"""Levels that the file spells out, each with the quantities it stands for."""

from typing import Any, Literal

from pydantic import Field, model_validator

from mixlens.design.base import BaseDesign, Mixture
from mixlens.design.level import Axis, Level
from mixlens.errors import explain
from mixlens.spec import Spec
from mixlens.spec.base import Name
from mixlens.spec.data import Mix


class Point(Spec):
    """One level: its mixture, and its place."""

    weights: Mix = Field(
        description="share of each component, summing to 1", json_schema_extra={"unit": "share"}
    )
    coordinates: dict[Name, float] = Field(
        {}, description="quantities it stands for, of any unit; the same names in every point"
    )


class ExplicitDesign(BaseDesign):
    """Any mixtures by name, with quantities of one's own, such as mean objects an image.

    With a scale the levels are ordered by that quantity, and the answer looks for its smallest
    sufficient value; without one they follow each other as they stand in the file.
    """

    kind: Literal["explicit"] = Field(description="mixtures by name, with quantities of their own")
    points: dict[Name, Point] = Field(min_length=1, description="name -> mixture and quantities")
    scale: Name | None = Field(
        None, description="the quantity that orders the levels; none: their order in the file"
    )

    @model_validator(mode="after")
    def _check(self) -> "ExplicitDesign":
        first, *others = self.points
        names = self.points[first].coordinates.keys()
        for name in others:
            given = self.points[name].coordinates
            if given.keys() != names:
                raise ValueError(
                    explain(f"points.{name}.coordinates", sorted(given),
                            f"points.{first} has {sorted(names)}",
                            "Name the same quantities in every point.")
                )  # fmt: skip
        if self.scale is None:
            return self
        if self.scale not in names:
            raise ValueError(
                explain("scale", self.scale, "no such quantity",
                        f"Those of the points are {sorted(names)}.")
            )  # fmt: skip
        known: dict[float, str] = {}
        for name, point in self.points.items():
            at = point.coordinates[self.scale]
            if (same := known.setdefault(at, name)) != name:
                raise ValueError(
                    explain(f"points.{name}.coordinates.{self.scale}", at, f"so has {same}",
                            "Levels on a scale differ in its quantity.")
                )  # fmt: skip
        return self

    @property
    def axis(self) -> Axis:
        if self.scale is None:
            return Axis(noun="level", title="Level")
        noun = self.scale.replace("_", " ")
        return Axis(noun=noun, title=noun.capitalize(), scale=self.scale)

    def levels(self) -> tuple[Level, ...]:
        return tuple(
            Level(
                id=name,
                label=self._label(name, point),
                weights=point.weights,
                coordinates=point.coordinates,
            )
            for name, point in self.points.items()
        )

    def _label(self, name: str, point: Point) -> str:
        if self.scale is None:
            return name
        return f"{name} ({self.axis.noun} {point.coordinates[self.scale]:g})"

    def mixtures(self) -> tuple[Mixture, ...]:
        return tuple(
            Mixture(f"points.{name}.weights", f"Level {name}", point.weights)
            for name, point in self.points.items()
        )

    def space(self) -> dict[str, Any]:
        return {"kind": self.kind, "scale": self.scale}
