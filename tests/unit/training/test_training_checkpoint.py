"""Incomplete and foreign checkpoints are refused; bf16 ones resume."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_cases import CRASHED, SAVED, STEPS, continued, losses, model_folder, run_alone, run_of

from mixlens.errors import CheckpointError
from mixlens.training import zero
from mixlens.training.checkpoint import read_record
from mixlens.training.records import read_journal


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crashed")
    run_alone(run_of(model_folder(root), 1), root / "run", CRASHED)
    return root


def checkpoint_of(directory: Path) -> Path:
    (folder,) = (directory / "checkpoints").iterdir()
    return folder


def test_the_record_names_what_is_there(crashed: Path) -> None:
    folder = checkpoint_of(crashed / "run")
    record = read_record(folder, run_of(crashed / "base", 1).digest())
    assert record["step"] == SAVED
    assert {path.name for path in folder.iterdir()} == {"meta.json", *record["shards"]}


def test_a_missing_shard_is_refused(crashed: Path, tmp_path: Path) -> None:
    directory = continued(crashed / "run", tmp_path / "run")
    (shard,) = checkpoint_of(directory).glob("shard*")
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"shard00000.*missing"):
        run_alone(run_of(crashed / "base", 1), directory)


def test_a_cut_shard_is_refused(crashed: Path, tmp_path: Path) -> None:
    directory = continued(crashed / "run", tmp_path / "run")
    (shard,) = checkpoint_of(directory).glob("shard*")
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=f"{len(content) - 100} bytes instead of"):
        run_alone(run_of(crashed / "base", 1), directory)


def test_a_checkpoint_without_record_is_refused(crashed: Path, tmp_path: Path) -> None:
    directory = continued(crashed / "run", tmp_path / "run")
    (checkpoint_of(directory) / "meta.json").unlink()
    with pytest.raises(CheckpointError, match=r"meta\.json.*not finished"):
        run_alone(run_of(crashed / "base", 1), directory)


@pytest.mark.case
@pytest.mark.parametrize("record", ['{"format": 1', "[1]", '{"format": 1, "shards": 3}', "{}"])
def test_a_damaged_record_is_refused(crashed: Path, tmp_path: Path, record: str) -> None:
    folder = checkpoint_of(continued(crashed / "run", tmp_path / "run"))
    (folder / "meta.json").write_text(record)
    with pytest.raises(CheckpointError, match=r"meta\.json.*not finished"):
        read_record(folder, "whatever")


@pytest.mark.case
@pytest.mark.parametrize("longer", [False, True])
def test_missing_or_surplus_elements_are_refused(
    crashed: Path, tmp_path: Path, longer: bool
) -> None:
    """Every parameter is there, but not all of it, or more than the model has."""
    from safetensors.torch import load_file, save_file

    directory = continued(crashed / "run", tmp_path / "run")
    folder = checkpoint_of(directory)
    (shard,) = folder.glob("shard*")
    pieces = load_file(shard)
    name = next(key for key in pieces if "|exp_avg|" in key and len(pieces[key]) > 4)
    piece = pieces[name]
    pieces[name] = torch.cat([piece, piece]) if longer else piece[:-4].clone()
    save_file(pieces, shard)
    record = json.loads((folder / "meta.json").read_text())
    record["shards"][shard.name] = shard.stat().st_size
    (folder / "meta.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="elements are there"):
        run_alone(run_of(crashed / "base", 1), directory)


def test_a_checkpoint_of_another_run_is_refused(crashed: Path, tmp_path: Path) -> None:
    directory = continued(crashed / "run", tmp_path / "run")
    other = run_of(crashed / "base", 1, weight_decay=0.2)
    with pytest.raises(CheckpointError, match="another run"):
        run_alone(other, directory)


def test_an_unpublished_checkpoint_is_ignored(crashed: Path, tmp_path: Path) -> None:
    """A crash while saving leaves a `.part`; the run continues from the checkpoint before."""
    directory = continued(crashed / "run", tmp_path / "run")
    whole = run_alone(run_of(crashed / "base", 1), tmp_path / "whole")
    later = directory / "checkpoints" / "step-00000004.part"
    later.mkdir()
    (later / "shard00000.safetensors").write_bytes(b"half")
    assert run_alone(run_of(crashed / "base", 1), directory) == pytest.approx(whole, abs=1e-6)


def test_a_resumed_run_rewrites_its_journal(crashed: Path, tmp_path: Path) -> None:
    directory = continued(crashed / "run", tmp_path / "run")
    with (directory / "training.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # cut short by the crash
    run_alone(run_of(crashed / "base", 1), directory)
    steps = [record["step"] for record in read_journal(directory / "training.jsonl")]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.parametrize("stage", [0, 1])
def test_bf16_on_cpus_is_close_to_fp32(
    crashed: Path, tmp_path: Path, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where a CPU is slow at it, so that a run would do without.
    monkeypatch.setattr(zero, "computes_in_bf16", lambda precision, _: precision == "bf16")
    fp32 = run_alone(run_of(crashed / "base", stage), tmp_path / "fp32")
    bf16 = run_alone(run_of(crashed / "base", stage, precision="bf16"), tmp_path / "bf16")
    assert bf16 != fp32
    assert bf16 == pytest.approx(fp32, abs=2e-2)


@pytest.fixture
def few_objects() -> Iterator[None]:
    """DeepSpeed collects garbage at every turn of its start; keep what is there out of it."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_weights_with_fp32_masters_resume(
    crashed: Path,
    tmp_path: Path,
    stage: int,
    monkeypatch: pytest.MonkeyPatch,
    few_objects: None,
) -> None:
    """What GPUs get; DeepSpeed's bf16 runs on CPUs too."""
    monkeypatch.setattr(zero, "weights_dtype", lambda *_: torch.bfloat16)
    run = run_of(crashed / "base", stage, precision="bf16")
    whole = run_alone(run, tmp_path / "whole")
    assert whole[-1] < whole[0] - 0.1
    run_alone(run, tmp_path / "crash", CRASHED)
    assert len(losses(tmp_path / "crash")) == CRASHED
    assert run_alone(run, tmp_path / "crash") == pytest.approx(whole, abs=2e-3)
