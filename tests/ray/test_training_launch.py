"""A run on Ray survives the death of a worker and ends where an undisturbed run ends."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayTaskError, UserCodeException
from ray.train.v2._internal import constants

from mixlens.errors import CheckpointError, DataError, ResourceError
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import ResourceSpec, RunSpec, SceneComponent, SceneSpec, SizeRange
from mixlens.spec.training import TrainingSpec
from mixlens.training.alone import train_alone
from mixlens.training.launch import (
    CLUSTER_START_S,
    LOCAL_START_S,
    START_TIMEOUT,
    _start_timeout_s,
    _user_error,
    launch,
)
from mixlens.training.records import read_journal

pytestmark = pytest.mark.ray


def a_run(model: Path, **training: object) -> RunSpec:
    settings: dict[str, object] = {
        "steps": 40,
        "global_batch": 8,
        "micro_batch": 2,
        "zero_stage": 2,
        "precision": "fp32",
        "learning_rates": {"vision": 1e-3, "projector": 1e-3, "language": 1e-3},
        "checkpoint_every": 10,
        "log_every": 1,
    }
    large = SizeRange(name="large", diameter=(0.3, 0.4))
    scene = SceneSpec(image_size=32, objects=(1, 2), sizes=(large,))
    return RunSpec(
        model=str(model),
        components={"simple": SceneComponent(scene=scene, tasks={"coarse": 2})},
        weights={"simple": 1.0},
        seed=1,
        training=TrainingSpec.model_validate(settings | training),
        resources=ResourceSpec(workers=2, cpus_per_worker=1, cpus_per_render=0.5),
    )


class KillOnce(threading.Thread):
    """Kill -9 a training worker as soon as a checkpoint has been committed and work goes on."""

    def __init__(self, directory: Path) -> None:
        super().__init__(daemon=True)
        self.directory, self.killed = directory, False
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            committed = list(self.directory.glob("train/workers/checkpoint_manager_snapshot.json"))
            records = read_journal(self.directory / "training.jsonl")
            if committed and records and records[-1]["step"] > 11:
                os.kill(worker_pid(self.directory), signal.SIGKILL)
                self.killed = True
                return


def worker_pid(directory: Path) -> int:
    """The process of this machine that writes the log of rank 1."""
    log = directory / "logs" / "train-1.log"
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "fd" / "1").readlink() == log:
                return int(process.name)
        except OSError:
            continue
    raise AssertionError(f"no process writes {log}")


def test_a_killed_worker_changes_nothing(ray_local: None, tmp_path: Path) -> None:
    model = tmp_path / "base"
    build_tiny_vlm(model, ["red", "circle"], seed=0, size="test")
    run, directory = a_run(model), tmp_path / "run"

    killer = KillOnce(directory)
    killer.start()
    folder = launch(run, directory)
    killer.stopped.set()
    killer.join()
    assert killer.killed, "the run was over before a worker could be killed"
    assert folder == directory / "model"
    log = (directory / "logs" / "train-0.log").read_text()
    starts = [line for line in log.splitlines() if line.startswith("worker 0 of 2")]
    assert len(starts) == 2
    assert starts[0].endswith(f"from {model}")
    assert "/step-000000" in starts[1]

    whole = tmp_path / "whole"
    train_alone(run, whole)
    expected = [record["loss"] for record in read_journal(whole / "training.jsonl")]
    records = read_journal(directory / "training.jsonl")
    assert [record["step"] for record in records] == list(range(1, 41))
    assert [record["loss"] for record in records] == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < 0.7 * expected[0], "nothing was learned"
    assert records[-1]["examples/simple"] == 40 * 8

    # Idempotent: what is finished is not touched again, and nothing but the result is left.
    before = {path: path.stat().st_mtime_ns for path in sorted(directory.rglob("*"))}
    started = time.perf_counter()
    assert launch(run, directory) == folder
    assert time.perf_counter() - started < 1
    assert {path: path.stat().st_mtime_ns for path in sorted(directory.rglob("*"))} == before
    assert not (directory / "train").exists()
    assert json.loads((directory / "trained.json").read_text())["run"] == run.digest()

    with pytest.raises(CheckpointError, match="another run"):
        launch(a_run(model, weight_decay=0.5), directory)


def test_what_a_worker_finds_wrong_is_one_message(ray_local: None, tmp_path: Path) -> None:
    """Raised inside a worker, not retried, and without Ray's wrapping."""
    model = tmp_path / "base"
    build_tiny_vlm(model, ["red", "circle"], seed=0, size="test")
    (model / "config.json").write_text('{"model_type": "gpt2"}')
    run = a_run(model).model_copy(update={"resources": ResourceSpec(workers=1)})
    with pytest.raises(CheckpointError, match=r"no adapter for th(is|e) family") as caught:
        launch(run, tmp_path / "run")
    assert type(caught.value) is CheckpointError
    assert "Traceback" not in str(caught.value)
    log = (tmp_path / "run" / "logs" / "train-0.log").read_text()
    assert log.count("worker 0 of 1") == 1


def test_what_is_known_to_be_wrong_starts_no_worker(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        launch(a_run(tmp_path / "nowhere"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workers_that_never_come_are_one_message(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(START_TIMEOUT, "0.5")
    model = tmp_path / "base"
    build_tiny_vlm(model, ["red", "circle"], seed=0, size="test")
    resources = ResourceSpec(workers=2, cpus_per_worker=1000)
    run = a_run(model).model_copy(update={"resources": resources})
    message = r"workers.*2.*1000\.0 CPUs.*3 attempts of at most 0\.5 seconds.*ray status"
    with pytest.raises(ResourceError, match=message) as caught:
        launch(run, tmp_path / "run")
    assert START_TIMEOUT in str(caught.value)


def test_a_cluster_gets_the_time_to_boot_its_nodes(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run = a_run(tmp_path)
    assert _start_timeout_s(run) == LOCAL_START_S
    resources = ResourceSpec(address="10.0.0.1:6379")
    assert _start_timeout_s(run.model_copy(update={"resources": resources})) == CLUSTER_START_S

    # As in the process of a trial: the variables of its driver are not there.
    shipped = ray.remote(num_cpus=0.1, runtime_env={"env_vars": {"SHIPPED": "1"}})(_start_timeout_s)
    assert ray.get(shipped.remote(run)) == CLUSTER_START_S

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert _start_timeout_s(run) == CLUSTER_START_S
    # More than a GPU node takes, and a name that Ray Train hands on to what does the waiting.
    assert CLUSTER_START_S >= 600
    assert START_TIMEOUT in constants.ENV_VARS_TO_PROPAGATE


def test_an_error_that_ray_data_only_prints_keeps_its_type() -> None:
    text = "Traceback\nmixlens.errors.DataError: a.jpg: broken\n\nThe above exception was ..."
    found = _user_error(RayTaskError("render", text, UserCodeException("UDF failed")))
    assert type(found) is DataError
    assert str(found) == "a.jpg: broken"
    assert _user_error(ValueError("a defect")) is None
