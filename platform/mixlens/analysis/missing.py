"""What could not be estimated, in sentences: nothing is left out of an answer without a word."""

import pandas as pd

from mixlens.analysis.levels import Levels
from mixlens.analysis.tables import Tables
from mixlens.analysis.words import (
    group_name,
    listing,
    number,
    with_interval,
    worse_than_guessing,
)
from mixlens.design import BASE


def levels_without(tables: Tables, subject: str, metric: str, part: str = "") -> pd.DataFrame:
    """Rows of `sweep` of the levels that have no value of a quantity."""
    rows = levels_of_quantity(tables, subject, metric, part)
    return rows[rows["value"].isna()]


def levels_of_quantity(tables: Tables, subject: str, metric: str, part: str = "") -> pd.DataFrame:
    """Rows of `sweep` of the levels, of a quantity."""
    table = tables.sweep
    return table[
        (table["level"] != BASE)
        & (table["subject"] == subject)
        & (table["metric"] == metric)
        & (table["part"] == part)
    ]


def not_estimated(tables: Tables, rows: pd.DataFrame, what: str, has: str) -> str:
    """At which levels something could not be estimated, and in how many images; "" if at none.

    Args:
        tables: all of the sweep.
        rows: of `levels_without`.
        what: could not be estimated, the subject of the sentence.
        has: what an image with a value has.
    """
    if rows.empty:
        return ""
    total = tables.examples["example_id"].nunique()
    levels = Levels(tables.levels)
    parts = [f"{levels.name(row['level'])} ({row['n_images']} of {total} images {has})"
             for _, row in rows.iterrows()]  # fmt: skip
    return f"{what} could not be estimated at {listing(parts)}."


def below_chance(tables: Tables) -> list[str]:
    """The sentence on models that answer worse than a guesser; none where there are none."""
    levels = Levels(tables.levels)
    rows = tables.sweep[tables.sweep["high"] < tables.sweep["chance"]]
    when = {BASE: "before fine-tuning"} | {one: f"at {levels.name(one)}" for one in levels.ids}
    parts = [
        f"{group_name(row['subject'])} {when[row['level']]} "
        f"({with_interval(row)} beside {number(row['chance'], 2)})"
        for _, row in rows.iterrows()
    ]
    return [worse_than_guessing(parts)] if parts else []


def without_layers(layers: pd.DataFrame) -> str:
    """What to add where a curve lacks layers: which, and in how many images each has a value."""
    some = layers[layers["value"].isna()].sort_values("layer")
    if some.empty:
        return ""
    parts = [f"{row['layer']} ({int(row['n'])} images)" for _, row in some.iterrows()]
    return f"; not estimable at layer{'s' * (len(parts) > 1)} {listing(parts)}"
