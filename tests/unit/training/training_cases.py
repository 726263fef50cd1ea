"""A tiny model and a stream of random rows, for training tests in one process or several."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor

from mixlens.mixture.batches import MicroBatch
from mixlens.mixture.order import DRAWS_A_SEED
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import (
    LearningRates,
    LoraSpec,
    RunSpec,
    SceneComponent,
    TrainingSpec,
)
from mixlens.training import zero
from mixlens.training.context import FolderContext, WorkerContext, alone
from mixlens.training.loop import train
from mixlens.training.records import read_journal
from mixlens.training.sharded import load_trainable
from mixlens.training.zero import import_deepspeed

import_deepspeed()
zero.KEPT_WHOLE = 1000  # else stage 3 would gather nothing of a model this small
zero.SUB_GROUP = 5000  # and the optimiser would step over all of it at once

SEED = 5
STEPS, SAVED, CRASHED, GLOBAL_BATCH, MICRO_BATCH = 6, 3, 5, 8, 2
VISUAL_TOKENS = 64


class CrashError(Exception):
    """What the stream raises where a test wants a run to die."""


def example_id(position: int) -> str:
    """As the order of `run_of` has it: each example of the one component once."""
    return f"a/{SEED * DRAWS_A_SEED + position}"


@dataclass
class RandomStream:
    """Rows that are a pure function of their position; lengths, and so answer counts, differ."""

    training: TrainingSpec
    context: WorkerContext
    image_token: int
    crash_at: int | None = None

    def steps(self, first: int, last: int) -> Iterator[list[MicroBatch]]:
        size, workers = self.training.micro_batch, self.context.world_size
        accumulation = self.training.global_batch // (size * workers)
        for step in range(first, last):
            if step == self.crash_at:
                raise CrashError
            yield [
                self.rows(
                    step * self.training.global_batch + (j * workers + self.context.rank) * size,
                    size,
                )
                for j in range(accumulation)
            ]

    def rows(self, start: int, count: int) -> MicroBatch:
        positions = list(range(start, start + count))
        texts, images = zip(*(self.row(position) for position in positions), strict=True)
        length = max(len(text) for text in texts)
        ids = torch.zeros(count, length, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for i, text in enumerate(texts):
            ids[i, : len(text)] = text
            mask[i, : len(text)] = 1
            answers = slice(len(text) - 2 - positions[i] % 7, len(text))
            labels[i, answers] = text[answers]
        return MicroBatch(
            positions,
            [self.example_id(position) for position in positions],
            ["a"] * count,
            {
                "input_ids": ids,
                "attention_mask": mask,
                "labels": labels,
                "pixel_values": torch.stack(images),
            },
        )

    def example_id(self, position: int) -> str:
        return example_id(position)

    def row(self, position: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(position)
        words = torch.randint(10, 30, (10 + position % 5,), generator=generator)
        text = torch.cat([torch.full((VISUAL_TOKENS,), self.image_token), words])
        return text, torch.randn(3, 32, 32, generator=generator)


def model_folder(directory: Path) -> Path:
    folder = directory / "base"
    if not folder.exists():
        build_tiny_vlm(folder, ["red", "circle"], seed=0, size="test")
    return folder


def run_of(model: Path, stage: int = 0, lora: bool = False, **training: Any) -> RunSpec:
    """Three learning rates, warm-up, clipping that is active (norms are around 1)."""
    settings: dict[str, Any] = {
        "steps": STEPS,
        "global_batch": GLOBAL_BATCH,
        "micro_batch": MICRO_BATCH,
        "learning_rates": LearningRates(vision=1e-3, projector=3e-3, language=2e-3),
        "lora": LoraSpec(rank=4, alpha=16, dropout=0.1) if lora else None,
        "zero_stage": stage,
        "precision": "fp32",
        "warmup_steps": 2,
        "weight_decay": 0.1,
        "clip_norm": 0.5,
        "checkpoint_every": SAVED,
        "log_every": 1,
    } | training
    return RunSpec(
        model=str(model),
        components={"a": SceneComponent(tasks={"coarse": 1})},
        weights={"a": 1.0},
        seed=SEED,
        training=TrainingSpec(**settings),
    )


def run_in(context: WorkerContext, run: RunSpec, crash_at: int | None = None) -> list[float]:
    """Train in `context.directory`; the losses of all steps in its journal."""
    vlm = load_trainable(run, context)
    stream = RandomStream(run.training, context, vlm.adapter.image_token_id, crash_at)
    try:
        train(run, context, vlm, stream)
    except CrashError:
        assert crash_at is not None
    return losses(context.directory)


def run_alone(run: RunSpec, directory: Path, crash_at: int | None = None) -> list[float]:
    directory.mkdir(parents=True, exist_ok=True)
    return run_in(alone(directory), run, crash_at)


def losses(directory: Path) -> list[float]:
    records = read_journal(directory / "training.jsonl")
    assert [record["step"] for record in records] == list(range(1, len(records) + 1))
    return [record["loss"] for record in records]


def continued(crashed: Path, copy: Path) -> Path:
    """A copy of what a crash left, so that it can be continued in more than one way."""
    shutil.copytree(crashed, copy)
    return copy


CASES = [(stage, lora) for lora in (False, True) for stage in (0, 1, 2, 3)]


@dataclass(frozen=True)
class Case:
    """A run by one and two workers; `ways`: across which crashes it goes on."""

    stage: int
    lora: bool
    offload: tuple[str, ...] = ()
    ways: tuple[str, ...] = ("2-to-2", "1-to-2", "2-to-1")

    @property
    def name(self) -> str:
        return "-".join(("lora" if self.lora else "full", str(self.stage), *self.offload))

    def run(self, root: Path) -> RunSpec:
        return run_of(root / "base", self.stage, self.lora, **dict.fromkeys(self.offload, "cpu"))


BOTH = ("offload_optimizer", "offload_parameters")
MOVED = [
    Case(2, False, BOTH[:1], ("1-to-2", "2-to-1")),
    Case(3, False, BOTH, ("2-to-1",)),
    Case(3, True, BOTH, ("1-to-2",)),
]


def case_name(stage: int, lora: bool) -> str:
    return Case(stage, lora).name


def together(work: Callable[[int, Path], None], root: Path) -> None:
    """Run `work(rank, root)`, a function of a module, in two processes.

    If they wait for each other for ever, pytest's timeout ends this, and this ends them.
    """
    workers = multiprocessing.spawn(work, (root,), nprocs=2, join=False)
    try:
        while not workers.join():  # raises what a worker raised
            pass
    finally:
        for process in workers.processes:
            process.kill()


def pair(rank: int, root: Path) -> None:
    """Rank `rank` of two: every case until it crashes, after that, and after a crash of one."""

    def run_there(directory: Path, run: RunSpec, crash_at: int | None = None) -> None:
        directory.mkdir(exist_ok=True)
        run_in(FolderContext(rank, 2, rank, torch.device("cpu"), directory), run, crash_at)

    for case in [*(Case(*case) for case in CASES), *MOVED]:
        run, folder = case.run(root), root / case.name
        from_two = [way for way in case.ways if way.startswith("2")]
        if from_two:
            if rank == 0:
                folder.mkdir(exist_ok=True)
            dist.barrier()
            run_there(folder / "crash-2", run, CRASHED)
            if rank == 0:
                for way in from_two:
                    continued(folder / "crash-2", folder / way)
            dist.barrier()
        for way in case.ways:
            if way.endswith("2"):
                run_there(folder / way, run)
