"""What MLflow is told about the photographs of a job, held against what was left out of them."""

import math
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from coco_set import CocoSet
from fake_sweep import FakeSweep
from mlflow.entities import Run

from mixlens.design import Layout, SweepSpec, asked_trials
from mixlens.sources.coco.build import build_index
from mixlens.spec import CocoSpec, MeasureSpec
from mixlens.tracking.mirror import Mirror
from mixlens.tracking.server import Server, open_server

SMALL = FakeSweep(ratios=(0.0, 1.0), seeds=(0,), images=16, layers=2, steps=5)


@pytest.fixture(scope="module")
def sweep(coco_set: CocoSet, tmp_path_factory: pytest.TempPathFactory) -> SweepSpec:
    """A finished sweep one of whose trials has replaced photographs."""
    folder = tmp_path_factory.mktemp("runs")
    street = build_index("street", CocoSpec(**coco_set.data), folder / "indexes", lambda *_: None)
    root = SMALL.write(folder)
    spec = SMALL.spec(folder).model_copy(update={"data": {"street": street}})
    (root / "sweep.json").write_text(spec.model_dump_json())
    (Layout(root).trial(asked_trials(spec)[0]) / "replaced.parquet").write_bytes(b"rows")
    return spec


@pytest.fixture(scope="module")
def server(sweep: SweepSpec) -> Server:
    runs_dir = Path(sweep.runs_dir)
    server = open_server(sweep.tracking, runs_dir)
    mirror = Mirror(server, sweep, runs_dir / "fake", is_live=False)
    mirror.send()
    assert not mirror.refused
    return server


def found(server: Server, name: str) -> Run:
    (run,) = server.client.search_runs([server.experiment_id], f"attributes.run_name = '{name}'")
    return run


def test_a_data_set_is_counted_by_reason(sweep: SweepSpec, server: Server, coco_set: CocoSet):
    data = found(server, "fake").data
    assert data.params["data.street.root"] == str(coco_set.root)
    assert data.params["data.street.fingerprint"] == sweep.data["street"].fingerprint
    expected: Counter[str] = Counter()
    for _, what, outcome, reason, *_ in coco_set.expected:
        expected[f"data/street/{outcome}"] += 1
        expected[f"data/street/{outcome}_{what}/{reason}"] += 1
    for split in ("train", "held_out"):
        expected[f"data/street/images/{split}"] = sum(s == split for s, _ in coco_set.truth)
    assert len(expected) > 20
    logged = {k: v for k, v in data.metrics.items() if k.startswith("data/")}
    assert logged == {k: pytest.approx(v) for k, v in expected.items()}
    assert not any(math.isnan(value) for value in logged.values())


def test_the_table_is_an_artifact(server: Server, coco_set: CocoSet):
    run = found(server, "fake")
    path = server.client.download_artifacts(run.info.run_id, "data/street/left_out.parquet")
    table = pq.read_table(path)
    assert table.num_rows == len(coco_set.expected)
    assert Counter(table["reason"].to_pylist()) == Counter(row[3] for row in coco_set.expected)


def test_a_second_start_logs_nothing_again(
    sweep: SweepSpec, server: Server, monkeypatch: pytest.MonkeyPatch
):
    def never(*_: object, **__: object) -> None:
        raise AssertionError("logged twice")

    for call in ("log_batch", "log_artifact", "log_text", "set_tag", "log_inputs"):
        monkeypatch.setattr(server.client, call, never)
    Mirror(server, sweep, Path(sweep.runs_dir) / "fake", is_live=False).send()


def test_a_measured_model_has_the_same(sweep: SweepSpec, server: Server):
    spec = MeasureSpec(
        name="measured",
        data=sweep.data,
        components=sweep.components,
        evaluation=sweep.evaluation,
        runs_dir=sweep.runs_dir,
    )
    spec.folder.mkdir(parents=True)
    (spec.folder / "measure.json").write_text(spec.model_dump_json())
    Mirror(server, spec, spec.folder, is_live=True).send()
    run = found(server, "measured builtin:tiny-vllm")
    assert run.info.status == "RUNNING"
    assert run.data.params["data.street.fingerprint"] == sweep.data["street"].fingerprint
    assert run.data.metrics["data/street/left_out"] > 0
    names = [item.path for item in server.client.list_artifacts(run.info.run_id, "data/street")]
    assert names == ["data/street/left_out.parquet"]


def test_a_trial_keeps_what_it_replaced(sweep: SweepSpec, server: Server):
    kept = []
    for trial in asked_trials(sweep):
        artifacts = server.client.list_artifacts(found(server, trial.name).info.run_id)
        kept.append("replaced.parquet" in {item.path for item in artifacts})
    assert kept == [True, False]
