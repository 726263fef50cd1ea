"""What a measured model logs to a real MLflow over SQLite: names, steps, values, and only once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_measured import FakeMeasured
from mlflow.entities import Run

from mixlens.analysis import collect_provenance
from mixlens.analysis.diagnosis import diagnose
from mixlens.analysis.measured import ModelTables, model_tables
from mixlens.analysis.measurement import load_measured
from mixlens.analysis.transfer_build import Sides
from mixlens.tracking.mirror import Mirror
from mixlens.tracking.model import model_points
from mixlens.tracking.server import Server, open_server

FAKE = FakeMeasured(parts=("probes", "deletion"), groups=("coarse", "count"))
Curve = list[tuple[int, float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = FAKE.write(tmp_path_factory.mktemp("runs"))
    collect_provenance("python jobs/measure.py some.yaml").write(folder)
    (folder / "report.html").write_text("<!doctype html>")
    return folder


@pytest.fixture(scope="module")
def tables(folder: Path) -> ModelTables:
    measured = load_measured(folder)
    found = model_tables(measured.model, measured.controls)
    found.layers.loc[found.layers["metric"] == "stable_rank", ["low", "high"]] = np.nan
    found.write(folder / "tables")
    return found


@pytest.fixture(scope="module")
def logged(folder: Path, tables: ModelTables) -> tuple[Server, Run]:
    spec = load_measured(folder).spec
    server = open_server(spec.tracking, Path(spec.runs_dir))
    for _ in range(2):  # as a second start does
        mirror = Mirror(server, spec, folder, is_live=False)
        mirror.send()
        assert not mirror.refused
    (found,) = server.client.search_runs([server.experiment_id])
    return server, found


def _curves(tables: ModelTables) -> dict[str, Curve]:
    curves: dict[str, Curve] = {}
    for name, value, step in model_points(tables):
        curves.setdefault(name, []).append((step, value))
    return curves


def test_names_and_steps_of_points(tables: ModelTables):
    curves = _curves(tables)
    values = {name for name in curves if not name.endswith(("/low", "/high"))}
    assert curves.keys() == {f"{name}{end}" for name in values for end in ("", "/low", "/high")}
    assert {name.partition("/")[0] for name in values} == {
        "accuracy", "layers", "controls", "probes", "deletion",
    }  # fmt: skip
    # One value a step, so that a chart has one line.
    assert all(len({step for step, _ in curve}) == len(curve) for curve in curves.values())
    assert {name for name in values if name.startswith("accuracy")} == {
        "accuracy/coarse", "accuracy/count",
    }  # fmt: skip
    rows = tables.layers.query("model == 'model' and stream == 'text' and metric == 'gini'")
    assert curves["layers/gini/text"] == list(zip(rows["layer"], rows["value"], strict=True))
    assert curves["layers/gini/text/low"] == list(zip(rows["layer"], rows["low"], strict=True))
    rows = tables.layers.query("model == 'blank images' and stream == 'visual' and metric=='gini'")
    high = list(zip(rows["layer"], rows["high"], strict=True))
    assert curves["controls/blank_images/gini/high"] == high
    assert curves["probes/object_count/visual_mlp"] == [
        (layer, pytest.approx(0.5 + 0.1 * layer)) for layer in range(FAKE.layers)
    ]
    assert curves["deletion/random/count"] == [
        (percent, pytest.approx(0.8 - 0.005 * percent)) for percent in (0, 50, 90)
    ]
    rows = tables.deletion.query("policy == 'norm' and group == 'all' and objects == 'all'")
    assert curves["deletion/norm/all/high"] == [
        (50, pytest.approx(rows.query("share == 0.5")["high"].item())),
        (90, pytest.approx(rows.query("share == 0.9")["high"].item())),
    ]


def test_only_deletion_behind_the_encoder_has_points(tables: ModelTables):
    moved = tables.deletion.assign(layer=2)
    deeper = ModelTables(**{**vars(tables), "deletion": moved})
    assert not [name for name in _curves(deeper) if name.startswith("deletion")]


def test_what_was_not_measured_has_no_points(tables: ModelTables):
    alone = ModelTables(
        **{
            **vars(tables),
            "probes": tables.probes.iloc[:0],
            "deletion": tables.deletion.iloc[:0],
            "layers": tables.layers[tables.layers["model"] == "model"],
        }
    )
    assert {name.partition("/")[0] for name in _curves(alone)} == {"accuracy", "layers"}


def test_what_becomes_of_trends_on_other_images_has_points(tables: ModelTables, tmp_path: Path):
    measured = load_measured(replace(FAKE, transfer=1.0, layers=2).write(tmp_path))
    found = model_tables(measured.model, {}, measured.transfer, Sides("here", "there"))
    row = found.transfer_summary.set_index("scope").loc["redundancy"]
    curves = _curves(found)
    assert curves["transfer/redundancy/holds"] == [(0, row["holds"])]
    assert curves["transfer/redundancy/chance_holds"] == [(0, row["chance_holds"])]
    assert {name.rpartition("/")[2] for name in curves if name.startswith("transfer/all")} == {
        "trends", "holds", "reverses", "only_here", "unclear", "chance_holds", "holds_p",
        "chance_reverses", "reverses_p",
    }  # fmt: skip
    assert row["holds"] == 2
    assert not [name for name in _curves(tables) if name.startswith("transfer")]


def test_logged_twice_is_there_once(logged: tuple[Server, Run], tables: ModelTables):
    server, run = logged
    for name in ("accuracy/coarse", "layers/gini/visual", "deletion/random/all/low",
                 "controls/random_model/redundancy_score"):  # fmt: skip
        history = server.client.get_metric_history(run.info.run_id, name)
        there = [(point.step, pytest.approx(point.value)) for point in history]
        assert there == _curves(tables)[name]


def test_unknown_values_are_left_out(logged: tuple[Server, Run], tables: ModelTables):
    _, run = logged
    points = list(model_points(tables))
    known = {name for name, value, _ in points if value == value}
    assert run.data.metrics.keys() - known == {
        "evaluation/answers_per_s", "evaluation/tokens_per_s",
    }  # fmt: skip
    assert run.data.metrics["evaluation/answers_per_s"] == 20
    assert run.data.metrics["evaluation/tokens_per_s"] == 60
    assert known <= run.data.metrics.keys()
    assert "layers/stable_rank/visual" in known
    assert "layers/stable_rank/visual/low" in {name for name, _, _ in points} - known


def test_the_run_says_what_it_is_of_and_keeps_its_files(
    logged: tuple[Server, Run], tables: ModelTables, folder: Path
):
    server, run = logged
    spec = load_measured(folder).spec
    assert run.info.status == "FINISHED"
    assert run.data.tags["mixlens.kind"] == "model"
    assert run.data.params["digest"] == spec.model_digest()
    assert run.data.params["held_out_images"] == str(FAKE.images)
    artifacts = {item.path for item in server.client.list_artifacts(run.info.run_id)}
    assert {"diagnosis.txt", "measure.json", "prompts.yaml", "report.html", "tables"} <= artifacts
    told = server.client.download_artifacts(run.info.run_id, "diagnosis.txt")
    assert Path(told).read_text().splitlines() == diagnose(tables)
