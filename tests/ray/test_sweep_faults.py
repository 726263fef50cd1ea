"""A sweep goes on when its driver is busy, and when what runs a trial is lost."""

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from mixlens.design import Layout, SweepSpec, Trial, asked_trials
from mixlens.design.arms import ArmsDesign
from mixlens.errors import ResourceError
from mixlens.measurement import is_finished, trial_of
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import EvaluationSpec, ResourceSpec, SceneComponent, SceneSpec, SizeRange
from mixlens.spec.training import TrainingSpec
from mixlens.sweep import driver, shared
from mixlens.sweep.driver import check_shared, run_trials
from mixlens.sweep.shared import see
from mixlens.tasks import vocabulary
from mixlens.training import launch as launching
from mixlens.training.alone import train_alone
from mixlens.training.records import read_journal

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build_tiny_vlm(folder, vocabulary(), size="test")
    return folder


def a_sweep(model: Path, **training: Any) -> SweepSpec:
    """One trial."""
    settings = {
        "steps": 3,
        "global_batch": 8,
        "micro_batch": 4,
        "zero_stage": 2,
        "precision": "fp32",
        "learning_rates": {"vision": 1e-3, "projector": 1e-3, "language": 1e-3},
        "log_every": 1,
    }
    large = SizeRange(name="large", diameter=(0.3, 0.4))
    scene = SceneSpec(image_size=32, objects=(1, 2), sizes=(large,))
    return SweepSpec(
        name="sweep",
        model=str(model),
        components={"simple": SceneComponent(scene=scene, tasks={"coarse": 2})},
        design=ArmsDesign(kind="arms", arms={"all": {"simple": 1.0}}),
        seeds=(1,),
        evaluation=EvaluationSpec(component="simple", examples=8, batch_size=8, max_new_tokens=2),
        training=TrainingSpec.model_validate(settings | training),
        resources=ResourceSpec(
            workers=1, cpus_per_worker=1, cpus_per_render=0.5, cpus_per_actor=0.5, max_failures=2
        ),
    )


def test_a_trial_never_waits_for_a_busy_driver(ray_local: None, base: Path, tmp_path: Path) -> None:
    """The driver does nothing from a trial's first step until all that the trial writes is there.

    So not one report of the trial is taken until it has ended.
    """
    spec, layout = a_sweep(base), Layout(tmp_path / "sweep")
    trials = asked_trials(spec)
    measurement = trial_of(spec, layout.root, trials[0])
    record = measurement.record(measurement.tokens)
    stages: list[str] = []

    def busy(trial: Trial, stage: str, metrics: dict[str, Any]) -> None:
        stages.append(stage)
        end = time.monotonic() + 180
        while "step" in metrics and not record.is_file():
            assert time.monotonic() < end, "the trial waits for its driver"
            time.sleep(0.1)

    assert run_trials(spec, trials, layout, 1, busy) == {}
    assert stages[0] == "training"
    assert stages[-1] == "done"


VICTIMS = ["ray::ImplicitFunc", "ray::TrainController"]  # Tune's name of a trial, and Train's


class KillTwice:
    """Kill -9 the trial's process after its first checkpoint, then its controller after another."""

    def __init__(self, directory: Path, every: int) -> None:
        self.directory, self.every = directory, every
        self.killed: list[str] = []
        self.stages: list[str] = []

    def __call__(self, trial: Trial, stage: str, metrics: dict[str, Any]) -> None:
        self.stages.append(stage)
        victims = VICTIMS[len(self.killed) :]
        if victims and metrics.get("step", 0) > self.every * (2 * len(self.killed) + 1) + 1:
            os.kill(process_of(victims[0]).pid, signal.SIGKILL)
            self.killed.append(victims[0])


def process_of(actor: str) -> psutil.Process:
    """The newest process of an actor: that of a lost trial's controller takes a while to end."""
    titles = {}
    for process in psutil.Process().children(recursive=True):
        try:
            titles[process] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    found = [process for process, title in titles.items() if title.startswith(actor)]
    assert found, "\n".join(title[:80] for title in titles.values())
    return max(found, key=lambda process: process.create_time())


def test_a_lost_trial_or_controller_changes_nothing(
    ray_local: None, base: Path, tmp_path: Path
) -> None:
    every = 15
    spec = a_sweep(base, steps=120, checkpoint_every=every)
    layout = Layout(tmp_path / "sweep")
    (trial,) = asked_trials(spec)
    killer = KillTwice(layout.trial(trial), every)
    assert run_trials(spec, (trial,), layout, 1, killer) == {}
    assert killer.killed == VICTIMS
    assert killer.stages.count("lost") == 2
    assert is_finished(spec, layout.root, trial)
    log = (layout.trial(trial) / "logs" / "train-0.log").read_text()
    starts = [line for line in log.splitlines() if line.startswith("worker 0 of 1")]
    assert len(starts) == 3
    assert all("/step-0000" in line for line in starts[1:]), "it began anew"

    whole = tmp_path / "whole"
    train_alone(trial.run, whole)
    expected = [record["loss"] for record in read_journal(whole / "training.jsonl")]
    records = read_journal(layout.trial(trial) / "training.jsonl")
    assert [record["step"] for record in records] == list(range(1, 121))
    assert [record["loss"] for record in records] == pytest.approx(expected, abs=1e-5)


def test_nodes_are_asked_whether_they_share_the_runs_directory(
    ray_local: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    check_shared(tmp_path / "sweep", said.append)
    assert list((tmp_path / "sweep").iterdir()) == []

    here = socket.gethostname()

    def blind(token: str, answer: str) -> str:
        """As on a node that has another folder there, without or with a file of that name."""
        return see(token.replace("sweep", "nowhere"), answer)

    def elsewhere(token: str, answer: str) -> str:
        return ""

    monkeypatch.setattr(shared, "_PATIENCE_S", 0.5)
    for wrong, told in ((blind, f"as {here} sees it"), (elsewhere, "as the driver's node sees it")):
        monkeypatch.setattr(driver, "see", wrong)
        with pytest.raises(ResourceError) as refused:
            check_shared(tmp_path / "sweep", said.append)
        message = str(refused.value)
        assert message.startswith(f"runs_dir: got '{tmp_path}': nodes of the cluster do not share")
        assert f"{here} (" in message
        assert told in message
        assert "that all nodes mount" in message
    assert said == []
    assert list((tmp_path / "sweep").iterdir()) == []


def test_workers_that_wrote_elsewhere_are_told_of(
    ray_local: None, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end well, and the model is not there."""

    class Elsewhere:
        def fit(self) -> None:
            pass

    monkeypatch.setattr(launching, "_trainer", lambda run, directory: Elsewhere())
    with pytest.raises(ResourceError, match=r"runs_dir: .*its model is not there as .* all nodes"):
        launching.launch(asked_trials(a_sweep(base))[0].run, tmp_path / "run")
