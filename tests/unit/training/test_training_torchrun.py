"""The same loop under torchrun: two processes train as one does."""

import subprocess
import sys
from pathlib import Path

import pytest
from training_cases import losses, model_folder, run_of

from mixlens.spec import SceneComponent, SceneSpec, SizeRange
from mixlens.training.alone import train_alone
from mixlens.training.records import finished_model


def test_two_processes_of_torchrun_have_the_losses_of_one(tmp_path: Path) -> None:
    large = SizeRange(name="large", diameter=(0.3, 0.4))
    scene = SceneSpec(image_size=32, objects=(1, 2), sizes=(large,))
    case = run_of(model_folder(tmp_path), 2)
    run = case.model_copy(
        update={"components": {"a": SceneComponent(scene=scene, tasks={"coarse": 2})}}
    )
    (tmp_path / "run.json").write_text(run.model_dump_json())
    started = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "mixlens.training.alone", tmp_path / "run.json", tmp_path / "two"],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr
    assert str(finished_model(run, tmp_path / "two")) in started.stdout
    train_alone(run, tmp_path / "one")
    expected = losses(tmp_path / "one")
    assert losses(tmp_path / "two") == pytest.approx(expected, abs=1e-5)
    # Nothing is compared that would agree anyway.
    assert len(set(expected)) == run.training.steps
    assert expected[-1] < expected[0] - 0.05
