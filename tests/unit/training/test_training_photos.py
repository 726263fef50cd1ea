"""A training on photographs whose files are damaged after they were indexed, from end to end."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from coco_set import make_coco_set
from photo_run import damage, expected, photo_run, with_limit
from training_cases import model_folder

from mixlens.errors import DataError
from mixlens.mixture.local import LocalStream
from mixlens.spec import RunSpec
from mixlens.training.alone import train_alone
from mixlens.training.records import read_journal

STEPS = range(10)


@pytest.fixture
def run(tmp_path: Path) -> RunSpec:
    coco = make_coco_set(tmp_path / "set", train=24, held_out=8, faults=False)
    model = model_folder(tmp_path)
    return with_limit(photo_run(coco, tmp_path / "indexes", str(model)), 1.0)


def collate(examples):
    shapes = {example.image.shape[2:] for example in examples}
    assert shapes == {(3,)}
    assert {example.image.dtype for example in examples} == {np.dtype(np.uint8)}
    return {}


def test_every_position_is_served_for_any_number_of_workers(run: RunSpec):
    damaged = damage(run)
    wanted = expected(run, STEPS, damaged)
    replaced = {p: ids for p, ids in wanted.items() if ids[0] != ids[1]}
    assert len(replaced) > 8
    assert {due for due, _ in replaced.values()} == {f"street/{index}" for index in damaged}
    for world_size in (1, 2, 4):
        micros = [
            micro
            for rank in range(world_size)
            for step in LocalStream(run, rank, world_size, collate).steps(0, len(STEPS))
            for micro in step
        ]
        came = {
            p: i
            for micro in micros
            for p, i in zip(micro.positions, micro.example_ids, strict=True)
        }
        assert came == {p: used for p, (_, used) in wanted.items()}
        rows = [row for micro in micros for row in micro.replaced]
        assert {row.position: (row.example_id, row.instead) for row in rows} == replaced
        for row in rows:
            index = int(row.example_id.partition("/")[2])
            assert row.detail.startswith(f"{row.file_name}: ")
            assert damaged[index] in row.detail


def test_training_goes_on_and_says_what_it_left_out(run: RunSpec, tmp_path: Path):
    damaged = damage(run)
    train_alone(run, tmp_path / "trial")
    wanted = expected(run, STEPS, damaged)
    replaced = {p: ids for p, ids in wanted.items() if ids[0] != ids[1]}
    rows = pq.read_table(tmp_path / "trial/replaced.parquet").to_pylist()
    assert {r["position"]: (r["example_id"], r["instead"]) for r in rows} == replaced
    for record in read_journal(tmp_path / "trial/training.jsonl"):
        assert record["replaced"] == sum(p < 8 * record["step"] for p in replaced)


def test_images_that_all_go_away_are_one_message_and_lose_nothing(run: RunSpec, tmp_path: Path):
    """The sixteen that are tried in place of the first are gone, too."""
    root = Path(run.data["photos"].root)
    (root / "train2017").rename(root / "away")
    with pytest.raises(DataError, match=rf"data\.photos: got '.*none can be used\. .*{root}"):
        train_alone(run, tmp_path / "trial")
    (root / "away").rename(root / "train2017")
    train_alone(run, tmp_path / "trial")
    assert pq.read_table(tmp_path / "trial/replaced.parquet").num_rows == 0
