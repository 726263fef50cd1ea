"""Shares of complex data, from none to all."""

from typing import Any, Literal

from pydantic import Field, model_validator

from mixlens.design.base import BaseDesign, Mixture
from mixlens.design.level import Axis, Level
from mixlens.errors import explain
from mixlens.spec.base import Share
from mixlens.spec.data import Mix, Weights

RATIO = "ratio"


class RatioDesign(BaseDesign):
    """Two mixtures and the ratios between them.

    A trial at ratio r draws component c with weight r * high[c] + (1 - r) * low[c].
    """

    kind: Literal["ratio"] = Field(description="shares of complex data, from none to all")
    high: Mix = Field(
        description="weights of components within the complex side",
        json_schema_extra={"unit": "share"},
    )
    low: Mix = Field(
        description="weights of components within the simple side",
        json_schema_extra={"unit": "share"},
    )
    ratios: tuple[Share, ...] = Field(
        min_length=1, description="shares of the complex side", json_schema_extra={"unit": "share"}
    )

    @model_validator(mode="after")
    def _check(self) -> "RatioDesign":
        if len(set(self.ratios)) != len(self.ratios):
            raise ValueError(
                explain("ratios", list(self.ratios), "a value is repeated", "Name each one once.")
            )
        return self

    @property
    def axis(self) -> Axis:
        return Axis(noun=RATIO, title="Share of complex data", scale=RATIO)

    def levels(self) -> tuple[Level, ...]:
        return tuple(
            Level(
                id=f"{RATIO}={ratio:.12g}",
                label=f"{RATIO} {ratio:.12g}",
                weights=self._weights(ratio),
                coordinates={RATIO: ratio},
            )
            for ratio in self.ratios
        )

    def _weights(self, ratio: float) -> Weights:
        return {
            name: ratio * self.high.get(name, 0.0) + (1 - ratio) * self.low.get(name, 0.0)
            for name in sorted({*self.high, *self.low})
        }

    def mixtures(self) -> tuple[Mixture, ...]:
        return (
            Mixture("high", "Complex data", self.high),
            Mixture("low", "Simple data", self.low),
        )

    def space(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"ratios"})
