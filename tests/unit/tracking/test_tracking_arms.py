"""What a sweep of arms logs: names of params and metrics, and their values."""

from pathlib import Path

import pytest
from fake_sweep import FakeSweep

from mixlens.analysis import build_tables, load_sweep
from mixlens.design import asked_trials
from mixlens.tracking.mirror import Mirror
from mixlens.tracking.results import sweep_points
from mixlens.tracking.server import open_server

SMALL = FakeSweep(
    arms=(("relational", 0.0), ("coarse", 0.5), ("scene_graph", 1.0)), images=16, layers=4, steps=20
)


def test_points_of_arms_have_their_place_as_step_and_a_trend(tmp_path: Path) -> None:
    tables = build_tables(load_sweep(SMALL.write(tmp_path)))
    points = list(sweep_points(tables))
    names = {name for name, _, _ in points}
    assert not [name for name in names if name.startswith("sufficient")]
    curve = {
        step: value for name, value, step in points if name == "by_level/redundancy/visual_mean"
    }
    rows = tables.sweep[
        (tables.sweep["subject"] == "visual")
        & (tables.sweep["metric"] == "redundancy_score")
        & (tables.sweep["part"] == "mean")
    ].set_index("level")["value"]
    assert curve == pytest.approx(
        {1: rows["relational"], 2: rows["coarse"], 3: rows["scene_graph"]}
    )
    flat = {name: value for name, value, _ in points}
    difference = rows["scene_graph"] - rows["relational"]
    assert flat["effect/redundancy/visual_mean/value"] == pytest.approx(difference)
    assert flat["trend/redundancy/visual_mean/value"] == pytest.approx(difference / 2)


def test_params_of_arms(tmp_path: Path) -> None:
    folder = SMALL.write(tmp_path)
    spec = SMALL.spec(tmp_path)
    server = open_server(spec.tracking, tmp_path)
    Mirror(server, spec, folder, is_live=False).send()
    runs = server.client.search_runs([server.experiment_id])
    params = {run.info.run_name: run.data.params for run in runs}
    assert params["fake"]["levels"] == "relational coarse scene_graph"
    trial = params[asked_trials(spec)[2].name]
    assert (trial["level"], trial["weight.coarse_data"]) == ("coarse", "1.0")
    assert not {"ratio", "ratios"} & {*params["fake"], *trial}
