"""Runs in a real MLflow over SQLite: the tree, its values, what a second pass does."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_parts import table_file
from fake_sweep import FakeSweep
from mlflow.entities import Run

from mixlens.analysis import build_tables, collect_provenance, load_sweep
from mixlens.analysis.headline import headline
from mixlens.analysis.results import SweepResults
from mixlens.analysis.transfer_chance import SUMMARY
from mixlens.design import Layout, SweepSpec, asked_trials
from mixlens.measurement import trial_of
from mixlens.tracking.mirror import Mirror
from mixlens.tracking.results import log_run, log_sweep
from mixlens.tracking.server import Server, open_server

SMALL = FakeSweep(ratios=(0.0, 1.0), seeds=(0, 1), images=16, layers=4, steps=20)


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def logged(runs_dir: Path) -> tuple[SweepResults, Server]:
    folder = SMALL.write(runs_dir)
    made_with = collect_provenance("python jobs/sweep.py some.yaml")
    made_with.write(folder)
    sweep = load_sweep(folder)
    for trial in sweep.trials:
        made_with.write(trial.folder)
    build_tables(sweep).write(folder / "tables")
    (folder / "report.html").write_text("<!doctype html>")
    server = open_server(sweep.spec.tracking, runs_dir)
    mirror = Mirror(server, sweep.spec, folder, is_live=False)
    mirror.send()
    assert not mirror.refused
    return sweep, server


class _Recorder:
    """A sink that only remembers what it is told."""

    def __init__(self) -> None:
        self.metrics: dict[str, list[tuple[str, float, int]]] = {}
        self.files: list[str] = []

    def log_metrics(self, kind: str, points: list[tuple[str, float, int]]) -> None:
        self.metrics[kind] = points

    def log_file(self, file: Path, folder: str = "") -> None:
        self.files.append(file.name)

    def log_text(self, *_: object) -> None: ...

    def log_json(self, *_: object) -> None: ...

    def tag(self, *_: object) -> None: ...


def _runs(server: Server, kind: str) -> list[Run]:
    query = f"tags.`mixlens.kind` = '{kind}' and tags.`mixlens.sweep` = 'fake'"
    return list(server.client.search_runs([server.experiment_id], query))


def _history(server: Server, run: Run) -> dict[str, list[tuple[int, float]]]:
    return {
        key: [
            (point.step, point.value)
            for point in server.client.get_metric_history(run.info.run_id, key)
        ]
        for key in run.data.metrics
    }


def test_the_runs_form_a_tree(logged: tuple[SweepResults, Server]) -> None:
    _, server = logged
    (parent,) = _runs(server, "sweep")
    children = _runs(server, "trial") + _runs(server, "base")
    assert len(children) == 5
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    found = {(run.data.params["ratio"], run.data.params["seed"]) for run in _runs(server, "trial")}
    assert found == {("0.0", "0"), ("0.0", "1"), ("1.0", "0"), ("1.0", "1")}


def test_values_of_a_trial(logged: tuple[SweepResults, Server]) -> None:
    sweep, server = logged
    trial = sweep.trials[-1]
    (run,) = [run for run in _runs(server, "trial") if run.info.run_name == trial.name]
    history = _history(server, run)
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
    assert headline(trial.measured)["redundancy"] == pytest.approx(means.mean())


def test_intervals_stand_beside_the_values_of_a_trial(logged: tuple[SweepResults, Server]) -> None:
    sweep, server = logged
    trial = sweep.trials[-1]
    (run,) = [run for run in _runs(server, "trial") if run.info.run_name == trial.name]
    metrics, history = run.data.metrics, _history(server, run)
    table = pd.read_parquet(sweep.folder / "tables" / "accuracy.parquet")
    row = table.query("run == @trial.name and group == 'count' and metric == 'exact'").iloc[0]
    assert metrics["accuracy/count"] == pytest.approx(row["value"])
    assert (metrics["accuracy/count/low"], metrics["accuracy/count/high"]) == (
        pytest.approx(row["low"]), pytest.approx(row["high"]),
    )  # fmt: skip
    for step in range(4):
        low, value, high = (
            history[f"layers/gini/visual{end}"][step][1] for end in ("/low", "", "/high")
        )
        assert low < value < high
    # The pooled score of the tables is another number than the mean over images logged here.
    assert not [key for key in metrics if "redundancy_score" in key and key.endswith("/low")]


def test_how_fast_a_model_answered_is_told_where_it_is_known(tmp_path: Path) -> None:
    sweep = load_sweep(SMALL.write(tmp_path))
    base, first = _Recorder(), _Recorder()
    speed = {"answers_per_s": 25.0, "tokens_per_s": 200.0}
    of_base = replace(sweep.base.measured, throughput=speed)
    unasked = replace(sweep.trials[0].measured, throughput={})
    runs = replace(sweep.base, measured=of_base), replace(sweep.trials[0], measured=unasked)
    for recorder, run in zip((base, first), runs, strict=True):
        log_run(recorder, run)
    assert base.metrics["evaluation"] == [
        ("evaluation/answers_per_s", 25.0, 0), ("evaluation/tokens_per_s", 200.0, 0),
    ]  # fmt: skip
    assert first.metrics["evaluation"] == []


def test_artifacts_lie_under_the_runs_directory(
    logged: tuple[SweepResults, Server], runs_dir: Path
) -> None:
    _, server = logged
    (parent,) = _runs(server, "sweep")
    client, run_id = server.client, parent.info.run_id
    names = {item.path for item in client.list_artifacts(run_id)}
    assert {"sweep.json", "prompts.yaml", "answer.txt", "provenance.json"} <= names
    assert {"uncommitted.patch", "report.html"} <= names
    assert "tables/effects.parquet" in {
        item.path for item in client.list_artifacts(run_id, "tables")
    }
    assert next((runs_dir / "mlflow-artifacts").rglob("answer.txt")).read_text()
    trial = next(run for run in _runs(server, "trial") if run.data.params["ratio"] == "1.0")
    made_with = collect_provenance("python jobs/sweep.py some.yaml")
    for run in (parent, trial):
        found = Path(client.download_artifacts(run.info.run_id, "provenance.json")).read_text()
        assert json.loads(found)["command"] == made_with.command
        assert run.data.tags["mlflow.source.git.commit"] in (made_with.commit, made_with.source)
        assert run.data.tags["mixlens.code"] == made_with.code
    mixture = client.download_artifacts(trial.info.run_id, "realised_mixture.json")
    assert json.loads(Path(mixture).read_text()) == {"complex": 320, "simple": 0}
    journal = client.download_artifacts(trial.info.run_id, "training.jsonl")
    assert len(Path(journal).read_text().splitlines()) == 4


def test_a_second_pass_adds_nothing(logged: tuple[SweepResults, Server], runs_dir: Path) -> None:
    sweep, server = logged

    def state() -> dict[str, dict[str, list[tuple[int, float]]]]:
        runs = [run for kind in ("sweep", "base", "trial") for run in _runs(server, kind)]
        return {run.info.run_id: _history(server, run) for run in runs}

    before = state()
    again = Mirror(server, sweep.spec, sweep.folder, is_live=False)
    assert not again.missing()
    again.send()
    assert state() == before


def _fresh(runs_dir: Path, tmp_path: Path) -> tuple[Server, SweepSpec, Path]:
    """The server, and a finished sweep in a folder of its own."""
    spec = SMALL.spec(runs_dir)
    return open_server(spec.tracking, runs_dir), spec, SMALL.write(tmp_path)


def _run_of(server: Server, folder: Path) -> Run:
    tag = f"tags.`mixlens.folder` = '{folder}'"
    (found,) = server.client.search_runs([server.experiment_id], tag)
    return found


def test_a_run_is_found_by_its_key(runs_dir: Path, tmp_path: Path) -> None:
    """A process that died after making the run had written its key before."""
    server, spec, folder = _fresh(runs_dir, tmp_path)
    Mirror(server, spec, folder, is_live=False).send()
    first = _run_of(server, folder)
    file = folder / "tracking.json"
    (entry,) = json.loads(file.read_text()).values()
    # As an earlier version wrote it, under the path of the database.
    file.write_text(json.dumps({server.uri: {"key": entry["key"]}}))
    before = _history(server, first)
    Mirror(server, spec, folder, is_live=False).send()
    second = _run_of(server, folder)
    assert (second.info.run_id, _history(server, second)) == (first.info.run_id, before)


def test_a_deleted_run_is_made_anew_with_everything(runs_dir: Path, tmp_path: Path) -> None:
    server, spec, folder = _fresh(runs_dir, tmp_path)
    Mirror(server, spec, folder, is_live=False).send()
    trial = Layout(folder).trial(asked_trials(spec)[0])
    first = _run_of(server, trial)
    server.client.delete_run(first.info.run_id)
    Mirror(server, spec, folder, is_live=False).send()
    second = _run_of(server, trial)
    assert second.info.run_id != first.info.run_id
    assert second.data.metrics == first.data.metrics
    assert second.data.params == first.data.params


def test_two_sweeps_share_no_run(runs_dir: Path, tmp_path: Path) -> None:
    spec = replace(SMALL, seeds=(0,)).spec(runs_dir)
    server = open_server(spec.tracking, runs_dir)
    found = []
    for name in ("one", "other"):
        folder = replace(SMALL, seeds=(0,)).write(tmp_path / name)
        Mirror(server, spec, folder, is_live=False).send()
        found.append(_run_of(server, folder).info.run_id)
    assert found[0] != found[1]


def test_what_has_changed_in_a_set_is_added_and_the_rest_stays(
    runs_dir: Path, tmp_path: Path
) -> None:
    server, spec, folder = _fresh(runs_dir, tmp_path)
    Mirror(server, spec, folder, is_live=False).send()
    trial = Layout(folder).trial(asked_trials(spec)[0])
    before = _history(server, _run_of(server, trial))
    measurement = trial_of(spec, folder, asked_trials(spec)[0])
    table = table_file(measurement, "image_metrics")
    changed = pd.read_parquet(table)
    changed.loc[(changed["metric"] == "gini") & (changed["layer"] == 2), "value"] += 1
    changed.to_parquet(table, index=False)
    measurement.record(measurement.tokens).write_text('{"again": true}\n')
    Mirror(server, spec, folder, is_live=False).send()
    run = _run_of(server, trial)
    after = _history(server, run)
    different = {key for key in after if after[key] != before[key]}
    assert different == {
        f"{kind}/gini/{stream}" for kind in ("layers", "tokens") for stream in ("visual", "text")
    }
    old, new = before["layers/gini/visual"], after["layers/gini/visual"]
    (added,) = set(new) - set(old)
    assert len(new) == len(old) + 1
    assert added == (2, pytest.approx(old[2][1] + 1))
    assert run.data.metrics["tokens/gini/visual"] == pytest.approx(
        before["tokens/gini/visual"][0][1] + 0.25
    )


def test_trends_of_the_base_on_other_images_go_with_the_sweep(
    logged: tuple[SweepResults, Server], tmp_path: Path
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


def test_the_pages_say_what_a_run_is(logged: tuple[SweepResults, Server]) -> None:
    sweep, server = logged
    experiment = server.client.get_experiment(server.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert "viewStateShareKey=mixlens" in experiment.tags["mlflow.note.content"]
    for kind in ("sweep", "base", "trial"):
        for run in _runs(server, kind):
            assert run.data.tags["mlflow.note.content"]
            used = {
                (one.tags[0].value, one.dataset.name): one.dataset
                for one in run.inputs.dataset_inputs
            }
            assert ("held-out", "complex") in used
            assert len({one.digest for one in used.values()}) == len(used)
            ratio = run.data.params.get("ratio")
            trained = {name for context, name in used if context == "train"}
            expected = {"0.0": {"simple"}, "1.0": {"complex"}, None: {"simple", "complex"}}[ratio]
            assert trained == (set() if kind == "base" else expected)
    models = server.client.search_logged_models([server.experiment_id])
    own = {trial.name for trial in sweep.trials} | {"base"}
    assert own <= {model.name for model in models}
