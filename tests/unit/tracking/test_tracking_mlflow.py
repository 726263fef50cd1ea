"""Runs in a real MLflow over SQLite: the tree, what a second pass does, and what is unreachable."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_sweep import FakeSweep
from mlflow.entities import Run

from mixlens.analysis import (
    SweepResults,
    answer_sentences,
    build_tables,
    collect_provenance,
    load_sweep,
)
from mixlens.analysis.transfer_chance import SUMMARY
from mixlens.errors import ResourceError
from mixlens.evaluation.throughput import Effort, write_throughput
from mixlens.spec import TrackingSpec
from mixlens.tracking import TrackedRun, Tracker, headline, log_run, log_sweep, open_tracker

SMALL = FakeSweep(ratios=(0.0, 1.0), seeds=(0, 1), images=16, layers=4, steps=20)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a migrated, empty database: making one takes seconds."""
    folder = tmp_path_factory.mktemp("runs")
    open_tracker(SMALL.spec(folder), folder)
    return folder


@pytest.fixture(scope="module")
def logged(runs_dir: Path) -> tuple[SweepResults, Tracker]:
    folder = SMALL.write(runs_dir)
    made_with = collect_provenance("python jobs/sweep.py some.yaml")
    made_with.write(folder)
    sweep = load_sweep(folder)
    for trial in sweep.trials:
        made_with.write(trial.folder)
    tracker = open_tracker(sweep.spec, runs_dir)
    _log_all(sweep, tracker)
    return sweep, tracker


def _log_all(sweep: SweepResults, tracker: Tracker) -> None:
    parent = tracker.sweep(sweep.spec, sweep.folder)
    base = tracker.base(sweep.spec, sweep.base.folder, parent)
    log_run(base, sweep.base)
    base.finish()
    for trial in sweep.trials:
        assert trial.spec is not None
        run = tracker.trial(trial.spec, trial.folder, parent)
        log_run(run, trial)
        run.finish()
    tables = build_tables(sweep)
    tables.write(sweep.folder / "tables")
    log_sweep(parent, tables, answer_sentences(tables), sweep.folder)
    parent.finish()


class _Recorder:
    """A run that only remembers what it is told."""

    def __init__(self) -> None:
        self.metrics: dict[str, list[tuple[str, float, int]]] = {}
        self.files: list[str] = []

    def log_metrics(self, kind: str, points: list[tuple[str, float, int]]) -> None:
        self.metrics[kind] = points

    def log_training(self, *_: object) -> None: ...

    def log_file(self, file: Path, folder: str = "") -> None:
        self.files.append(file.name)

    def log_text(self, *_: object) -> None: ...

    def log_json(self, *_: object) -> None: ...

    def tag(self, *_: object) -> None: ...


def _runs(tracker: Tracker, kind: str) -> list[Run]:
    query = f"tags.`mixlens.kind` = '{kind}' and tags.`mixlens.sweep` = 'fake'"
    return list(tracker.client.search_runs([tracker.experiment_id], query))


def _history(tracker: Tracker, run: Run) -> dict[str, list[tuple[int, float]]]:
    return {
        key: [
            (point.step, point.value)
            for point in tracker.client.get_metric_history(run.info.run_id, key)
        ]
        for key in run.data.metrics
    }


def test_the_runs_form_a_tree(logged: tuple[SweepResults, Tracker]) -> None:
    _, tracker = logged
    (parent,) = _runs(tracker, "sweep")
    children = _runs(tracker, "trial") + _runs(tracker, "base")
    assert len(children) == 5
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    found = {(run.data.params["ratio"], run.data.params["seed"]) for run in _runs(tracker, "trial")}
    assert found == {("0.0", "0"), ("0.0", "1"), ("1.0", "0"), ("1.0", "1")}


def test_values_of_a_trial(logged: tuple[SweepResults, Tracker]) -> None:
    sweep, tracker = logged
    trial = sweep.trials[-1]
    (run,) = [run for run in _runs(tracker, "trial") if run.info.run_name == trial.name]
    history = _history(tracker, run)
    examples = trial.examples
    expected = examples[examples["group"] == "relational"]["exact"].mean()
    assert history["accuracy/relational"] == [(0, pytest.approx(expected))]
    profile = history["layers/redundancy_score/visual"]
    assert [step for step, _ in profile] == [0, 1, 2, 3]
    scores = trial.image_metrics
    scores = scores[(scores["stream"] == "visual") & (scores["metric"] == "redundancy_score")]
    means = scores.groupby("layer")["value"].mean()
    assert [value for _, value in profile] == pytest.approx(means.tolist())
    assert history["redundancy/visual_mean"][0][1] == pytest.approx(means.mean())
    assert history["redundancy/visual_late"][0][1] == pytest.approx(means.iloc[3])
    assert [step for step, _ in history["training/loss"]] == [5, 10, 15, 20]
    assert history["mixture/complex"][-1] == (20, 320)
    assert headline(trial)["redundancy"] == pytest.approx(means.mean())


