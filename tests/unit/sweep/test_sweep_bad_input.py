"""Each mistake is one message with exit code 2, and before any work where it can be known."""

import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from mixlens.errors import CheckpointError, ResourceError, SpecError
from mixlens.models.tiny import build_tiny_vllm
from mixlens.spec import ResourceSpec, SweepSpec, load_spec
from mixlens.sweep.driver import ray_running
from mixlens.sweep.plan import check_disk, plan_sweep
from mixlens.sweep.run import resolve, run_sweep

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART = ROOT / "sweeps" / "quickstart.yaml"


def spec(tmp_path: Path, *overrides: str) -> SweepSpec:
    model = tmp_path / "model"
    if not model.exists():
        build_tiny_vllm(model, ["red"], size="test")
    return load_spec(SweepSpec, QUICKSTART, [f"model={model}", f"runs_dir={tmp_path}", *overrides])


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("training.stepz=3", "training.stepz"),
        ("ratios=[1.2]", "ratios.0"),
        ("mixture.low={simple: 0.7}", "sum to 0.7"),
        ("mixture.low={nonesuch: 1.0}", "nonesuch"),
    ],
)
def test_the_command_ends_with_one_message_and_code_2(override: str, told: str):
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "sweep.py", QUICKSTART, override],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_checkpoint(tmp_path: Path):
    with pytest.raises(CheckpointError, match="/no/such/model"):
        resolve(spec(tmp_path, "model=/no/such/model"))


def test_a_model_folder_named_from_here_is_found_by_workers_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = spec(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert resolve(given.model_copy(update={"model": "model"})) == resolve(given)


def test_scenes_that_cannot_be_made(tmp_path: Path):
    crowded = spec(tmp_path, "components.complex.scene.objects=[150,200]")
    with pytest.raises(SpecError, match=r"components\.complex.*fit"):
        plan_sweep(crowded, time_a_step=False)


def test_an_unreachable_ray(tmp_path: Path, closed_port: int):
    resources = ResourceSpec(address=f"127.0.0.1:{closed_port}")
    with (
        pytest.raises(ResourceError, match=f"127.0.0.1:{closed_port}.*nothing answers"),
        ray_running(resources, tmp_path),
    ):
        pass


def test_an_unreachable_mlflow_server_before_anything_is_started(tmp_path: Path, closed_port: int):
    wrong = spec(tmp_path, f"tracking.uri=http://127.0.0.1:{closed_port}")
    with pytest.raises(ResourceError, match=str(closed_port)):
        run_sweep(wrong, ["test"])
    assert not (tmp_path / "quickstart").exists()


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = plan_sweep(spec(tmp_path), time_a_step=False)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, plan.disk_bytes - 1))
    with pytest.raises(ResourceError, match=r"disk of .*GB free.*runs_dir"):
        check_disk(plan, tmp_path / "not" / "there" / "yet")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, plan.disk_bytes))
    check_disk(plan, tmp_path)
