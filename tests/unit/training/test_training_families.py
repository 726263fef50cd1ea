"""Every family through the training loop: ZeRO-2 and ZeRO-3, LoRA and full, one process and two."""

import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from tiny_families import FAMILIES, build
from training_cases import example_id, run_of
from transformers import AutoModelForImageTextToText, AutoProcessor

from mixlens.mixture.batches import MicroBatch, micro_batch
from mixlens.models import VLM, load_vlm
from mixlens.sources.example import NO_IMAGE, Example
from mixlens.spec import RunSpec
from mixlens.tasks.turn import Turn
from mixlens.training.context import FolderContext, WorkerContext, alone
from mixlens.training.loop import train
from mixlens.training.objective import answer_loss_sum
from mixlens.training.records import read_journal
from mixlens.training.sharded import load_trainable

pytestmark = pytest.mark.slow

CASES = [(stage, lora) for stage in (2, 3) for lora in (False, True)]
SIZES = ((48, 48), (100, 60), (24, 64), None)  # None: text alone


def example(place: int, size: tuple[int, int] | None) -> Example:
    random = np.random.default_rng(place)
    picture = random.integers(0, 255, (*size, 3), np.uint8) if size else NO_IMAGE
    turns = [("what colour is it ?", "red"), ("how many are there ?", "two or three")]
    made = tuple(Turn(asked, said, "coarse", "k", 1, "p") for asked, said in turns)
    return Example(example_id(place), "a", picture, made[: 1 + place % 2], {})


@dataclass
class ExampleStream:
    """One step; each rank has two examples of its own sizes."""

    vlm: VLM
    rank: int
    sizes: tuple[tuple[int, int] | None, ...]

    def steps(self, first: int, last: int) -> Iterator[list[MicroBatch]]:
        for step in range(first, last):
            start = step * len(self.sizes) + 2 * self.rank
            places = [start, start + 1]
            sizes = self.sizes[2 * self.rank :]
            examples = [example(place, size) for place, size in zip(places, sizes, strict=False)]
            yield [micro_batch(places, examples, self.vlm.adapter.training_batch)]


