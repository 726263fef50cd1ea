"""What a run was trained on is known from its rows; a wrong order is named by its first step."""

import json
import re
import runpy
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from job_inside import JOBS, run_inside
from training_cases import (
    CRASHED,
    GLOBAL_BATCH,
    SAVED,
    STEPS,
    CrashError,
    RandomStream,
    model_folder,
    run_of,
)

from mixlens.errors import CheckpointError, DataError
from mixlens.mixture.batches import MicroBatch
from mixlens.mixture.digests import digest, digests_of, halves, joined
from mixlens.spec import RunSpec
from mixlens.training.context import alone
from mixlens.training.loop import train
from mixlens.training.records import read_journal
from mixlens.training.sharded import load_trainable
from mixlens.training.trained_on import read_digests

pytestmark = pytest.mark.case

SWAPPED = 4  # the first step, from 1, with other rows than are due


@dataclass
class WrongStream(RandomStream):
    """From one step on, two rows of the global batch have changed their places."""

    wrong: bool = True

    def rows(self, start: int, count: int) -> MicroBatch:
        rows = super().rows(start, count)
        if not self.wrong or start < (SWAPPED - 1) * GLOBAL_BATCH:
            return rows
        return replace(rows, example_ids=rows.example_ids[::-1])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def trained(
    run: RunSpec, directory: Path, wrong: bool = False, crash_at: int | None = None
) -> Path:
    directory.mkdir(exist_ok=True)
    context = alone(directory)
    vlm = load_trainable(run, context)
    stream = WrongStream(run.training, context, vlm.adapter.image_token_id, crash_at, wrong)
    train(run, context, vlm, stream)
    return directory


def test_a_digest_is_that_of_the_rows_in_any_order_and_of_any_split() -> None:
    positions, ids = list(range(100, 132)), [f"a/{n}" for n in range(32)]
    whole = digest(positions, ids) % 2**64
    parts = [digest(positions[n::3], ids[n::3]) for n in (2, 0, 1)]
    low, high = (sum(half) for half in zip(*map(halves, parts), strict=True))
    assert joined(low, high) == whole
    assert digest(positions[::-1], ids[::-1]) % 2**64 == whole
    assert digest(positions, [ids[1], ids[0], *ids[2:]]) % 2**64 != whole


def test_what_was_trained_on_agrees_with_the_order_across_a_crash(
    model: Path, tmp_path: Path
) -> None:
    # Steps 1, 5 and 6 are logged and the checkpoint is after step 3: lines come in between, too.
    run = run_of(model, log_every=5)
    with pytest.raises(CrashError):
        trained(run, tmp_path / "run", crash_at=CRASHED)
    trained(run, tmp_path / "run")
    due = [f"{value:016x}" for value in digests_of(run, STEPS, {})]
    assert (tmp_path / "run" / "trained_on.txt").read_text().split() == due
    mixture = pq.read_table(tmp_path / "run" / "mixture.parquet")
    assert mixture["trained_on"].to_pylist() == due
    for record in read_journal(tmp_path / "run" / "training.jsonl"):
        so_far = sum(int(line, 16) for line in due[: record["step"]]) % 2**64
        assert record["trained_on"] == f"{so_far:016x}"
    # Without what was written down before the checkpoint, the run does not go on.
    with pytest.raises(CrashError):
        trained(run, tmp_path / "other", crash_at=CRASHED)
    (tmp_path / "other" / "trained_on.txt").write_text(f"{due[0]}\n{due[1][:5]}")
    with pytest.raises(CheckpointError, match=rf"got '1 steps': the checkpoint is of step {SAVED}"):
        trained(run, tmp_path / "other")


def test_a_wrong_order_is_named_by_its_first_step(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_of(model)
    told = rf"trained_on\.txt: got '\w+': step {SWAPPED} is the first that was trained on other"
    with pytest.raises(DataError, match=told):
        trained(run, tmp_path / "run", wrong=True)
    assert not (tmp_path / "run" / "trained.json").exists()
    assert len(read_digests(tmp_path / "run")) == STEPS

    (tmp_path / "run" / "run.json").write_text(json.dumps(run.model_dump(mode="json")))
    job = ("order.py", tmp_path / "run" / "run.json", tmp_path / "order.parquet")
    refused = run_inside(monkeypatch, capfd, *job)
    assert refused.returncode == 2
    assert re.search(told, refused.stderr)

    # The same run as it should be, and as it was before it began.
    shutil.rmtree(tmp_path / "run")
    (trained(run, tmp_path / "run") / "run.json").write_text(run.model_dump_json())
    capfd.readouterr()
    runpy.run_path(str(JOBS / "order.py"), run_name="__main__")
    assert "6 of 6 steps were trained, each on the examples of" in capfd.readouterr().out
    (tmp_path / "run" / "trained_on.txt").unlink()
    runpy.run_path(str(JOBS / "order.py"), run_name="__main__")
    assert "none of the 6 steps was trained yet" in capfd.readouterr().out
