"""Mixtures by name, in an order from simple to complex."""

from typing import Any, Literal

from pydantic import Field

from mixlens.design.base import BaseDesign, Mixture
from mixlens.design.level import Axis, Level
from mixlens.spec.base import Name
from mixlens.spec.data import Mix


class ArmsDesign(BaseDesign):
    """Mixtures of any components, each of which the same base is fine-tuned on.

    They are listed from simple to complex; the answer says whether results go along with that.
    """

    kind: Literal["arms"] = Field(description="mixtures by name, from simple to complex")
    arms: dict[Name, Mix] = Field(
        min_length=1,
        description="name -> weights of components",
        json_schema_extra={"unit": "share"},
    )

    @property
    def axis(self) -> Axis:
        return Axis(noun="arm", title="Trained on, from simple to complex")

    def levels(self) -> tuple[Level, ...]:
        return tuple(
            Level(id=name, label=name, weights=weights) for name, weights in self.arms.items()
        )

    def mixtures(self) -> tuple[Mixture, ...]:
        return tuple(
            Mixture(f"arms.{name}", f"Arm {name}", weights) for name, weights in self.arms.items()
        )

    def space(self) -> dict[str, Any]:
        return {"kind": self.kind}
