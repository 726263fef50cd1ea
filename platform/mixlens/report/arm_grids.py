"""The tables of a page that compares arms: one row an arm, and one row a pair of arms."""

import pandas as pd

from mixlens.analysis import SweepResults, Tables
from mixlens.analysis.effect import PAIR, is_beyond_noise
from mixlens.analysis.tables import ALL, EXCESS, HEADLINE, MEAN_ACCURACY, REDUNDANCY
from mixlens.analysis.words import GROUP_NAMES
from mixlens.design import BASE
from mixlens.report.grids import Grid, by_run, cell


def arms_grid(sweep: SweepResults, tables: Tables) -> Grid:
    """Redundancy of visual tokens and accuracy of the base and of every arm."""
    measured = by_run(
        tables,
        [
            ("redundancy, all layers", "visual", REDUNDANCY, "mean"),
            ("late third", "visual", REDUNDANCY, "late"),
            ("above pixel floor", "visual", EXCESS, "mean"),
            ("accuracy, mean of all groups", ALL, MEAN_ACCURACY, ""),
        ],
    )
    rows = []
    for level, (label, *cells) in zip([None, *sweep.arms], measured.rows, strict=True):
        groups = () if level is None else sweep.groups_of(level)
        names = ", ".join(GROUP_NAMES[group] for group in groups)
        rows.append((label, names or "–", *cells, _own_accuracy(tables, level or "", groups)))
    return Grid(("", "trained on", *measured.head[1:], "accuracy on what it was trained on"),
                tuple(rows))  # fmt: skip


def matrix_grid(sweep: SweepResults, tables: Tables) -> Grid:
    """Trained on one thing (rows), asked about another (columns); a star marks an arm's own."""
    names = {group: GROUP_NAMES[group] for group in HEADLINE} | {"scene_graph": "scene graph, F1"}
    groups = [
        group
        for group, metric in HEADLINE.items()
        if not _rows(tables.sweep, group, metric, "").empty
    ]
    grid = by_run(tables, [(names[group], group, HEADLINE[group], "") for group in groups])
    rows = []
    for level, (label, *cells) in zip([None, *sweep.arms], grid.rows, strict=True):
        own = () if level is None else sweep.groups_of(level)
        rows.append(
            (label, *(_starred(text) if group in own else text
                      for group, text in zip(groups, cells, strict=True)))
        )  # fmt: skip
    return Grid(("trained on", *grid.head[1:]), tuple(rows))


def pairs_grid(tables: Tables) -> Grid:
    """Difference of every pair of arms; the intervals of a column hold for all pairs at once."""
    columns = [
        ("redundancy", "visual", REDUNDANCY, "mean"),
        *((f"{GROUP_NAMES[group]}{', F1' if group == 'scene_graph' else ''}", group, metric, "")
          for group, metric in HEADLINE.items()),
    ]  # fmt: skip
    effects = tables.effects[tables.effects["contrast"] == PAIR]
    found = {}
    for label, *key in columns:
        some = _rows(effects, *key)
        if len(some):
            found[label] = some.set_index(["arm_to", "arm_from"])
    pairs = effects[["arm_to", "arm_from"]].drop_duplicates().itertuples(index=False, name=None)
    rows = tuple(
        (f"{end} − {start}",
         *(_difference(table.loc[(end, start)]) if (end, start) in table.index else "–"
           for table in found.values()))
        for end, start in pairs
    )  # fmt: skip
    return Grid(("", *found), rows)


def _own_accuracy(tables: Tables, arm: str, groups: tuple[str, ...]) -> str:
    metric = HEADLINE.get(groups[0], "") if len(groups) == 1 else MEAN_ACCURACY
    rows = _rows(tables.sweep, "+".join(groups), metric, "")
    rows = rows[rows["run"] == (arm or BASE)]
    return cell(rows.iloc[0]) if len(rows) else "–"


def _rows(table: pd.DataFrame, subject: str, metric: str, part: str) -> pd.DataFrame:
    return table[
        (table["subject"] == subject)
        & (table["metric"] == metric)
        & (table["part"] == part)
        & table["value"].notna()
    ]


def _starred(text: str) -> str:
    value, _, interval = text.partition("\n")
    return f"{value} *\n{interval}" if interval else f"{value} *"


def _difference(row: pd.Series) -> str:
    value, _, interval = cell(row, True).partition("\n")
    return f"{value}{' *' if is_beyond_noise(row) else ''}\n{interval}"
