"""What the levels did: differences, the trend over their order, and against the base."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from mixlens.analysis.results import SweepResults
from mixlens.analysis.tables import Panel, images_of, levels_of
from mixlens.design import BASE
from mixlens.statistics.intervals import CONFIDENCE, TAIL, Array, Levels, percentiles, spread

DIFFERENCE, AGAINST_BASE = "difference", "against base"
TREND = "trend"  # over the scale, or over places
PAIR = "pair"  # of levels without a scale


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of the means of the base and of every level.

    Attributes:
        start: the id of the level that it starts from, or of the base.
        end: of the level that it ends at.
        weights: [1 + levels] base first.
        rests_on: [levels] those whose runs it rests on.
    """

    name: str
    start: str
    end: str
    weights: Array
    rests_on: tuple[bool, ...]


def effects_table(sweep: SweepResults, panels: Sequence[Panel], weights: Array) -> pd.DataFrame:
    """Contrasts of the levels, paired by image, with seed error where there are seeds.

    Rows: `difference` (the last level minus the first, of those that have a value), `trend` (the
    least-squares line through the means, per unit of the scale, or, without one, per place 0, 1, 2
    ...), `against base` (each level minus the base), and of levels without a scale `pair` (each
    level minus each one before it). With one level only `against base` exists. Without a scale the
    intervals of all pairs hold at once, and so do those against the base.

    Returns:
        contrast, level_from, level_to, subject, metric, part, layer, value, low, high, comparisons
        (how many intervals hold at once), n_images, n_runs, n_seeds (fewest at a level),
        n_seeds_max, covers. NaN where a quantity is missing on either side.
    """
    frames = []
    for panel, known in _by_known_levels(sweep, panels):
        levels = levels_of(sweep, panel, weights)
        images_at = images_of(sweep, panel)
        for family in _families(sweep, known):
            values, lows, highs = together(levels, [contrast.weights for contrast in family])
            comparisons = np.maximum((~np.isnan(values)).sum(axis=0), 1)
            for contrast, value, low, high in zip(family, values, lows, highs, strict=True):
                images = images_at[contrast.weights != 0].min(axis=0)
                seeds = levels.seeds[1:][list(contrast.rests_on)]
                frame = panel.columns[["subject", "metric", "part", "layer"]].assign(
                    contrast=contrast.name,
                    level_from=contrast.start,
                    level_to=contrast.end,
                    value=value,
                    low=np.where(images < 2, np.nan, low),
                    high=np.where(images < 2, np.nan, high),
                    comparisons=comparisons,
                    n_images=images,
                    n_runs=int(seeds.sum()),
                    n_seeds=int(seeds.min()),
                    n_seeds_max=int(seeds.max()),
                    covers=levels.covers,
                )
                frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    first = ["contrast", "level_from", "level_to"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def together(levels: Levels, contrasts: Sequence[Array]) -> tuple[Array, Array, Array]:
    """[contrasts, columns] value, low and high, which hold for all contrasts at once.

    A single contrast has its percentile interval. Of several, each column's intervals are centred
    on the values and as wide as their percentile intervals times one common factor, such that in
    95 % of the draws no contrast lies outside its own: the single-step max-t interval (Hothorn,
    Bretz and Westfall 2008), with half the percentile interval as the scale, because two seeds
    leave Student's t without a standard deviation.
    """
    if len(contrasts) == 1:
        value, low, high = levels.contrast(contrasts[0])
        return value[None], low[None], high[None]
    values, draws = zip(*(levels.combined(weights) for weights in contrasts), strict=True)
    half = np.stack([np.subtract(*percentiles(some)[::-1]) for some in draws]) / 2.0
    worst = np.zeros(levels.draws.shape[::2])
    for some, value, scale in zip(draws, values, half, strict=True):
        reach = np.zeros_like(some)
        np.divide(np.abs(some - value), scale, out=reach, where=scale > 0)
        worst = np.fmax(worst, reach)  # what is missing at one level is not compared
    factor = percentiles(worst, 2.0 * CONFIDENCE - 1.0)[1]  # its high end: 95 % lie below
    more = 1.0 - np.log(len(contrasts)) / np.log(TAIL)  # the tail is shared by all of them
    ends = []
    for weights, value, scale in zip(contrasts, values, factor * half, strict=True):
        below, above = levels.off(weights)
        shown = spread(value, (value - scale, value + scale), (more * below, more * above))
        ends.append(levels.possible(weights, shown))
    lows, highs = (np.stack(side) for side in zip(*ends, strict=True))
    return np.stack(values), lows, highs


def _by_known_levels(
    sweep: SweepResults, panels: Sequence[Panel]
) -> Iterator[tuple[Panel, list[int]]]:
    """Quantities that the same levels have a value of, and the places of these levels."""
    for panel in panels:
        known = images_of(sweep, panel)[1:] > 0
        patterns, member = np.unique(known, axis=1, return_inverse=True)
        for place in range(patterns.shape[1]):
            some = np.flatnonzero(member.ravel() == place).tolist()
            yield panel.take(some), np.flatnonzero(patterns[:, place]).tolist()


def _families(sweep: SweepResults, known: Sequence[int]) -> list[list[Contrast]]:
    """All contrasts; the intervals of those in one list hold at once.

    The difference of the ends, and the line, are those of the levels that have a value.
    """
    levels = [level.id for level in sweep.levels]
    scale = sweep.spec.design.axis.scale
    count = len(levels)
    families = []
    if len(known) > 1:
        first, last = levels[known[0]], levels[known[-1]]
        used = tuple(place in known for place in range(count))
        ends = _unit(count, known[-1]) - _unit(count, known[0])
        families.append([Contrast(DIFFERENCE, first, last, ends, used)])
        at = known if scale is None else [sweep.levels[p].coordinates[scale] for p in known]
        centred = np.array(at) - np.mean(at)
        line = np.zeros(1 + count)
        line[1 + np.array(known)] = centred / (centred**2).sum()
        families.append([Contrast(TREND, first, last, line, used)])
    against = []
    for place, level in enumerate(levels):
        weights = _unit(count, place)
        weights[0] = -1.0
        own = tuple(other == place for other in range(count))
        against.append(Contrast(AGAINST_BASE, BASE, level, weights, own))
    if scale is not None:
        return [*families, *([one] for one in against)]
    if count > 1:
        families.append([_pair(levels, *ends) for ends in combinations(range(count), 2)])
    return [*families, against]


def _pair(levels: Sequence[str], start: int, end: int) -> Contrast:
    count = len(levels)
    both = tuple(place in (start, end) for place in range(count))
    weights = _unit(count, end) - _unit(count, start)
    return Contrast(PAIR, levels[start], levels[end], weights, both)


def _unit(count: int, place: int) -> Array:
    """[1 + count] one at a level, zero at the base and all others."""
    weights = np.zeros(count + 1)
    weights[1 + place] = 1.0
    return weights


def find_effect(
    effects: pd.DataFrame, contrast: str, subject: str, metric: str, part: str = ""
) -> pd.Series | None:
    """The one row of the effects table that these name, or None where there is none."""
    rows = effects[
        (effects["contrast"] == contrast)
        & (effects["subject"] == subject)
        & (effects["metric"] == metric)
        & (effects["part"] == part)
    ]
    rows = rows[rows["value"].notna()]
    return None if rows.empty else rows.iloc[0]


def is_beyond_noise(row: pd.Series) -> bool:
    """Whether the interval excludes zero."""
    return bool(row["low"] > 0 or row["high"] < 0)
