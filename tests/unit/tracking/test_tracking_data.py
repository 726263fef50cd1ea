"""What MLflow is told about the photographs of a job, held against what was left out of them."""

import math
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from coco_set import CocoSet
from fake_sweep import FakeSweep
from mlflow.entities import Run

from mixlens.analysis import load_run
from mixlens.sources.coco.build import build_index
from mixlens.spec import CocoSpec, MeasureSpec, SweepSpec
from mixlens.tracking import Tracker, log_run, open_tracker

SMALL = FakeSweep(ratios=(0.0, 1.0), seeds=(0,), images=16, layers=2, steps=5)


@pytest.fixture(scope="module")
def sweep(coco_set: CocoSet, tmp_path_factory: pytest.TempPathFactory) -> SweepSpec:
    folder = tmp_path_factory.mktemp("runs")
    street = build_index("street", CocoSpec(**coco_set.data), folder / "indexes", lambda *_: None)
    return SMALL.spec(folder).model_copy(update={"data": {"street": street}})


@pytest.fixture(scope="module")
def tracker(sweep: SweepSpec) -> Tracker:
    return open_tracker(sweep, Path(sweep.runs_dir))


def found(tracker: Tracker, run_id: str) -> Run:
    return tracker.client.get_run(run_id)


def test_a_data_set_is_counted_by_reason(sweep: SweepSpec, tracker: Tracker, coco_set: CocoSet):
    parent = tracker.sweep(sweep, Path(sweep.runs_dir) / "sweep")
    data = found(tracker, parent.run_id).data
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


def test_the_table_is_an_artifact(sweep: SweepSpec, tracker: Tracker, coco_set: CocoSet):
    parent = tracker.sweep(sweep, Path(sweep.runs_dir) / "sweep")
    path = tracker.client.download_artifacts(parent.run_id, "data/street/left_out.parquet")
    table = pq.read_table(path)
    assert table.num_rows == len(coco_set.expected)
    assert Counter(table["reason"].to_pylist()) == Counter(row[3] for row in coco_set.expected)


def test_a_second_start_logs_nothing_again(
    sweep: SweepSpec, tracker: Tracker, monkeypatch: pytest.MonkeyPatch
):
    first = tracker.sweep(sweep, Path(sweep.runs_dir) / "sweep")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("logged twice")

    for call in ("log_batch", "log_artifact", "log_text"):
        monkeypatch.setattr(tracker.client, call, never)
    assert tracker.sweep(sweep, Path(sweep.runs_dir) / "sweep").run_id == first.run_id


def test_a_measured_model_has_the_same(sweep: SweepSpec, tracker: Tracker):
    spec = MeasureSpec(
        name="measured",
        data=sweep.data,
        components=sweep.components,
        evaluation=sweep.evaluation,
        runs_dir=sweep.runs_dir,
    )
    run = tracker.model(spec, Path(sweep.runs_dir) / "measured")
    data = found(tracker, run.run_id).data
    assert data.params["data.street.fingerprint"] == sweep.data["street"].fingerprint
    assert data.metrics["data/street/left_out"] > 0
    names = [item.path for item in tracker.client.list_artifacts(run.run_id, "data/street")]
    assert names == ["data/street/left_out.parquet"]


def test_a_trial_keeps_what_it_replaced(sweep: SweepSpec, tracker: Tracker):
    folder = SMALL.write(Path(sweep.runs_dir))
    parent = tracker.sweep(sweep, folder)
    trials = sorted((folder / "trials").iterdir())
    (trials[0] / "replaced.parquet").write_bytes(b"rows")
    kept = []
    for run in SMALL.spec(Path(sweep.runs_dir)).runs():
        place = next(trial for trial in trials if trial.name.startswith(run.name))
        tracked = tracker.trial(run, place, parent)
        log_run(tracked, load_run(place, run))
        names = {item.path for item in tracker.client.list_artifacts(tracked.run_id)}
        kept.append((place == trials[0], "replaced.parquet" in names))
    assert sorted(kept) == [(False, False), (True, True)]