@pytest.fixture(autouse=True, scope="module")
def few_objects() -> Iterator[None]:
    """ZeRO-3 collects garbage at every start; what other tests left need not be looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("families") / request.param
    build(request.param, folder)
    return folder


def case(folder: Path, stage: int, lora: bool, batch: int, **training) -> RunSpec:
    rates = {"vision": 1e-3, "projector": 1e-3, "language": 1e-3, "cross_attention": 1e-3}
    return run_of(
        folder, stage, lora, steps=1, global_batch=batch, micro_batch=2, warmup_steps=0,
        learning_rates=rates, weight_decay=0.0, checkpoint_every=1, **training,
    )  # fmt: skip


def run(spec: RunSpec, context: WorkerContext, sizes: tuple) -> Path:
    vlm = load_trainable(spec, context)
    return train(spec, context, vlm, ExampleStream(vlm, context.rank, sizes))


@torch.no_grad()
def logits(model: torch.nn.Module, vlm: VLM) -> torch.Tensor:
    model.eval()
    return model(**vlm.adapter.question_batch([example(7, (48, 48)).image], ["what ?"])).logits


@pytest.mark.parametrize(("stage", "lora"), CASES, ids=lambda value: str(value))
def test_a_step_moves_what_has_a_gradient_and_nothing_else(family, tmp_path, stage, lora):
    """And the folder that is left gives plain transformers, or peft, the same model."""
    frozen = ("vision",) if stage == 2 and not lora else ()
    spec = case(family, stage, lora, 2, freeze=frozen)
    folder = run(spec, alone(tmp_path), SIZES[:2])
    before = load_vlm(str(family))
    trained = load_vlm(str(folder))
    if lora:
        from peft import PeftModel  # imports torchvision, which mixlens.models makes possible

        base = AutoModelForImageTextToText.from_pretrained(family)
        plain = PeftModel.from_pretrained(base, folder)
        moved = {
            name.removeprefix("base_model.model.").split(".lora_")[0] + ".weight"
            for name, weight in trained.model.named_parameters()
            if ".lora_B" in name and weight.abs().max() > 0
        }
        linear = {
            f"{name}.weight"
            for name, module in before.model.named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        may = linear - {"lm_head.weight"}
    else:
        plain = AutoModelForImageTextToText.from_pretrained(folder)
        after = dict(trained.model.named_parameters())
        moved = {
            name for name, weight in before.model.named_parameters()
            if not torch.equal(weight, after[name])
        }  # fmt: skip
        still = {
            id(weight)
            for part in before.adapter.towers(before.model)["vision"]
            for weight in part.parameters()
        } - {
            id(weight)
            for part in before.adapter.towers(before.model)["projector"]
            for weight in ([part] if isinstance(part, torch.nn.Parameter) else part.parameters())
        }
        may = {
            name for name, weight in before.model.named_parameters()
            if not (frozen and id(weight) in still)
        }  # fmt: skip
    assert moved == may & with_gradient(before)
    # Ours attends in plain products, theirs by the fused kernel.
    torch.testing.assert_close(
        logits(plain, before), logits(trained.model, before), rtol=1e-4, atol=1e-4
    )
    assert not torch.equal(logits(plain, before), logits(before.model, before))
    AutoProcessor.from_pretrained(folder)
    (record,) = read_journal(tmp_path / "training.jsonl")
    assert np.isfinite(record["loss"])


def with_gradient(vlm: VLM) -> set[str]:
    """Parameters that a plain backward pass over the same examples reaches."""
    examples = [example(place, SIZES[place]) for place in (0, 1)]
    batch = vlm.adapter.training_batch(examples)
    labels = batch.pop("labels")
    vlm.model.train()
    logits = vlm.model(**vlm.adapter.model_inputs(batch)).logits
    answer_loss_sum(logits[:, :-1], labels[:, 1:]).backward()
    return {
        name
        for name, weight in vlm.model.named_parameters()
        if weight.grad is not None and bool(weight.grad.abs().max() > 0)
    }


def pair(rank: int, root: Path) -> None:
    """Rank `rank` of two, of which one may have images and the other none."""
    torch.set_num_threads(1)
    gc.freeze()
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", f"file://{root}/meeting", rank=rank, world_size=2)
    for family in FAMILIES:
        for number, sizes in enumerate(MIXED):
            directory = root / f"{family}-{number}"
            directory.mkdir(exist_ok=True)
            context = FolderContext(rank, 2, rank, torch.device("cpu"), directory)
            run(case(root / family, 3, lora=number == 1, batch=4), context, sizes)
    dist.destroy_process_group()


# Two examples of rank 0, two of rank 1. Adapters start as nothing, so that the loss is the model's.
MIXED = (
    ((48, 48), (100, 60), None, None),
    ((24, 64), (100, 60), (48, 48), None),
)


@pytest.mark.timeout(1800)
def test_ranks_with_and_without_images_go_on_together(tmp_path):
    """Under ZeRO-3, where a rank that ran other modules than the others would wait for ever."""
    for family in FAMILIES:
        build(family, tmp_path / family)
    multiprocessing.spawn(pair, (tmp_path,), nprocs=2)
    for family in FAMILIES:
        for number, sizes in enumerate(MIXED):
            (record,) = read_journal(tmp_path / f"{family}-{number}/training.jsonl")
            vlm = load_vlm(str(tmp_path / family))
            assert record["loss"] == pytest.approx(mean_loss(vlm, sizes), abs=1e-4)


@torch.no_grad()
def mean_loss(vlm: VLM, sizes: tuple) -> float:
    """Of all answer tokens, each rank's examples in a batch of their own."""
    total, answers = torch.zeros(()), 0
    vlm.model.train()
    for rank in (0, 1):
        (step,) = ExampleStream(vlm, rank, sizes).steps(0, 1)
        batch = dict(step[0].tensors)
        labels = batch.pop("labels")
        logits = vlm.model(**vlm.adapter.model_inputs(batch)).logits
        total += answer_loss_sum(logits[:, :-1], labels[:, 1:])
        answers += int((labels[:, 1:] >= 0).sum())
    return float(total) / answers