def test_how_fast_a_model_answered_is_told_where_it_is_known(tmp_path: Path) -> None:
    sweep = load_sweep(SMALL.write(tmp_path))
    base, first = _Recorder(), _Recorder()
    write_throughput(sweep.base.folder / "measure", "vllm", Effort(100, 800, 4.0))
    for recorder, run in ((base, sweep.base), (first, sweep.trials[0])):
        log_run(recorder, run)
    assert base.metrics["evaluation"] == [
        ("evaluation/answers_per_s", 25.0, 0), ("evaluation/tokens_per_s", 200.0, 0),
    ]  # fmt: skip
    assert first.metrics["evaluation"] == []  # of an earlier version, which did not say


def test_artifacts_lie_under_the_runs_directory(
    logged: tuple[SweepResults, Tracker], runs_dir: Path
) -> None:
    _, tracker = logged
    (parent,) = _runs(tracker, "sweep")
    client, run_id = tracker.client, parent.info.run_id
    names = {item.path for item in client.list_artifacts(run_id)}
    assert {"sweep.json", "prompts.yaml", "answer.txt", "provenance.json"} <= names
    assert "uncommitted.patch" in names
    assert "tables/effects.parquet" in {
        item.path for item in client.list_artifacts(run_id, "tables")
    }
    assert next((runs_dir / "mlflow-artifacts").rglob("answer.txt")).read_text()
    trial = next(run for run in _runs(tracker, "trial") if run.data.params["ratio"] == "1.0")
    made_with = collect_provenance("python jobs/sweep.py some.yaml")
    for run in (parent, trial):
        found = Path(client.download_artifacts(run.info.run_id, "provenance.json")).read_text()
        assert json.loads(found)["command"] == made_with.command
        assert run.data.tags["mlflow.source.git.commit"] in (made_with.commit, made_with.source)
        assert run.data.tags["mixlens.code"] == made_with.code
    mixture = client.download_artifacts(trial.info.run_id, "realised_mixture.json")
    assert json.loads(Path(mixture).read_text()) == {"complex": 320, "simple": 0}


def test_a_second_pass_adds_nothing(logged: tuple[SweepResults, Tracker], runs_dir: Path) -> None:
    sweep, tracker = logged

    def state() -> dict[str, dict[str, list[tuple[int, float]]]]:
        runs = [run for kind in ("sweep", "base", "trial") for run in _runs(tracker, kind)]
        return {run.info.run_id: _history(tracker, run) for run in runs}

    before = state()
    _log_all(sweep, open_tracker(sweep.spec, runs_dir))
    assert state() == before


def test_training_is_logged_as_it_comes(runs_dir: Path, tmp_path: Path) -> None:
    spec = SMALL.spec(runs_dir)
    tracker = open_tracker(spec, runs_dir)
    parent = tracker.sweep(spec, tmp_path)
    records = [{"step": step, "loss": 1.0 / step, "note": "text"} for step in range(1, 1301)]
    assert parent.log_training(records[:10]) == 10
    again = tracker.sweep(spec, tmp_path)  # as after a restart
    assert again.run_id == parent.run_id
    assert again.log_training(records) == 1290  # more than one batch of MLflow's 1000
    assert again.log_training(records) == 0
    history = tracker.client.get_metric_history(parent.run_id, "training/loss")
    assert [point.step for point in history] == list(range(1, 1301))


def test_a_run_is_found_by_its_key(runs_dir: Path, tmp_path: Path) -> None:
    """A process that died after making the run had written its key before."""
    spec = SMALL.spec(runs_dir)
    tracker = open_tracker(spec, runs_dir)
    first = tracker.sweep(spec, tmp_path)
    file = tmp_path / "tracking.json"
    (entry,) = json.loads(file.read_text()).values()
    file.write_text(json.dumps({tracker.uri: {"key": entry["key"]}}))
    assert tracker.sweep(spec, tmp_path).run_id == first.run_id


def test_a_deleted_run_is_made_anew_with_everything(runs_dir: Path, tmp_path: Path) -> None:
    spec = SMALL.spec(runs_dir)
    tracker = open_tracker(spec, runs_dir)
    first = tracker.sweep(spec, tmp_path)
    first.log_metrics("some", [("accuracy/coarse", 0.5, 0)])
    tracker.client.delete_run(first.run_id)
    second = tracker.sweep(spec, tmp_path)
    assert second.run_id != first.run_id
    second.log_metrics("some", [("accuracy/coarse", 0.5, 0), ("accuracy/count", float("nan"), 0)])
    assert tracker.client.get_run(second.run_id).data.metrics == {"accuracy/coarse": 0.5}


