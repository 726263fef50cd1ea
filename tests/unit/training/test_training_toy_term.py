"""A loss term of one's own, in one file: the visual tokens of an image shall not be alike."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from training_cases import example_id, model_folder, run_of, together

from mixlens.mixture.batches import MicroBatch, micro_batch, micro_positions
from mixlens.models import Batch, load_vlm
from mixlens.models.turns import IMAGE_OF_TOKEN
from mixlens.sources.example import NO_IMAGE, Example
from mixlens.spec import RunSpec
from mixlens.tasks.turn import Turn
from mixlens.training.context import FolderContext, WorkerContext, alone
from mixlens.training.loop import train
from mixlens.training.objective import Pass, Term
from mixlens.training.records import read_journal
from mixlens.training.sharded import load_trainable

BATCH, STEPS = 8, 4
MIDDLE = ("language", 1)


def images_in(batch: Batch) -> Tensor:
    of = batch[IMAGE_OF_TOKEN]
    return torch.tensor(len(of[of >= 0].unique()), device=of.device)


def likeness(seen: Pass) -> Tensor:
    """The mean cosine of all pairs of an image's tokens, summed over images."""
    of, states = seen.batch[IMAGE_OF_TOKEN], seen.states[MIDDLE].float()
    units = torch.nn.functional.normalize(states[of >= 0], dim=-1)
    _, number = of[of >= 0].unique(return_inverse=True)
    count = int(images_in(seen.batch))
    sums = units.new_zeros(count, units.shape[-1]).index_add(0, number, units)
    return (sums / number.bincount(minlength=count)[:, None]).square().sum()


LIKENESS = Term("likeness", images_in, likeness, weight=3.0, states=(MIDDLE,))


def example(place: int) -> Example:
    """Three of eight are text alone, so that ranks and micro-batches differ in images."""
    random = np.random.default_rng(place)
    shows = place % 8 < 5
    picture = random.integers(0, 255, (32, 32, 3), np.uint8) if shows else NO_IMAGE
    turns = (Turn("what ?", "red " * (1 + place % 3), "coarse", "k", 1, "p"),) * (1 + place % 2)
    return Example(example_id(place), "a", picture, turns, {})


@dataclass
class Examples:
    run: RunSpec
    context: WorkerContext
    adapter: object

    def steps(self, first: int, last: int) -> Iterator[list[MicroBatch]]:
        size, workers = self.run.training.micro_batch, self.context.world_size
        each = BATCH // (size * workers)
        for micro in range(first * each, last * each, each):
            places = [
                list(micro_positions(self.run, self.context.rank, workers, micro + j))
                for j in range(each)
            ]
            yield [
                micro_batch(here, [example(place) for place in here], self.adapter.training_batch)
                for here in places
            ]


def journal(root: Path, context: WorkerContext, *added: Term, **training) -> list[dict]:
    context.directory.mkdir(exist_ok=True)
    run = run_of(root / "base", steps=STEPS, global_batch=BATCH, **training)
    vlm = load_trainable(run, context)
    train(run, context, vlm, Examples(run, context, vlm.adapter), added)
    return read_journal(context.directory / "training.jsonl")


def pair(rank: int, root: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{root}/meeting", rank=rank, world_size=2)
    context = FolderContext(rank, 2, rank, torch.device("cpu"), root / "two")
    journal(root, context, LIKENESS, stage=3)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("toy")
    model_folder(folder)
    return folder


@pytest.fixture(scope="module")
def whole(root: Path) -> list[dict]:
    """Of the global batch at once."""
    return journal(root, alone(root / "one"), LIKENESS, micro_batch=BATCH)


def test_the_first_step_reports_what_a_plain_pass_gives(root: Path, whole: list[dict]) -> None:
    vlm, cosines = load_vlm(str(root / "base")), []
    for picture in [example(place).image for place in range(5)]:
        batch = vlm.adapter.image_batch([picture])
        with torch.no_grad():
            states = vlm.model(**batch, output_hidden_states=True).hidden_states[1]
        tokens = states[batch["input_ids"] == vlm.adapter.image_token_id]
        cosines.append(torch.nn.functional.cosine_similarity(tokens[:, None], tokens, dim=-1))
    expected = torch.stack(cosines).mean().item()
    first = whole[0]
    assert first["loss/likeness"] == pytest.approx(expected, abs=1e-5)
    for step in whole:
        parts = step["loss/cross_entropy"] + 3 * step["loss/likeness"]
        assert step["loss"] == pytest.approx(parts, abs=1e-5)


def test_it_is_learned(root: Path, whole: list[dict]) -> None:
    weightless = journal(root, alone(root / "none"), replace(LIKENESS, weight=0.0))
    plain = journal(root, alone(root / "plain"))
    assert [step["loss"] for step in weightless] == [step["loss"] for step in plain]
    assert "loss/cross_entropy" not in plain[0]  # it is `loss` where it is the only one
    assert whole[-1]["loss/likeness"] < weightless[-1]["loss/likeness"] - 0.01


def test_workers_accumulation_and_recomputation_do_not_matter(
    root: Path, whole: list[dict]
) -> None:
    together(pair, root)
    found = {
        "two workers": read_journal(root / "two" / "training.jsonl"),
        "accumulation": journal(root, alone(root / "micro"), LIKENESS, micro_batch=2, stage=2),
        "recomputation": journal(
            root, alone(root / "again"), LIKENESS, activation_checkpointing=True, stage=3
        ),
    }
    for way, steps in found.items():
        for name in ("loss", "loss/cross_entropy", "loss/likeness"):
            expected = [step[name] for step in whole]
            assert [step[name] for step in steps] == pytest.approx(expected, abs=1e-5), way
