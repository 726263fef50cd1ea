"""The sufficient level on a scale: the smallest that is as good on complex tasks as the best.

For each draw of images and seeds the rule is applied anew: the sufficient level is the smallest
whose accuracy on complex tasks is within `MARGIN` of the best one's. How often each level comes
out is its probability, and the middle 95 % of these are the interval. All draws are paired by
image. The rule always names a level, also in pure noise; so a second question is asked first: is
the largest difference between any two levels larger than noise makes it (a range test on the
centred draws, which holds for all pairs of levels at once)?
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlens.analysis.results import SweepResults
from mixlens.analysis.tables import Panel, images_of, levels_of
from mixlens.statistics.intervals import CONFIDENCE, Array, Levels, percentiles

MARGIN = 0.02
COLUMNS = (
    "level", "at", "value", "low", "high", "gap", "gap_low", "gap_high", "probability",
    "is_sufficient", "simple_change", "simple_change_low", "simple_change_high", "margin",
    "sufficient_low", "sufficient_high", "spread", "noise", "is_distinguishable", "n_images",
    "n_seeds", "covers",
)  # fmt: skip


@dataclass(frozen=True)
class Sufficiency:
    """Which quantity is enough, and how sure that is.

    Attributes:
        at: the smallest quantity within the margin of the best.
        low: lower end of the interval of `at`, one of the quantities that were run.
        high: its upper end.
        probability: [levels] how often each level came out over the draws.
        gap: [levels] accuracy minus that of the best level (at most 0).
        gap_low: [levels] its interval; the best is found anew in each draw.
        gap_high: [levels]
        spread: largest difference between two levels.
        noise: the bound that this difference keeps below in 95 % of draws when nothing differs.
    """

    at: float
    low: float
    high: float
    probability: Array
    gap: Array
    gap_low: Array
    gap_high: Array
    spread: float
    noise: float

    @property
    def is_distinguishable(self) -> bool:
        """Whether some level differs from another by more than noise."""
        return self.spread > self.noise


def sufficient(
    values: Array, draws: Array, at: NDArray[np.float64], margin: float = MARGIN
) -> Sufficiency:
    """Apply the rule to [levels] values and [resamples, levels] draws, whose places `at` ascend.

    Draws without any image that carries a complex question say nothing, and are left aside.
    """
    draws = draws[np.isfinite(draws).all(axis=1)]
    gap = values - values.max()
    gaps = draws - draws.max(axis=1, keepdims=True)
    chosen = _first_within(gaps, margin)
    probability = np.bincount(chosen, minlength=len(at)) / len(chosen)
    tail = (1.0 - CONFIDENCE) / 2.0
    cumulative = np.cumsum(probability)
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1.0 - tail, side="left"))
    centred = draws - values
    ranges = np.ptp(centred, axis=1)
    gap_low, gap_high = percentiles(gaps)
    return Sufficiency(
        at=float(at[_first_within(gap[None], margin)[0]]),
        low=float(at[low]),
        high=float(at[min(high, len(at) - 1)]),
        probability=probability,
        gap=gap,
        gap_low=gap_low,
        gap_high=gap_high,
        spread=float(np.ptp(values)),
        noise=float(np.quantile(ranges, CONFIDENCE)),
    )


def recommendation_table(
    sweep: SweepResults, panel: Panel, weights: Array, margin: float = MARGIN
) -> pd.DataFrame:
    """One row a level; empty where no complex task group was measured, and without a scale.

    Returns:
        level, at (its quantity), complex accuracy (value, low, high), gap to the best level (gap,
        gap_low, gap_high), probability of being the sufficient one, is_sufficient (the chosen one),
        change of the accuracy on simple groups against the lowest level (simple_change, _low,
        _high), n_images, n_seeds, and, the same in every row: margin, sufficient_low,
        sufficient_high, spread, noise, is_distinguishable, covers. A level whose complex accuracy
        cannot be estimated has NaN there and is none of those that are chosen from.
    """
    place = {subject: position for position, subject in enumerate(panel.columns["subject"])}
    scale = sweep.spec.design.axis.scale
    if "complex" not in place or scale is None:
        return pd.DataFrame({"level": []})
    names = [name for name in ("complex", "simple") if name in place]
    some = panel.take([place[name] for name in names])
    levels = levels_of(sweep, some, weights)
    at = np.array([level.coordinates[scale] for level in sweep.levels])
    low, high = levels.interval()
    table = pd.DataFrame(
        {
            "level": [level.id for level in sweep.levels],
            "at": at,
            "value": levels.values[1:, 0],
            "low": low[1:, 0],
            "high": high[1:, 0],
            "is_sufficient": False,
            "margin": margin,
            "n_images": images_of(sweep, some)[1:, 0],
            "n_seeds": levels.seeds[1:],
            "covers": levels.covers,
        }
    ).reindex(columns=list(COLUMNS))
    known = np.flatnonzero(table["value"].notna())
    if not len(known):
        return table.assign(is_distinguishable=False)
    draws = levels.loosened(1 + known)[..., 0]
    found = sufficient(levels.values[1 + known, 0], draws, at[known], margin)
    for name in ("gap", "gap_low", "gap_high", "probability"):
        table.loc[known, name] = getattr(found, name)
    table["is_sufficient"] = at == found.at
    if len(names) == 2:
        _add_simple_change(table, levels, known)
    return table.assign(
        sufficient_low=found.low,
        sufficient_high=found.high,
        spread=found.spread,
        noise=found.noise,
        is_distinguishable=found.is_distinguishable,
    )


def _add_simple_change(table: pd.DataFrame, levels: Levels, known: NDArray[np.int64]) -> None:
    """The accuracy on simple groups, against that of the lowest level of the table's answer."""
    for place in known:
        weights = np.zeros(len(levels.values))
        weights[1 + place] += 1.0
        weights[1 + known[0]] -= 1.0
        value, low, high = (part[1] for part in levels.contrast(weights))
        names = ["simple_change", "simple_change_low", "simple_change_high"]
        table.loc[place, names] = (value, low, high)


def _first_within(gaps: Array, margin: float) -> NDArray[np.int64]:
    """Position of the first gap above -margin in each row (rounding aside)."""
    return np.asarray(np.argmax(gaps >= -margin - 1e-9, axis=1), dtype=np.int64)
