"""The tables of text on a page."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from mixlens.analysis import SweepResults, Tables
from mixlens.analysis.effect import DIFFERENCE, PAIR, TREND, is_beyond_noise
from mixlens.analysis.levels import Levels
from mixlens.analysis.tables import ALL, EXCESS, HEADLINE, MEAN_ACCURACY, REDUNDANCY, TIERS
from mixlens.analysis.words import digits_of, group_title, number, score_name
from mixlens.design import BASE, Level


@dataclass(frozen=True)
class Grid:
    """A table of text for the page: a head row, and rows whose first cell names them."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


_QUANTITIES = (
    *((score_name(group), group, metric, "") for group, metric in HEADLINE.items()),
    ("visual redundancy", "visual", REDUNDANCY, "mean"),
    ("… early third", "visual", REDUNDANCY, "early"),
    ("… middle third", "visual", REDUNDANCY, "middle"),
    ("… late third", "visual", REDUNDANCY, "late"),
    ("text redundancy", "text", REDUNDANCY, "mean"),
)


def accuracy_grid(sweep: SweepResults, tables: Tables) -> Grid:
    """Headline score of each task group, and means over groups; a star: trained on this group."""
    columns = [(group_title(group), group, metric, "") for group, metric in HEADLINE.items()]
    columns += [(f"{name}, mean", name, MEAN_ACCURACY, "") for name in TIERS]
    columns.append(("mean of all", ALL, MEAN_ACCURACY, ""))
    grid = by_level(tables, columns)
    subject = {label: subject for label, subject, *_ in columns}
    rows = []
    for level, (label, *cells) in zip([None, *sweep.levels], grid.rows, strict=True):
        own = () if level is None else sweep.groups_of(level)
        starred = [
            _starred(text) if subject[head] in own else text
            for head, text in zip(grid.head[1:], cells, strict=True)
        ]
        rows.append((label, *starred, _own_accuracy(tables, level, own)))
    return Grid((*grid.head, "on what it was trained on"), tuple(rows))


def redundancy_grid(tables: Tables) -> Grid:
    """Redundancy score by depth and stream."""
    return by_level(
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


def by_level(tables: Tables, columns: Sequence[tuple[str, str, str, str]]) -> Grid:
    """A row for the base and each level; a column for each quantity that was measured.

    Args:
        tables: of a sweep.
        columns: label, subject, metric and part of each quantity.
    """
    table = tables.sweep.set_index(["subject", "metric", "part"], drop=False).sort_index()
    table = table[table["value"].notna()]
    columns = [column for column in columns if column[1:] in table.index]
    levels = Levels(tables.levels)
    rows = []
    for name in (BASE, *levels.ids):
        cells = []
        for _, *key in columns:
            some = table.loc[[tuple(key)]]
            some = some[some["level"] == name]
            cells.append(cell(some.iloc[0]) if len(some) else "–")
        rows.append((levels.label(name), *cells))
    return Grid(("", *(label for label, *_ in columns)), tuple(rows))


def effects_grid(tables: Tables) -> Grid:
    """Difference of the ends, and trend, of each headline quantity."""
    table, levels = tables.effects, Levels(tables.levels)
    rows = []
    for label, subject, metric, part in _QUANTITIES:
        some = table[
            (table["subject"] == subject) & (table["metric"] == metric) & (table["part"] == part)
        ].set_index("contrast")
        if DIFFERENCE not in some.index or pd.isna(some.loc[DIFFERENCE, "value"]):
            continue
        parts = [some.loc[DIFFERENCE], some.loc[TREND]]
        verdicts = ("beyond noise" if is_beyond_noise(row) else "within noise" for row in parts)
        rows.append((label, *(cell(row, True) for row in parts), *verdicts))
    per = f"unit of {levels.noun}" if levels.is_scale else levels.noun
    head = (f"Last − first {levels.noun}", f"Trend, per {per}", "Difference is", "Trend is")
    return Grid(("Quantity", *head), tuple(rows))


def pairs_grid(tables: Tables) -> Grid:
    """Difference of every pair of levels without a scale; empty on a scale."""
    levels = Levels(tables.levels)
    effects = tables.effects[tables.effects["contrast"] == PAIR]
    found = {}
    for label, subject, metric, part in _QUANTITIES:
        some = effects[
            (effects["subject"] == subject)
            & (effects["metric"] == metric)
            & (effects["part"] == part)
            & effects["value"].notna()
        ]
        if len(some):
            found[label] = some.set_index(["level_to", "level_from"])
    pairs = effects[["level_to", "level_from"]].drop_duplicates().itertuples(index=False, name=None)
    rows = tuple(
        (
            f"{levels.label(end)} − {levels.label(start)}",
            *(
                _difference(table.loc[(end, start)]) if (end, start) in table.index else "–"
                for table in found.values()
            ),
        )
        for end, start in pairs
    )
    return Grid(("", *found), rows)


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


def _own_accuracy(tables: Tables, level: Level | None, groups: tuple[str, ...]) -> str:
    """Mean accuracy on the groups that a level was trained on."""
    if level is None:
        return "–"
    metric = HEADLINE.get(groups[0], "") if len(groups) == 1 else MEAN_ACCURACY
    table = tables.sweep
    rows = table[
        (table["subject"] == "+".join(groups))
        & (table["metric"] == metric)
        & (table["level"] == level.id)
        & table["value"].notna()
    ]
    return cell(rows.iloc[0]) if len(rows) else "–"


def _starred(text: str) -> str:
    value, _, interval = text.partition("\n")
    starred = f"{value}\u00a0*"  # a star on a line of its own belongs to nothing
    return f"{starred}\n{interval}" if interval else starred


def _difference(row: pd.Series) -> str:
    value, _, interval = cell(row, True).partition("\n")
    return f"{value}{' *' if is_beyond_noise(row) else ''}\n{interval}"
