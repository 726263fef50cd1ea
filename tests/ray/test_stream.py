"""The Ray stream gives every rank its part of the same global batches, whatever happens.

The training function only writes down what it received, so the independent truth is the order
itself, which tests/unit/mixture proves.
"""

import json
import os
import signal
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import torch.distributed as dist
from ray.train import Checkpoint, FailureConfig, RunConfig, ScalingConfig, get_context, report
from ray.train.torch import TorchTrainer

from mixlens.mixture.order import order_of
from mixlens.mixture.stream import RayStream, make_cursor, stream_data_config, training_dataset
from mixlens.spec import RunSpec, SceneComponent, SceneSpec, SizeRange, TrainingSpec

pytestmark = pytest.mark.ray

# The workers cannot import this file.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

GLOBAL_BATCH = 8


def small_run(**training: int) -> RunSpec:
    large = SizeRange(name="large", diameter=(0.3, 0.4))
    scene = SceneSpec(image_size=32, objects=(1, 2), sizes=(large,))
    return RunSpec(
        model="none",
        components={
            "easy": SceneComponent(scene=scene, tasks={"coarse": 1}),
            "hard": SceneComponent(scene=scene, tasks={"coarse": 1}, seed=1, size=20),
        },
        weights={"easy": 0.7, "hard": 0.3},
        seed=3,
        training=TrainingSpec(steps=99, global_batch=GLOBAL_BATCH, micro_batch=2, **training),
    )


def collate(examples):
    return {"pixels": torch.tensor([int(example.image.sum()) for example in examples])}


def train(config: dict[str, Any]) -> None:
    """Read segments of steps and write what came; perhaps kill this process in the middle."""
    context = get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    run = RunSpec.model_validate_json(config["run"])
    shard = ray.train.get_dataset_shard("train")
    stream = RayStream(shard, run, rank, world_size, collate, config["cursor"])
    start = 0
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            start = int((Path(folder) / "step").read_text())
    seen = Path(config["seen"])
    for first, last in config["segments"]:
        first = max(first, start)
        for step, micros in enumerate(stream.steps(first, last), first):
            if [rank, step] == config.get("kill") and not (seen / "killed").exists():
                (seen / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            # Like a training step: no rank is ahead of another.
            dist.all_reduce(sum(micro.tensors["pixels"].sum() for micro in micros))
            record = {
                "from": first,
                "step": step,
                "ids": [i for micro in micros for i in micro.example_ids],
                "positions": [p for micro in micros for p in micro.positions],
                "replaced": [asdict(one) for micro in micros for one in micro.replaced],
            }
            with (seen / f"{world_size}-{rank}.jsonl").open("a") as file:
                print(json.dumps(record), file=file)
            if (step + 1) % config["checkpoint_every"] == 0:
                save(rank, step + 1)
    assert stream.waited > 0


def save(rank: int, step: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "step").write_text(str(step))
        report({"step": step}, Checkpoint.from_directory(folder) if rank == 0 else None)


def fit(folder: Path, run: RunSpec, workers: int, name: str, **config: Any) -> Path:
    seen = folder / f"seen-{name}"
    seen.mkdir(exist_ok=True)
    cursor = make_cursor()
    TorchTrainer(
        train,
        train_loop_config={
            "run": run.model_dump_json(),
            "cursor": cursor,
            "seen": str(seen),
            "checkpoint_every": 99,
            **config,
        },
        datasets={"train": training_dataset(run, cursor)},
        dataset_config=stream_data_config(),
        scaling_config=ScalingConfig(
            num_workers=workers, resources_per_worker={"CPU": 0.25}, use_gpu=False
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(folder / "storage"),
            failure_config=FailureConfig(max_failures=2, controller_failure_limit=2),
        ),
    ).fit()
    return seen


def global_batches(seen: Path) -> dict[tuple[int, int], list[tuple[int, str]]]:
    """(first step of the segment, step) -> sorted (position, example id) over all ranks."""
    batches = defaultdict(list)
    for file in sorted(seen.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            record = json.loads(line)
            batches[record["from"], record["step"]] += zip(
                record["positions"], record["ids"], strict=True
            )
    return {key: sorted(batch) for key, batch in batches.items()}


def expected(run: RunSpec, step: int) -> list[tuple[int, str]]:
    positions = range(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH)
    return [(p, "{}/{}".format(*order_of(run).at(p))) for p in positions]


@pytest.mark.parametrize("workers", [2, 4])
def test_global_batches_are_the_same_for_any_number_of_workers_and_start(
    ray_local, tmp_path, workers
):
    run = small_run()
    # The first needs several units a rank (64 rows each); the second starts inside one.
    segments = [(0, 33), (17, 20)]
    seen = fit(tmp_path, run, workers, "order", segments=segments)
    batches = global_batches(seen)
    assert sorted(batches) == sorted((f, step) for f, last in segments for step in range(f, last))
    for (_, step), batch in batches.items():
        assert batch == expected(run, step)


def test_a_killed_worker_and_another_number_of_workers_change_no_batch(ray_local, tmp_path):
    run = small_run()
    fit(tmp_path, run, 2, "killed", segments=[(0, 12)], kill=[1, 7], checkpoint_every=3)
    seen = fit(tmp_path, run, 1, "killed", segments=[(0, 15)], checkpoint_every=3)

    assert (seen / "killed").exists()
    batches = global_batches(seen)
    # 0-6 and the half of step 7 that rank 0 may have seen; 6-11 after the restart; 12-14 by one.
    starts = sorted({first for first, _ in batches})
    assert len(starts) == 3
    assert starts[0] == 0
    assert starts[1] in (3, 6)  # the last checkpoint may not have been committed before the kill
    assert starts[2] == 12
    for (_, step), batch in batches.items():
        assert batch == expected(run, step)
    final = [batch for (first, step), batch in batches.items() if first or step < starts[1]]
    consumed = [pair for batch in final for pair in batch]
    assert len(consumed) == len(set(consumed)) == 15 * GLOBAL_BATCH
    assert set(consumed) == {pair for step in range(15) for pair in expected(run, step)}
