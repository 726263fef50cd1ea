"""The training loop."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist

from mixlens.errors import DataError, explain
from mixlens.mixture.batches import MicroBatch, micro_positions
from mixlens.mixture.batches import accumulation as micro_batches_a_step
from mixlens.mixture.order import order_of
from mixlens.models import VLM
from mixlens.models.capture import keep
from mixlens.spec import RunSpec
from mixlens.training import checkpoint
from mixlens.training.context import WorkerContext
from mixlens.training.lora import add_lora
from mixlens.training.objective import (
    CROSS_ENTROPY,
    Pass,
    Term,
    before_answers,
    counts,
    losses,
    shares,
    weighted,
)
from mixlens.training.optimizer import adamw, freeze, parameter_groups, set_learning_rates
from mixlens.training.records import Interval, Journal, finish
from mixlens.training.replaced import Replaced
from mixlens.training.trained_on import TrainedOn
from mixlens.training.utilisation import ModelFlops
from mixlens.training.weights import save_model
from mixlens.training.zero import clip_unsharded, start_engine


class Stream(Protocol):
    """Where the loop gets its micro-batches from."""

    def steps(self, first: int, last: int) -> Iterator[list[MicroBatch]]:
        """This rank's micro-batches of the optimiser steps first to last - 1, a list a step."""
        ...


def train(
    run: RunSpec, context: WorkerContext, vlm: VLM, stream: Stream, added: Sequence[Term] = ()
) -> Path:
    """Fine-tune `vlm` as `run` says; returns the folder of the finished model.

    Every rank calls it. It continues from the newest checkpoint of the run, if there is one.
    The loss is the cross-entropy of the answers and the terms that are `added` to it. Each is a
    mean over the global batch, so the number of workers, the accumulation and interruptions change
    no result beyond rounding.

    A checkpoint is written after every `checkpoint_every` steps, also if these are the last. The
    end as such writes the model folder alone: a finished run is never continued.

    Raises:
        CheckpointError: the newest checkpoint is incomplete or of another run.
        SpecError: the workers cannot share a global batch evenly.
        DataError: a global batch without answers, a loss that is no number, too many photographs
            that turn out to be damaged, or other examples than those of the run's order.
    """
    training, world_size = run.training, context.world_size
    objective = (CROSS_ENTROPY, *added)
    asked_for = {place for term in objective for place in term.states}
    accumulation = micro_batches_a_step(run, world_size)

    # Where we left off. The stream takes seconds to start, so it starts before the model.
    latest = context.latest_checkpoint()
    first = checkpoint.read_record(latest, run.digest())["step"] if latest else 0
    steps = stream.steps(first, training.steps)
    order = order_of(run)

    # Model and optimiser.
    model = add_lora(vlm, training.lora, run.seed) if training.lora else vlm.model
    freeze(model, vlm.adapter.towers(model), training.freeze)
    if training.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        # It has the inputs require gradients, and by that frozen towers too would be run backwards.
        model.disable_input_require_grads()
    groups = parameter_groups(model, vlm.adapter.towers(model), training)
    model.train()
    engine = start_engine(model, adamw(groups, training), training, world_size, context.device)
    if latest:
        checkpoint.load(engine, latest, run.digest())
    journal = Journal(context, keep_until=first)
    replaced = Replaced(run, context, first)
    trained_on = TrainedOn(context, first)

    model_flops = ModelFlops(run, vlm.adapter, world_size, context.device)
    interval = Interval(context.device, model_flops.peak)
    for step in range(first, training.steps):
        asked_at = time.perf_counter()
        micro_batches = next(steps)
        interval.waited(time.perf_counter() - asked_at)
        rates = set_learning_rates(engine.optimizer, step, training)

        # Of the global batch: what each term is a mean over (answer tokens first), what the batch
        # consists of, and damaged images.
        counted = counts(objective, [rows.tensors for rows in micro_batches])
        own = [*counted, *trained_on.share(micro_batches), *replaced.note(micro_batches)]
        reduced = torch.tensor(own, device=context.device)
        dist.all_reduce(reduced)
        counted, (low, high, *of_each) = (
            part.tolist() for part in reduced.tensor_split([len(objective)])
        )
        trained_on.note(low, high)
        replaced.check(of_each, step + 1)
        check_answers(counted[0], step)

        means = torch.zeros(len(objective), device=context.device)
        for j, rows in enumerate(micro_batches):
            due = micro_positions(run, context.rank, world_size, step * accumulation + j)
            assert rows.positions == list(due), f"rows {rows.positions} came instead of {due}"
            # Dropout is a function of the rows, whichever worker has them and after any resume.
            torch.manual_seed(run.seed << 34 ^ rows.positions[0])
            batch = {name: value.to(context.device) for name, value in rows.tensors.items()}
            before = before_answers(batch["labels"])
            inputs = vlm.adapter.model_inputs(batch)
            with keep(vlm, asked_for) as states:
                logits = engine(**inputs, use_cache=False, logits_to_keep=before).logits
            share = shares(objective, Pass(batch, before, logits, states), counted)
            # DeepSpeed divides by the accumulation and averages over workers: undo both.
            engine.backward(weighted(objective, share) * world_size * accumulation)
            if j == accumulation - 1:
                norm = clip_unsharded(engine, training.clip_norm)
            engine.step()
            means += share.detach()
            interval.saw(rows.tensors["attention_mask"], model_flops(rows.tensors))

        done = step + 1
        logs = done % training.log_every == 0 or done in (1, training.steps)
        saves = done % training.checkpoint_every == 0
        metrics: dict[str, Any] = {"step": done}
        if logs:
            dist.all_reduce(means)
            metrics |= losses(objective, means)
            metrics |= {f"learning_rate/{tower}": rate for tower, rate in rates.items()}
            metrics["grad_norm"] = float(engine.get_global_grad_norm() if norm is None else norm)
            metrics |= interval.close(images=training.global_batch)
            seen = order.counts(done * training.global_batch)
            metrics |= {f"examples/{component}": count for component, count in seen.items()}
            metrics |= {} if replaced.total is None else {"replaced": replaced.total}
            metrics["trained_on"] = trained_on.write()
            check_finite(metrics, training.learning_rates.model_dump())
            journal.write(metrics)
        folder = None
        if saves:
            trained_on.write()
            folder = context.checkpoint_folder(done)
            checkpoint.save(engine, folder, done, run.digest())
        if logs or saves:
            context.report(metrics, folder)
        if saves:
            interval.restart()  # saving is no training time
    assert next(steps, None) is None, "the stream went on after its last step"

    model_folder = save_model(engine, vlm, context.directory)
    if context.rank == 0:
        replaced.write_table()
        finish(run, context.directory)
    dist.barrier()
    return model_folder


def check_answers(answers: int, step: int) -> None:
    """Refuse a step that nothing can be learned from."""
    if answers == 0:
        raise DataError(
            explain(f"training step {step + 1}", answers, "the global batch has no answer tokens",
                    "Give the components tasks whose turns have answers.")
        )  # fmt: skip


def check_finite(metrics: dict[str, Any], rates: dict[str, float]) -> None:
    """Stop a run whose loss or gradient is no number any more."""
    values = torch.tensor([metrics["loss"], metrics["grad_norm"]])
    if not bool(values.isfinite().all()):
        raise DataError(
            explain(
                f"training step {metrics['step']}", metrics["loss"], "the loss is no number",
                f"Lower the learning rates ({rates}) or clip_norm, or add warmup_steps.",
            )
        )  # fmt: skip
