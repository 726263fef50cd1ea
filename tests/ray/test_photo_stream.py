"""Photographs on Ray: encoded bytes travel, and what does not decode is replaced where it is used.

The expected replacements are worked out from the order and the list of damaged files alone.
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
import test_stream
from coco_set import make_coco_set
from photo_run import damage, expected, photo_run, with_limit
from test_stream import fit, global_batches

from mixlens.errors import DataError
from mixlens.models.tiny import build_tiny_vlm
from mixlens.training.launch import launch
from mixlens.training.records import read_journal

pytestmark = pytest.mark.ray

ray.cloudpickle.register_pickle_by_value(test_stream)
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_damaged_photographs_are_replaced_alike_on_every_worker(ray_local, tmp_path):
    coco = make_coco_set(tmp_path / "set", train=24, held_out=8, faults=False)
    run = photo_run(coco, tmp_path / "indexes")
    damaged = damage(run)
    segments = [(0, 12), (7, 10)]
    seen = fit(tmp_path, run, 2, "photos", segments=segments)
    wanted = expected(run, range(12), damaged)
    batches = global_batches(seen)
    assert sorted(batches) == sorted((f, step) for f, last in segments for step in range(f, last))
    for (_, step), batch in batches.items():
        positions = range(step * 8, step * 8 + 8)
        assert batch == [(p, wanted[p][1]) for p in positions]
    records = [
        json.loads(line) for f in seen.glob("*.jsonl") for line in f.read_text().splitlines()
    ]
    found = [
        (one["position"], one["example_id"], one["instead"])
        for record in records
        for one in record["replaced"]
    ]
    assert len(found) > 12
    assert sorted(found) == sorted(
        (p, *wanted[p])
        for first, last in segments
        for p in range(8 * first, 8 * last)
        if wanted[p][0] != wanted[p][1]
    )


def test_too_many_stop_the_workers_once_and_a_higher_limit_goes_on(ray_local, tmp_path):
    coco = make_coco_set(tmp_path / "set", train=24, held_out=8, faults=False)
    base = tmp_path / "base"
    build_tiny_vlm(base, ["red", "circle"], seed=0, size="test")
    run = with_limit(photo_run(coco, tmp_path / "indexes", str(base), workers=2), 0.1)
    damaged = damage(run)
    wanted = expected(run, range(10), damaged)
    replaced = [p for p, ids in sorted(wanted.items()) if ids[0] != ids[1]]
    stops_at = replaced[7] // 8 + 1  # the step with the eighth
    assert stops_at >= 4
    directory = tmp_path / "run"
    with pytest.raises(
        DataError, match=r"data\.photos\.max_left_out: got 0\.1: .*replaced"
    ) as told:
        launch(run, directory)
    assert type(told.value) is DataError
    assert "Traceback" not in str(told.value)
    for rank in (0, 1):  # not tried again
        log = (directory / f"logs/train-{rank}.log").read_text()
        assert log.count(f"worker {rank} of 2") == 1
    rows = pq.read_table(directory / "replaced.parquet").to_pylist()
    assert [row["position"] for row in rows] == [p for p in replaced if p < 8 * stops_at]

    launch(with_limit(run, 0.9), directory)
    log = (directory / "logs/train-0.log").read_text()
    assert f"/step-{(stops_at - 1) // 2 * 2:08d}" in log  # from its checkpoint
    rows = pq.read_table(directory / "replaced.parquet").to_pylist()
    assert [row["position"] for row in rows] == replaced
    journal = read_journal(directory / "training.jsonl")
    assert [r["replaced"] for r in journal] == [
        sum(p < 8 * step for p in replaced) for step in range(1, 11)
    ]
    assert not list(Path(directory).glob("replaced/*.part"))
