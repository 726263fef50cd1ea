"""A model that is not whole is one message of every job, before anything is written or started."""

from collections.abc import Callable
from pathlib import Path

import pytest
from job_inside import run_inside
from model_folders import Tensors, copy_with, edit_json, save_adapters

from mixlens.models import load_vlm
from mixlens.models.folder import BUILTIN

ROOT = Path(__file__).resolve().parents[3]
(SHIPPED,) = BUILTIN.values()


def blind(folder: Path) -> Path:
    def change(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if "vision" not in name}

    return copy_with(SHIPPED, folder, change)


def wrapped(folder: Path) -> Path:
    return copy_with(SHIPPED, folder, lambda all_: {f"module.{name}": all_[name] for name in all_})


def without_patch_size(folder: Path) -> Path:
    copy_with(SHIPPED, folder, dict)
    edit_json(folder / "processor_config.json", patch_size=None)
    return folder


def adapters(folder: Path) -> Path:
    made = folder.with_name("made")
    save_adapters(load_vlm(str(SHIPPED)).model, SHIPPED, made, r".*language_model.*\.q_proj")

    def lost(tensors: Tensors) -> Tensors:
        now, then = "model.language_model.layers", "model.layers"
        return {name.replace(now, then): tensor for name, tensor in tensors.items()}

    return copy_with(made, folder, lost)


def without_weights(folder: Path) -> Path:
    save_adapters(load_vlm(str(SHIPPED)).model, SHIPPED, folder, ["q_proj"])
    (folder / "adapter_model.safetensors").unlink()
    return folder


MODELS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no vision tower": (blind, "tensors are missing (model.vision_tower."),
    "names of a wrapper": (wrapped, "All names in the file begin with 'module.'"),
    "no patch size": (without_patch_size, 'Put "patch_size": 14 there'),
    "adapters of other names": (adapters, "are of no use to the adapted model"),
    "adapters without weights": (without_weights, "'adapter_model.safetensors': the file is not"),
}


@pytest.mark.case
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_not_whole_ends_every_job(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    make, told = MODELS[name]
    model, runs = make(tmp_path / "model"), tmp_path / "runs"
    monkeypatch.chdir(ROOT)
    jobs: list[tuple[str, list[object]]] = [
        ("measure.py", ["sweeps/measure_tiny.yaml", f"model={model}", f"runs_dir={runs}"]),
        ("sweep.py", ["sweeps/quickstart.yaml", f"model={model}", f"runs_dir={runs}", "--dry-run"]),
    ]
    if "adapters" in name:
        jobs.append(("merge.py", [model, runs]))
    for job, arguments in jobs:
        done = run_inside(monkeypatch, capfd, job, *arguments)
        assert done.returncode == 2, done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: ")
        assert told in last
        assert str(model) in last
        assert not runs.exists()
