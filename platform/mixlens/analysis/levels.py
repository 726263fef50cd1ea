"""Table `levels`: what a sweep tried, and the words and places that all else takes from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mixlens.design import BASE, Axis, Level


def levels_table(axis: Axis, levels: Sequence[Level]) -> pd.DataFrame:
    """One row a level, in the order of the design.

    Returns:
        level, label, place (0, 1, 2 ...), at (its quantity on the scale; its place where there is
        none), weight.<component>, coordinate.<name>, and, the same in every row, noun (of one
        level), title (of the axis) and scale (the name of the quantity; empty without one).
    """
    rows = []
    for place, level in enumerate(levels):
        at = float(place) if axis.scale is None else level.coordinates[axis.scale]
        rows.append(
            {
                "level": level.id,
                "label": level.label,
                "place": place,
                "at": at,
                **{f"weight.{name}": weight for name, weight in level.weights.items()},
                **{f"coordinate.{name}": value for name, value in level.coordinates.items()},
                "noun": axis.noun,
                "title": axis.title,
                "scale": axis.scale or "",
            }
        )
    table = pd.DataFrame(rows)
    weights = [name for name in table if str(name).startswith("weight.")]
    return table.fillna(dict.fromkeys(weights, 0.0))


@dataclass(frozen=True)
class Levels:
    """The table `levels`, for sentences, figures and grids.

    Attributes:
        table: see `levels_table`.
    """

    table: pd.DataFrame

    @property
    def ids(self) -> list[str]:
        """In the order of the design."""
        return [str(name) for name in self.table["level"]]

    @property
    def noun(self) -> str:
        """Of one level, such as ratio."""
        return str(self.table["noun"].iloc[0])

    @property
    def title(self) -> str:
        """Of the axis."""
        return str(self.table["title"].iloc[0])

    @property
    def is_scale(self) -> bool:
        """Whether levels are quantities, and not only in an order."""
        return bool(self.table["scale"].iloc[0])

    def each(self) -> str:
        """The noun with its article: "a ratio"."""
        return f"{'an' if self.noun[0] in 'aeiou' else 'a'} {self.noun}"

    def label(self, level: object) -> str:
        """As figures and grids call it; of the base, "base model"."""
        return "base model" if level == BASE else str(self._of(level)["label"])

    def name(self, level: object) -> str:
        """As sentences call it: "ratio 0.5", "arm coarse"."""
        return self.label(level) if self.is_scale else f"{self.noun} {self.label(level)}"

    def at(self, level: object) -> float:
        """Its place on the axis of a figure."""
        return float(self._of(level)["at"])

    def tick(self, level: object) -> str:
        """Its number on the scale, or its label."""
        return f"{self.at(level):g}" if self.is_scale else self.label(level)

    def places(self, levels: pd.Series) -> np.ndarray:
        """[rows] the places of a column of levels on the axis of a figure."""
        return np.array([self.at(level) for level in levels])

    def _of(self, level: object) -> pd.Series:
        return self.table[self.table["level"] == level].iloc[0]
