"""What the ratio did: differences between ratios, the slope over ratios, and against the base."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mixlens.analysis.intervals import Array
from mixlens.analysis.results import SweepResults
from mixlens.analysis.tables import Panel, images_of, levels_of

DIFFERENCE, SLOPE, AGAINST_BASE = "difference", "slope", "against base"


def effects_table(sweep: SweepResults, panels: Sequence[Panel], weights: Array) -> pd.DataFrame:
    """Contrasts of the ratios, every one paired by image, with seed error where there are seeds.

    Rows: `difference` (highest ratio minus lowest), `slope` (least-squares line through the means
    of the ratios, per unit of ratio), `against base` (each ratio minus the base). With one ratio
    only the last exists.

    Returns:
        contrast, ratio_from, ratio_to, subject, metric, part, layer, value, low, high, n_images,
        n_runs, n_seeds (fewest at a ratio), n_seeds_max, covers. NaN where a quantity is missing
        on either side.
    """
    ratios = sweep.ratios
    contrasts: list[tuple[str, float, float, Array]] = []
    if len(ratios) > 1:
        ends = np.zeros(len(ratios) + 1)
        ends[1], ends[-1] = -1.0, 1.0
        contrasts.append((DIFFERENCE, ratios[0], ratios[-1], ends))
        centred = np.array(ratios) - np.mean(ratios)
        line = np.array([0.0, *(centred / (centred**2).sum())])
        contrasts.append((SLOPE, ratios[0], ratios[-1], line))
    for place, ratio in enumerate(ratios):
        against = np.zeros(len(ratios) + 1)
        against[0], against[1 + place] = -1.0, 1.0
        contrasts.append((AGAINST_BASE, np.nan, ratio, against))

    frames = []
    for panel in panels:
        levels = levels_of(sweep, panel, weights)
        images_at = images_of(sweep, panel)
        for name, start, end, combination in contrasts:
            images = images_at[combination != 0].min(axis=0)
            value, low, high = levels.contrast(combination)
            # Every seed of every ratio informs the seed error; only one ratio stands in the last.
            some = combination[1:] != 0 if name == AGAINST_BASE else np.full(len(ratios), True)
            frame = panel.columns[["subject", "metric", "part", "layer"]].assign(
                contrast=name,
                ratio_from=start,
                ratio_to=end,
                value=value,
                low=np.where(images < 2, np.nan, low),
                high=np.where(images < 2, np.nan, high),
                n_images=images,
                n_runs=int(levels.seeds[1:][some].sum()),
                n_seeds=int(levels.seeds[1:][some].min()),
                n_seeds_max=int(levels.seeds[1:][some].max()),
                covers=levels.covers,
            )
            frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    first = ["contrast", "ratio_from", "ratio_to"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


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
