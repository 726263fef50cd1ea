"""Files that a full disk or a dying node cut short: one message, with the file and what to do."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from fake_measured import FakeMeasured
from fake_sweep import FakeSweep

from mixlens.analysis import load_sweep, read_provenance
from mixlens.analysis.measurement import load_measured
from mixlens.analysis.results import read_training
from mixlens.analysis.transfer_answer import read_answer
from mixlens.errors import DataError, read_record
from mixlens.evaluation.throughput import THROUGHPUT, read_throughput
from mixlens.training.records import read_journal

ROOT = Path(__file__).parents[3]
Damage = Callable[[Path], object]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def other_bytes(file: Path) -> None:
    file.write_bytes(bytes(255 - byte for byte in file.read_bytes()))


def older(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "from_long_ago": 1}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fake = FakeMeasured(images=12, layers=2, transfer=1.0)
    return fake.write(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


@pytest.mark.case
@pytest.mark.parametrize("damage", [cut, empty, other_bytes], ids=lambda one: one.__name__)
@pytest.mark.parametrize(
    "name",
    ["complex-*/tokens-*/image_metrics.parquet", "complex-*/answers-*/examples.parquet",
     "complex-*/probe-linear,*/probes.parquet", "complex-*/deletion-norm,*/deleted.parquet",
     "blank-*/tokens-*/pooled_metrics.parquet", "photos-*/tokens-*/attributes.parquet",
     "measure.json"],
)  # fmt: skip
def test_a_damaged_file_of_a_measured_model_is_named(folder: Path, name: str, damage: Damage):
    file = folder / name
    if name != "measure.json":
        file = next(folder.glob(f"measurements/tiny-vllm@{name}"))
    damage(file)
    with pytest.raises(DataError) as caught:
        load_measured(folder)
    message = str(caught.value)
    assert str(file) in message
    assert "damaged, or of another version" in message
    assert "Delete " in message
    assert len(message.splitlines()) == 1


def test_the_report_says_so_too(folder: Path):
    older(folder / "measure.json")
    done = subprocess.run(
        [sys.executable, "jobs/report.py", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {folder / 'measure.json'}: ")
    assert "from_long_ago" in done.stderr


@pytest.mark.case
@pytest.mark.parametrize("damage", [cut, empty, other_bytes], ids=lambda one: one.__name__)
def test_a_damaged_file_of_a_sweep_is_named(tmp_path: Path, damage: Damage):
    fake = FakeSweep(ratios=(0.0,), seeds=(0,), images=8, layers=1, steps=5, groups=("coarse",))
    folder = fake.write(tmp_path)
    files = list(folder.glob("measurements/*/*/*.parquet"))
    assert len({file.parents[1] for file in files}) == 2
    for file in [*files, folder / "sweep.json"]:
        kept = file.read_bytes()
        damage(file)
        with pytest.raises(DataError) as caught:
            load_sweep(folder)
        assert str(file) in str(caught.value)
        file.write_bytes(kept)
    load_sweep(folder)


@pytest.mark.case
def test_records_beside_the_tables_are_read_with_the_same_care(tmp_path: Path):
    (tmp_path / THROUGHPUT).write_text('{"answers_per_s": 1.0}')
    with pytest.raises(DataError, match=rf"{THROUGHPUT}.*tokens_per_s.*damaged"):
        read_throughput(tmp_path)
    (tmp_path / "provenance.json").write_text("")
    with pytest.raises(DataError, match=r"provenance\.json.*damaged"):
        read_provenance(tmp_path)
    (tmp_path / "provenance.json").write_text('{"untracked": [], "sourc": ""}')
    with pytest.raises(DataError, match=r"provenance\.json.*sourc"):
        read_provenance(tmp_path)
    for name in ("transfer", "transfer_summary"):
        (tmp_path / f"{name}.parquet").write_text("")
    with pytest.raises(DataError, match=r"transfer\.parquet.*report"):
        read_answer(tmp_path)
    for text in ("[]", "1", "null", '"a"'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x\.json"):
            read_record(tmp_path / "x.json", "key")


@pytest.mark.case
def test_a_training_log_may_lack_its_last_line_and_no_other(tmp_path: Path):
    file = tmp_path / "training.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_training(tmp_path)["step"].tolist() == [1, 2]
    assert read_journal(file) == [{"step": 1}, {"step": 2}]
    file.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    for read in (read_training, lambda folder: read_journal(folder / "training.jsonl")):
        with pytest.raises(DataError, match=r"training\.jsonl.*damaged.*Delete"):
            read(tmp_path)
    assert isinstance(read_training(tmp_path / "nothing"), pd.DataFrame)
