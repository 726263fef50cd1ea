"""What a sweep of arms logs: names of params and metrics, and their values."""

from pathlib import Path

import pytest
from fake_sweep import FakeSweep

from mixlens.analysis import build_tables, load_sweep
from mixlens.tracking import open_tracker
from mixlens.tracking.results import sweep_points

SMALL = FakeSweep(
    arms=(("relational", 0.0), ("coarse", 0.5), ("scene_graph", 1.0)), images=16, layers=4, steps=20
)


def test_points_of_arms_have_their_place_as_step_and_a_trend(tmp_path: Path) -> None:
    tables = build_tables(load_sweep(SMALL.write(tmp_path)))
    points = list(sweep_points(tables))
    names = {name for name, _, _ in points}
    assert not [name for name in names if name.startswith(("by_ratio", "sufficient_ratio"))]
    curve = {step: value for name, value, step in points if name == "by_arm/redundancy/visual_mean"}
    rows = tables.sweep[
        (tables.sweep["subject"] == "visual")
        & (tables.sweep["metric"] == "redundancy_score")
        & (tables.sweep["part"] == "mean")
    ].set_index("run")["value"]
    assert curve == pytest.approx(
        {1: rows["relational"], 2: rows["coarse"], 3: rows["scene_graph"]}
    )
    flat = {name: value for name, value, _ in points}
    difference = rows["scene_graph"] - rows["relational"]
    assert flat["effect/redundancy/visual_mean/value"] == pytest.approx(difference)
    assert flat["trend/redundancy/visual_mean/value"] == pytest.approx(difference / 2)


def test_params_of_arms(tmp_path: Path) -> None:
    spec = SMALL.spec(tmp_path)
    tracker = open_tracker(spec, tmp_path)
    parent = tracker.sweep(spec, tmp_path / "sweep")
    trial = tracker.trial(spec.runs()[2], tmp_path / "trial", parent)
    params = [tracker.client.get_run(run.run_id).data.params for run in (parent, trial)]
    assert params[0]["arms"] == "relational coarse scene_graph"
    assert (params[1]["arm"], params[1]["weight.coarse_data"]) == ("coarse", "1.0")
    assert not {"ratio", "ratios"} & {*params[0], *params[1]}