@pytest.mark.parametrize(
    ("ended_by", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_what_ends_a_sweep_closes_its_open_runs(
    runs_dir: Path, tmp_path: Path, ended_by: type[BaseException], status: str
) -> None:
    spec = SMALL.spec(runs_dir)
    tracker = open_tracker(spec, runs_dir)

    def interrupted() -> None:
        with tracker.closing():
            parent = tracker.sweep(spec, tmp_path)
            first, second = (tracker.trial(r, tmp_path / r.name, parent) for r in spec.runs()[:2])
            first.finish()
            found[:] = [parent, first, second]
            raise ended_by("stopped")

    found: list[TrackedRun] = []
    with pytest.raises(ended_by, match="stopped"):
        interrupted()
    closed = [tracker.client.get_run(run.run_id).info.status for run in found]
    assert closed == [status, "FINISHED", status]

    # The next start opens the same runs again.
    again = open_tracker(spec, runs_dir).sweep(spec, tmp_path)
    assert again.run_id == found[0].run_id
    assert tracker.client.get_run(again.run_id).info.status == "RUNNING"


def test_a_server_that_is_gone_hides_no_error(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SMALL.spec(runs_dir)
    tracker = open_tracker(spec, runs_dir)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    def interrupted() -> None:
        with tracker.closing():
            tracker.sweep(spec, tmp_path)
            monkeypatch.setattr(tracker.client, "set_terminated", fail)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_a_failed_log_is_not_remembered(
    runs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SMALL.spec(runs_dir)
    tracker = open_tracker(spec, runs_dir)
    run = tracker.sweep(spec, tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(tracker.client, "log_batch", fail)
        with pytest.raises(ResourceError, match="gone"):
            run.log_metrics("some", [("accuracy/coarse", 0.5, 0)])
    run.log_metrics("some", [("accuracy/coarse", 0.5, 0)])
    assert tracker.client.get_run(run.run_id).data.metrics == {"accuracy/coarse": 0.5}


def _with_uri(folder: Path, uri: str):
    return SMALL.spec(folder).model_copy(update={"tracking": TrackingSpec(uri=uri)})


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "http://name.invalid:5000", "gopher://x", "postgresql://h/db"]
)
def test_an_unreachable_server_is_one_message(tmp_path: Path, uri: str) -> None:
    start = time.monotonic()
    problem = r"tracking\.uri: got .*MLflow cannot be used there: .*Start the server"
    with pytest.raises(ResourceError, match=problem) as caught:
        open_tracker(_with_uri(tmp_path, uri), tmp_path)
    assert "Pool(" not in str(caught.value)
    assert time.monotonic() - start < 15
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "mlflow-artifacts"])


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as caught:
        open_tracker(_with_uri(tmp_path, "http://ann:secret@127.0.0.1:9"), tmp_path)
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:9" in str(caught.value)


def test_a_deleted_experiment_is_said(runs_dir: Path) -> None:
    spec = SMALL.spec(runs_dir)
    spec = spec.model_copy(update={"tracking": TrackingSpec(experiment="gone")})
    tracker = open_tracker(spec, runs_dir)
    tracker.client.delete_experiment(tracker.experiment_id)
    with pytest.raises(ResourceError, match="this MLflow experiment was deleted"):
        open_tracker(spec, runs_dir)


def test_two_sweeps_share_no_run(runs_dir: Path, tmp_path: Path) -> None:
    spec = replace(SMALL, seeds=(0,)).spec(runs_dir)
    tracker = open_tracker(spec, runs_dir)
    one = tracker.sweep(spec, tmp_path / "one")
    other = tracker.sweep(spec, tmp_path / "other")
    assert one.run_id != other.run_id


def test_trends_of_the_base_on_other_images_go_with_the_sweep(
    logged: tuple[SweepResults, Tracker], tmp_path: Path
) -> None:
    tables = build_tables(logged[0])
    row = dict.fromkeys(SUMMARY, 0.25) | {"scope": "redundancy", "trends": 12, "holds": 7}
    plain = _Recorder()
    log_sweep(plain, tables, [], tmp_path)
    assert "transfer" not in plain.metrics
    (tmp_path / "tables").mkdir()
    pd.DataFrame([row]).to_parquet(tmp_path / "tables" / "transfer_summary.parquet")
    run = _Recorder()
    log_sweep(run, tables, [], tmp_path)
    points = {name: (value, step) for name, value, step in run.metrics["transfer"]}
    assert points["transfer/redundancy/trends"] == (12, 0)
    assert points["transfer/redundancy/holds"] == (7, 0)
    assert run.files == ["transfer_summary.parquet"]
