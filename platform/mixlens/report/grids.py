"""The tables of text on a page."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mixlens.analysis import Tables
from mixlens.analysis.effect import DIFFERENCE, SLOPE, TREND, is_beyond_noise
from mixlens.analysis.tables import EXCESS, HEADLINE, MEAN_ACCURACY, REDUNDANCY
from mixlens.analysis.words import GROUP_NAMES, digits_of, number, score_name


@dataclass(frozen=True)
class Grid:
    """A table of text for the page: a head row, and rows whose first cell names them."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def accuracy_grid(tables: Tables) -> Grid:
    """Headline score of each task group, and the means of the simple and of the complex ones."""
    short = {group: GROUP_NAMES[group] for group in HEADLINE} | {"scene_graph": "scene graph, F1"}
    columns = [(short[group], group, metric, "") for group, metric in HEADLINE.items()]
    columns += [(f"{name}, mean", name, MEAN_ACCURACY, "") for name in ("simple", "complex")]
    return by_run(tables, columns)


def redundancy_grid(tables: Tables) -> Grid:
    """Redundancy score by depth and stream."""
    return by_run(
        tables,
        [
            ("visual, all layers", "visual", REDUNDANCY, "mean"),
            ("early third", "visual", REDUNDANCY, "early"),
            ("middle third", "visual", REDUNDANCY, "middle"),
            ("late third", "visual", REDUNDANCY, "late"),
            ("above pixel floor", "visual", EXCESS, "mean"),
            ("text, all layers", "text", REDUNDANCY, "mean"),
            ("vision encoder", "vision", REDUNDANCY, "mean"),
        ],
    )


def by_run(tables: Tables, columns: Sequence[tuple[str, str, str, str]]) -> Grid:
    """A row for the base and each ratio or arm; a column for each quantity that was measured.

    Args:
        tables: of a sweep.
        columns: label, subject, metric and part of each quantity.
    """
    table = tables.sweep.set_index(["subject", "metric", "part"], drop=False).sort_index()
    table = table[table["value"].notna()]
    columns = [column for column in columns if column[1:] in table.index]
    rows = []
    for name in tables.sweep["run"].unique():
        cells = []
        for _, *key in columns:
            some = table.loc[[tuple(key)]]
            some = some[some["run"] == name]
            cells.append(cell(some.iloc[0]) if len(some) else "–")
        rows.append(("base model" if name == "base" else name.replace("=", " "), *cells))
    return Grid(("", *(label for label, *_ in columns)), tuple(rows))


def effects_grid(tables: Tables) -> Grid:
    """Difference of the end ratios or arms, and slope or trend, of each headline quantity."""
    table = tables.effects
    has_arms = table["arm_to"].ne("").any()
    line = TREND if has_arms else SLOPE
    wanted = [(score_name(group), group, metric, "") for group, metric in HEADLINE.items()]
    wanted += [
        ("visual redundancy", "visual", REDUNDANCY, "mean"),
        ("… early third", "visual", REDUNDANCY, "early"),
        ("… middle third", "visual", REDUNDANCY, "middle"),
        ("… late third", "visual", REDUNDANCY, "late"),
        ("text redundancy", "text", REDUNDANCY, "mean"),
    ]
    rows = []
    for label, subject, metric, part in wanted:
        some = table[
            (table["subject"] == subject) & (table["metric"] == metric) & (table["part"] == part)
        ].set_index("contrast")
        if DIFFERENCE not in some.index or pd.isna(some.loc[DIFFERENCE, "value"]):
            continue
        change = some.loc[DIFFERENCE]
        verdict = "beyond noise" if is_beyond_noise(change) else "within noise"
        slope = some.loc[line]
        cells = [cell(change, True), cell(slope, True), verdict]
        if has_arms:
            cells.append("beyond noise" if is_beyond_noise(slope) else "within noise")
        rows.append((label, *cells))
    arms = ("Last − first arm", "Trend, per arm", "Difference is", "Trend is")
    ratios = ("Highest − lowest ratio", "Slope, per unit of ratio", "Difference is")
    return Grid(("Quantity", *(arms if has_arms else ratios)), tuple(rows))


def cost_grid(tables: Tables) -> Grid:
    """Speed and memory of each run."""
    names = {
        "images_per_s": ("images/s", 1, 1.0),
        "tokens_per_s": ("tokens/s", 0, 1.0),
        "step_s": ("step, ms", 0, 1000.0),
        "data_wait_share": ("waiting for data, %", 2, 100.0),
        "peak_memory_gb": ("peak memory, GB", 2, 1.0),
    }
    there = [name for name in names if name in tables.training]
    if not there:
        return Grid((), ())
    medians = tables.training.groupby("run", sort=False)[there].median()
    rows = [
        (str(run), *(number(row[name] * names[name][2], names[name][1]) for name in there))
        for run, row in medians.iterrows()
    ]
    return Grid(("Run (median step)", *(names[name][0] for name in there)), tuple(rows))


def cell(row: pd.Series, signed: bool = False) -> str:
    """Value, and its interval on a line of its own; of redundancy with as many decimals as tell."""
    if pd.isna(row["value"]):
        return "–"
    digits = digits_of(row) if row["metric"] in (REDUNDANCY, EXCESS) else 3
    value = number(row["value"], digits, signed)
    if pd.isna(row["low"]):
        return value
    low, high = (number(row[end], digits, signed) for end in ("low", "high"))
    return f"{value}\n[{low}, {high}]"
