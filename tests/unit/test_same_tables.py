"""The comparison of two runs finds what it is for."""

from pathlib import Path

import numpy as np
import pandas as pd
from same_tables import compare_runs

BEFORE = pd.DataFrame(
    {
        "contrast": ["slope", "against base"],
        "ratio_from": [0.0, np.nan],
        "ratio_to": [1.0, 0.25],
        "layer": pd.array([None, 3], dtype="Int64"),
        "value": [0.5, np.nan],
        "n_images": [24, 24],
        "step_s": [1.0, 2.0],
    }
)
AFTER = pd.DataFrame(
    {
        "contrast": ["against base", "trend", "trend"],
        "level_from": ["base", "ratio=0", "ratio=0"],
        "level_to": ["ratio=0.25", "ratio=1", "ratio=0.5"],
        "layer": pd.array([3, None, None], dtype="Int64"),
        "value": [np.nan, 0.5, 0.7],
        "n_images": [24, 24, 24],
    }
)


def _compare(folder: Path, before: pd.DataFrame, after: pd.DataFrame):
    for name, table in (("before", before), ("after", after)):
        (folder / name).mkdir()
        table.to_parquet(folder / name / "effects.parquet")
    (found,) = compare_runs(folder / "before", folder / "after")
    return found


def test_rows_of_other_names_and_another_order_are_the_same(tmp_path: Path):
    found = _compare(tmp_path, BEFORE, AFTER)
    assert (found.shared, found.differing, found.lost, found.gained) == (3, [], [], 1)


def test_a_value_that_moved_or_became_unknown_is_named(tmp_path: Path):
    after = AFTER.assign(value=[0.1, 0.5 + 1e-8, 0.7])
    found = _compare(tmp_path, BEFORE, after)
    assert len(found.differing) == 2
    assert any("trend, -, ratio=0, ratio=1, 0" in line and "0.50000001" in line
               for line in found.differing)  # fmt: skip
    assert found.largest >= 1e-8


def test_a_lost_row_and_a_lost_column_are_named(tmp_path: Path):
    found = _compare(tmp_path, BEFORE, AFTER.iloc[1:].drop(columns="n_images"))
    assert len(found.lost) == 2
    assert found.lost[0] == "column n_images"
    assert "against base, 3, base, ratio=0.25" in found.lost[1]
