"""Compare the tables of two runs of one file, value by value: of two commits, or of two machines.

python tests/same_tables.py BEFORE AFTER [tolerance]

BEFORE and AFTER are run directories (runs/quickstart), or the folders of their tables. Rows are
joined by their words and whole numbers, so their order does not matter. A value is the same if it
differs by no more than the tolerance (1e-9), or by that share of its size. Rows and columns that
only one side has are counted; those that are lost are listed. The exit code is 1 if a shared value
differs or something is lost.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

TOLERANCE = 1e-9
CLOCKS = {
    "images_per_s", "tokens_per_s", "answers_per_s", "prefill_s_per_image", "step_s",
    "data_wait_share", "peak_memory_gb",
}  # fmt: skip
"""What depends on the machine and the hour."""
COUNTS = {"comparisons", "choices"}
"""Whole numbers that are results and name no row; so are all that begin with n."""


@dataclass(frozen=True)
class Comparison:
    """Of one table.

    Attributes:
        shared: values that both sides have.
        largest: the largest difference among them.
        differing: one line for each that differs by more than the tolerance.
        lost: rows and columns that only BEFORE has, in words.
        gained: rows that only AFTER has.
    """

    name: str
    shared: int
    largest: float
    differing: list[str]
    lost: list[str]
    gained: int


def compare_runs(before: Path, after: Path, tolerance: float = TOLERANCE) -> list[Comparison]:
    """Every table that BEFORE has."""
    before, after = (path / "tables" if (path / "tables").is_dir() else path
                     for path in (before, after))  # fmt: skip
    found = []
    for file in sorted(before.glob("*.parquet")):
        other = after / file.name
        old = as_now(pd.read_parquet(file).reset_index())
        if not other.is_file():
            found.append(Comparison(file.stem, 0, 0.0, [], [f"all {len(old)} rows"], 0))
            continue
        new = as_now(pd.read_parquet(other).reset_index())
        found.append(compare(file.stem, old, new, tolerance))
    return found


def as_now(table: pd.DataFrame) -> pd.DataFrame:
    """A table as version 0.1 first wrote it, with its columns and contrasts named as today.

    There a level was a ratio or an arm, and the complexity of a question was called its level.
    """
    if "ratio" in table and "level" in table:
        table = table.rename(columns={"level": "complexity"})
    for end in ("", "_from", "_to"):
        if f"ratio{end}" in table:
            ratios = table.pop(f"ratio{end}")
            arms = table.pop(f"arm{end}") if f"arm{end}" in table else [""] * len(ratios)
            table[f"level{end}"] = [
                str(arm or "base") if pd.isna(ratio) else f"ratio={ratio:.12g}"
                for ratio, arm in zip(ratios, arms, strict=True)
            ]
    if "contrast" in table:
        table["contrast"] = table["contrast"].replace("slope", "trend")
    return table


def compare(name: str, old: pd.DataFrame, new: pd.DataFrame, tolerance: float) -> Comparison:
    """Rows are joined by the words and whole numbers that both have, then by their order."""
    both = [column for column in old if column in new and column not in CLOCKS]
    lost = [f"column {c}" for c in old if c not in new and c not in CLOCKS and c != "index"]
    keys = [column for column in sorted(both) if _names_rows(str(column), old[column])]
    values = [column for column in both if column not in keys and column != "index"]
    old, new = (_keyed(table, keys)[values] for table in (old, new))
    shared = old.index.intersection(new.index)
    gone = old.index.difference(new.index)
    lost += [f"row {', '.join(map(str, key))}" for key in gone]
    count, largest, differing = 0, 0.0, []
    for column in values:
        a, b = (_numbers(table.loc[shared, column]) for table in (old, new))
        gap = np.abs(a - b)
        same = (np.isnan(a) & np.isnan(b)) | (a == b)
        gap[same] = 0.0
        bad = ~(gap <= tolerance * np.fmax(1.0, np.abs(a)))
        count += int((~np.isnan(a)).sum())
        largest = max(largest, float(np.nanmax(gap, initial=0.0)))
        differing += [
            f"{column} of {', '.join(map(str, shared[place]))}: {a[place]:.17g} -> {b[place]:.17g}"
            for place in np.flatnonzero(bad)
        ]
    return Comparison(name, count, largest, differing, lost, len(new.index.difference(old.index)))


def _numbers(column: pd.Series) -> np.ndarray:
    return pd.to_numeric(column, errors="coerce").to_numpy(float, na_value=np.nan)


def _names_rows(name: str, column: pd.Series) -> bool:
    if name == "index" or name in COUNTS or name.split("_")[0] == "n":
        return False
    return not (pd.api.types.is_float_dtype(column) or pd.api.types.is_bool_dtype(column))


def _keyed(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    words = table[keys].astype(object).where(table[keys].notna(), "-").astype(str)
    words["again"] = words.groupby(keys).cumcount() if keys else np.arange(len(table))
    return table.set_axis(pd.MultiIndex.from_frame(words.astype(str)))


def main(arguments: list[str]) -> int:
    """Print one line a table, and whatever differs."""
    before, after = map(Path, arguments[:2])
    tolerance = float(arguments[2]) if len(arguments) > 2 else TOLERANCE
    found = compare_runs(before, after, tolerance)
    if not found:
        print(f"{before} holds no tables.", file=sys.stderr)
        return 2
    for one in found:
        print(f"{one.name:16s} {one.shared:8d} values shared, largest difference "
              f"{one.largest:.2g}, {len(one.differing)} differ; rows and columns lost "
              f"{len(one.lost)}, rows gained {one.gained}")  # fmt: skip
        for line in [*one.differing[:8], *one.lost[:8]]:
            print(f"    {line}")
    return int(any(one.differing or one.lost for one in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
