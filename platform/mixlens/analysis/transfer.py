"""Whether what goes with what on one set of images also does on another: scenes and photographs.

The images of the two are different ones, so a correlation on one side is independent of the same
correlation on the other. The interval of their difference is made of their own two intervals (Zou
2007, "Toward using confidence intervals to compare correlations"): it assumes no more than these
do, agrees with what is shown beside it, and stays within what a difference can be, where Fisher's z
would compare something that nobody has seen.

That one correlation is beyond its noise and another is not does not mean that they differ (Gelman
and Stern 2006). So a trend counts as absent on the other side only if the difference is beyond its
noise too; else it is unclear.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mixlens.statistics.intervals import Array

ANALOGUES = (("shape_diversity", "category_diversity"),)
"""Attributes of scenes and of photographs that say the same of other things."""

HOLDS, REVERSES, ONLY_HERE, UNCLEAR = "holds", "reverses", "only here", "unclear"
ONLY_THERE, NEITHER, UNKNOWN = "only there", "neither", "not estimable"
FOUND = (HOLDS, REVERSES, ONLY_HERE, UNCLEAR)
"""What can become of a trend that was found here; the others are no trends here, or unknown."""

COLUMNS = (
    "stream", "layer", "metric", "attribute", "attribute_there",
    "rho", "low", "high", "n", "p", "rho_there", "low_there", "high_there", "n_there", "p_there",
    "difference", "difference_low", "difference_high", "verdict", "note",
)  # fmt: skip
_KEY = ["stream", "layer", "metric"]
_OWN = ["rho", "low", "high", "n", "p", "note"]


def transfer_table(here: pd.DataFrame, there: pd.DataFrame) -> pd.DataFrame:
    """The `transfer` table: a row for each correlation of an attribute that both sides have.

    Its columns: `rho` with its 95 % interval, n and p (adjusted over the whole table of its side)
    here, the same there, their difference (here less there) with its interval, and a verdict:

    * holds: both intervals exclude 0, on the same side of it; reverses: on different sides;
    * only here: that of the second includes 0, and that of the difference excludes it;
    * unclear: as before, but the difference may be nothing as well;
    * only there: the first includes 0 and the second excludes it; neither: both include it;
    * not estimable: one of them is; `note` says why.

    Args:
        here: `correlations` of one set of images; see `mixlens.analysis.correlations`.
        there: the same of the same model on other images.
    """
    pairs = paired_attributes(here["attribute"].unique(), there["attribute"].unique())
    first = here[here["attribute"].isin(pairs)][[*_KEY, "attribute", *_OWN]]
    first = first.assign(attribute_there=first["attribute"].map(pairs))
    second = there[[*_KEY, "attribute", *_OWN]].rename(columns={"attribute": "attribute_there"})
    table = first.merge(
        second, on=[*_KEY, "attribute_there"], how="left", suffixes=("", "_there"), validate="1:1"
    )
    missing = table["n_there"].isna()
    table["n_there"] = table["n_there"].fillna(0).astype("int64")
    table = table.assign(**_difference(table))
    table["verdict"] = _verdicts(table)
    unknown = table["verdict"] == UNKNOWN
    notes = np.where(missing, "not measured there", table["note_there"].fillna(""))
    reason = table["note"].where(table["rho"].isna(), pd.Series(notes, table.index))
    table["note"] = reason.where(unknown, "")
    return table[list(COLUMNS)]


def paired_attributes(here: Sequence[str], there: Sequence[str]) -> dict[str, str]:
    """Attributes of one side with what each is called on the other: the same name, or an analogue.

    Those without a counterpart are not in it.
    """
    known = set(there)
    pairs = {str(name): str(name) for name in here if name in known}
    for one, other in ANALOGUES:
        for mine, theirs in ((one, other), (other, one)):
            if mine in here and mine not in pairs and theirs in known and theirs not in pairs:
                pairs[mine] = theirs
    return pairs


def _difference(table: pd.DataFrame) -> dict[str, Array]:
    """Here less there, with the interval that their own two intervals give (Zou 2007)."""
    rho, low, high = (table[name].to_numpy(dtype=float) for name in ("rho", "low", "high"))
    rho_there, low_there, high_there = (
        table[f"{name}_there"].to_numpy(dtype=float) for name in ("rho", "low", "high")
    )
    difference = rho - rho_there
    return {
        "difference": difference,
        "difference_low": difference - np.hypot(rho - low, high_there - rho_there),
        "difference_high": difference + np.hypot(high - rho, rho_there - low_there),
    }


def _verdicts(table: pd.DataFrame) -> Array:
    sign, sign_there = (_side(table, end) for end in ("", "_there"))
    differs = (table["difference_low"] > 0) | (table["difference_high"] < 0)
    cases = [
        (table["rho"].isna() | table["rho_there"].isna(), UNKNOWN),
        (sign * sign_there > 0, HOLDS),
        (sign * sign_there < 0, REVERSES),
        ((sign != 0) & differs, ONLY_HERE),
        (sign != 0, UNCLEAR),
        (sign_there != 0, ONLY_THERE),
    ]
    return np.select([case for case, _ in cases], [name for _, name in cases], NEITHER)


def _side(table: pd.DataFrame, end: str) -> Array:
    """1 where an interval lies above 0, -1 below, 0 where it holds 0 or is unknown."""
    above = table[f"low{end}"].to_numpy(dtype=float) > 0
    below = table[f"high{end}"].to_numpy(dtype=float) < 0
    return above.astype(int) - below.astype(int)
