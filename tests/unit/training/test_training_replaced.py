"""Replaced photographs are counted over all ranks and any restart, and too many stop the run."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch.multiprocessing as multiprocessing
from replaced_cases import opened, photo_run, rank_of_two, replacement
from training_cases import CrashError, RandomStream, model_folder, run_of

from mixlens.errors import DataError
from mixlens.mixture import order
from mixlens.mixture.batches import MicroBatch
from mixlens.mixture.decoding import Replacement
from mixlens.models import load_vlm
from mixlens.spec import RunSpec
from mixlens.training.context import alone
from mixlens.training.loop import train
from mixlens.training.records import read_journal
from mixlens.training.replaced import Replaced


@pytest.fixture(autouse=True)
def _sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "open_source", opened)


@dataclass
class DamagedStream(RandomStream):
    """Rows of which those at some positions are replacements."""

    damaged: dict[int, str] | None = None

    run: RunSpec | None = None

    def rows(self, start: int, count: int) -> MicroBatch:
        rows = super().rows(start, count)
        damaged = self.damaged or {}
        replaced = tuple(replacement(p, damaged[p]) for p in rows.positions if p in damaged)
        instead = {one.position: one.instead for one in replaced}
        ids = [instead.get(position) or self.example_id(position) for position in rows.positions]
        return MicroBatch(rows.positions, ids, rows.components, rows.tensors, replaced)

    def example_id(self, position: int) -> str:
        assert self.run is not None
        component, index = order.order_of(self.run).at(position)
        return f"{component}/{index}"


def train_with(
    run: RunSpec, directory: Path, damaged: dict[int, str], crash_at: int | None = None
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    vlm, context = load_vlm(run.model), alone(directory)
    token = vlm.adapter.image_token_id
    stream = DamagedStream(run.training, context, token, crash_at, damaged, run)
    train(run, context, vlm, stream)


def table(directory: Path) -> list[dict]:
    return pq.read_table(directory / "replaced.parquet").to_pylist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("model"))


def test_replacements_are_counted_and_listed_across_a_crash(model: Path, tmp_path: Path):
    run = photo_run(model=model, max_left_out=1.0)
    damaged = {9: "street", 3: "street", 30: "city", 24: "street", 47: "street"}
    # The checkpoint is after step 3 (24 positions); the crash comes when step 6 is asked for.
    with pytest.raises(CrashError):
        train_with(run, tmp_path / "run", damaged, crash_at=5)
    lines = (tmp_path / "run/replaced/rank-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["position"] for line in lines] == [3, 9, 24, 30]
    # Position 24 was busy for a moment only: what counts is what the model was trained on.
    del damaged[24]
    train_with(run, tmp_path / "run", damaged)
    expected = {p: replacement(p, data) for p, data in sorted(damaged.items())}
    assert [Replacement(**row) for row in table(tmp_path / "run")] == list(expected.values())
    journal = read_journal(tmp_path / "run/training.jsonl")
    assert [r["replaced"] for r in journal] == [1, 2, 2, 3, 3, 4]


def test_too_many_stop_the_run_and_a_higher_limit_lets_it_go_on(model: Path, tmp_path: Path):
    # 12 photos of `street` in 24 positions; the eighth replacement comes in step 4.
    damaged = dict.fromkeys([0, 2, 5, 9, 11, 17, 20, 26], "street") | {1: "city"}
    run = photo_run(model=model, max_left_out=0.49)
    assert order.order_of(run).counts(32)["photos"] == 16
    told = (
        r"data\.street\.max_left_out: got 0\.49: of 16 images .* 8 \(50\.0%\) .*"
        r"photos/0 \(000\.jpg: truncated\), .*photos/11 .*"
        rf"all are in {tmp_path}/run/replaced\.parquet\. .*street-root"
    )
    with pytest.raises(DataError, match=told) as stopped:
        train_with(run, tmp_path / "run", damaged)
    assert "photos/17" not in str(stopped.value)  # the first few, not a wall of them
    assert "photos/1 " not in str(stopped.value)  # of another data set
    assert [row["position"] for row in table(tmp_path / "run")] == sorted(damaged)
    assert [r["step"] for r in read_journal(tmp_path / "run/training.jsonl")] == [1, 2, 3]

    allowed = photo_run(model=model, max_left_out=0.5)
    assert allowed.digest() == run.digest()
    train_with(allowed, tmp_path / "run", damaged)
    journal = read_journal(tmp_path / "run/training.jsonl")
    assert [r["replaced"] for r in journal] == [4, 6, 8, 9, 9, 9]


def test_a_few_never_stop_a_run(model: Path, tmp_path: Path):
    run = photo_run(model=model, max_left_out=0.0)
    damaged = dict.fromkeys(range(7), "street") | dict.fromkeys(range(9, 12), "city")
    train_with(run, tmp_path / "run", damaged)
    assert len(table(tmp_path / "run")) == 10


def test_a_run_of_scenes_says_nothing_of_photographs(model: Path, tmp_path: Path):
    run = run_of(model)
    train_with(run, tmp_path / "run", {})
    assert not list((tmp_path / "run").glob("replaced*"))
    assert "replaced" not in read_journal(tmp_path / "run/training.jsonl")[0]


def test_ranks_agree_on_the_count_and_on_the_message(tmp_path: Path):
    multiprocessing.spawn(rank_of_two, (str(tmp_path),), nprocs=2)
    told = [json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in range(2)]
    assert told[0] == told[1]
    first, second, after, message, last = told[0]
    assert (first, second, after, last) == (2, 4, 4, 8)
    assert "of 12 images that were drawn, 8 (66.7%)" in message
    positions = [row["position"] for row in table(tmp_path)]
    assert positions == [0, 1, 8, 9, 16, 17, 20, 21]


def test_rows_of_more_ranks_than_now_are_kept_once(tmp_path: Path):
    run = photo_run(max_left_out=1.0)
    folder = tmp_path / "replaced"
    folder.mkdir()
    for rank, positions in enumerate([[0, 9], [2, 11], [4, 13, 50]]):
        lines = [json.dumps(asdict(replacement(position))) + "\n" for position in positions]
        (folder / f"rank-{rank}.jsonl").write_text("".join(lines) + '{"position": 1, "da')
    replaced = Replaced(run, alone(tmp_path), first_step=2)
    assert replaced.note([]) == [0, 6]  # of `city` and `street`
    replaced.check([0, 6], 2)
    assert replaced.total == 6
    replaced.write_table()
    assert [row["position"] for row in table(tmp_path)] == [0, 2, 4, 9, 11, 13]
    assert [file.name for file in folder.iterdir()] == ["rank-0.jsonl"]
