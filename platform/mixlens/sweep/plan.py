"""What a sweep will do, before it does it: trials, examples, steps, time, disk."""

import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from mixlens.activations.token_metrics import SUBSPACE
from mixlens.design import Layout, SweepSpec, Trial, asked_trials, sweep_trials
from mixlens.errors import CheckpointError, ResourceError, SpecError, explain
from mixlens.evaluation.serving import check_engine
from mixlens.measurement import is_finished
from mixlens.mixture.batches import Reader
from mixlens.mixture.decoding import Decoder
from mixlens.mixture.order import order_of
from mixlens.mixture.refused import refused
from mixlens.models import (
    load_adapter,
    load_vlm,
    load_without_weights,
    model_config,
    model_folder,
    resolve_model,
)
from mixlens.models.folder import tensor_shapes, weight_files
from mixlens.models.precision import computes_in_bf16
from mixlens.probing.deletion import check_deletion
from mixlens.probing.settings import settings as deletion_settings
from mixlens.spec import MeasureSpec, RunSpec
from mixlens.sweep.cost import estimate_cost
from mixlens.sweep.known import open_component
from mixlens.training.replaced import FEW

WEIGHT_BYTES = 4  # of the final model, a trained parameter
LORA_SHARE = 0.02  # of the parameters are trained by LoRA, at most, and only these are written
OPTIMIZER_BYTES = 12  # fp32 weight and two moments of AdamW, a trained parameter
KEPT_CHECKPOINTS = 2  # the newest, and the one being written
SPARE_BYTES = 200_000_000  # tables, figures, logs, MLflow
# Measured on the built-in model, in images trained on: answers and activations of a held-out image;
# its linear probes; and its answers in one setting of deletion.
MEASURED_IMAGE = 5.0
PROBED_IMAGE = 3.0
DELETED_IMAGE = 1.5


@dataclass(frozen=True)
class Plan:
    """The resolved plan of a sweep.

    Attributes:
        spec: the resolved file.
        trials: every trial that the file names or the folder holds, in the design's order.
        finished: names of those with a record, which will not run again.
        examples: training examples of each component, for each trial.
        parameters: of the base model, in millions; None where its weights are not on this machine.
        seconds_a_step: of one optimiser step on one CPU core here; None where GPUs will
            train, or the model is not here.
        cost: label and text of what a trial takes, by estimate.
        disk_bytes: what the remaining trials will need, at most; None if `parameters` is.
    """

    spec: SweepSpec
    trials: tuple[Trial, ...]
    finished: frozenset[str]
    examples: dict[str, dict[str, int]]
    parameters: float | None
    seconds_a_step: float | None
    cost: tuple[tuple[str, str], ...]
    disk_bytes: int | None

    @property
    def pending(self) -> tuple[Trial, ...]:
        return tuple(trial for trial in self.trials if trial.name not in self.finished)

    def seconds_a_trial(self) -> float | None:
        """Worker seconds of one trial: its training, and its measurement."""
        if self.seconds_a_step is None:
            return None
        training, evaluation = self.spec.training, self.spec.evaluation
        image = self.seconds_a_step / training.global_batch
        workers = self.spec.resources.workers
        measured = MEASURED_IMAGE * evaluation.examples
        if evaluation.probes:
            measured += PROBED_IMAGE * evaluation.examples
        if deletion := evaluation.deletion:
            images = min(deletion.examples or evaluation.examples, evaluation.examples)
            measured += DELETED_IMAGE * images * len(deletion_settings(deletion))
        return training.steps * self.seconds_a_step / workers + measured * image


def plan_sweep(spec: SweepSpec, time_a_step: bool) -> Plan:
    """Work out the plan; with `time_a_step`, train one micro-batch here to see how long it takes.

    Raises:
        CheckpointError: the base model is not there or not loadable.
        ResourceError: a trial does not fit the GPUs that the file names.
    """
    layout = Layout.of(spec)
    asked = asked_trials(spec)
    names = {trial.name for trial in asked}
    # Trials that the file no longer names stay where they are trained; others are not gone on with.
    trials = tuple(
        trial
        for trial in sweep_trials(spec, layout)
        if trial.name in names or layout.trained(trial)
    )
    finished = frozenset(trial.name for trial in trials if is_finished(spec, layout.root, trial))
    to_train = sum(not layout.trained(trial) for trial in trials)
    parameters = _parameters(spec.model)
    total = spec.training.steps * spec.training.global_batch
    # Never on GPUs that may be elsewhere, and never by fetching gigabytes.
    can_be_timed = parameters is not None and spec.resources.gpus_per_worker == 0
    return Plan(
        spec=spec,
        trials=trials,
        finished=finished,
        examples={trial.name: order_of(trial.run).counts(total) for trial in trials},
        parameters=None if parameters is None else parameters / 1e6,
        seconds_a_step=_seconds_a_step(asked[-1].run) if time_a_step and can_be_timed else None,
        cost=tuple(estimate_cost(tuple(trial.run for trial in asked), to_train)),
        disk_bytes=_disk_bytes(spec, parameters, to_train),
    )


def check_evaluation(spec: SweepSpec | MeasureSpec) -> None:
    """Refuse to measure what the held-out images or the model do not have.

    Raises:
        SpecError: too few held-out photographs, or a deletion that the model's family does not
            give (`check_deletion`).
        MixlensError: an engine for answers that cannot be had (`check_engine`).
    """
    check_engine(spec)
    evaluation = spec.evaluation
    for name in filter(None, (evaluation.component, evaluation.transfer)):
        source = open_component(spec, name)
        if source.held_out_size is None:
            continue
        gone = refused(source, load_adapter(spec.model).refuses, held_out=True)
        there = source.held_out_size - len(gone)
        if there < evaluation.examples:
            taken = f" and that {spec.model} takes (not {_first(gone)})" if gone else ""
            raise SpecError(
                explain("evaluation.examples", evaluation.examples,
                        f"component {name!r} has {there} held-out images that carry its tasks"
                        + taken,
                        "Give fewer (at least 8), hold out more, or widen its strata or tasks.")
            )  # fmt: skip
    if evaluation.deletion:
        check_deletion(load_without_weights(spec.model), evaluation.deletion)


def refused_photographs(spec: SweepSpec | MeasureSpec) -> list[tuple[str, str]]:
    """Component and text of the photographs that the model cannot be given.

    Raises:
        SpecError: there are so many of them among those to train on that a trial would stop.
    """
    lines = []
    for name in spec.components:
        source, refuses = open_component(spec, name), load_adapter(spec.model).refuses
        if gone := refused(source, refuses, held_out=True):
            lines.append((name, f"{len(gone):,} held-out images are left out, because {spec.model} "
                          f"cannot be given them: {_first(gone)}"))  # fmt: skip
        if isinstance(spec, SweepSpec) and (gone := refused(source, refuses)):
            _check_refused(spec, name, gone)
            lines.append((name, f"in place of {len(gone):,} images others are trained on, because "
                          f"{spec.model} cannot be given them: {_first(gone)}"))  # fmt: skip
    return lines


def _check_refused(spec: SweepSpec, name: str, gone: Mapping[int, str]) -> None:
    """Refuse what `mixlens.training.replaced` would stop in the middle of a trial."""
    size, data = open_component(spec, name).size, spec.components[name].data_set
    assert size, "images of files are finite"
    assert data, "images of files come from a data set"
    limit = spec.data[data].max_left_out
    total = spec.training.steps * spec.training.global_batch
    drawn = max(order_of(trial.run).counts(total).get(name, 0) for trial in asked_trials(spec))
    share = len(gone) / size
    if len(gone) < size and (share <= limit or share * drawn < FEW):
        return
    raise SpecError(
        explain(f"data.{data}.max_left_out", limit, f"{spec.model} cannot be given {len(gone):,} "
                f"of the {size:,} images of component {name!r} ({share:.1%}): {_first(gone)}",
                "Raise this limit, take them out of the annotations, or choose another model.")
    )  # fmt: skip


def _first(gone: Mapping[int, str], shown: int = 5) -> str:
    more = f" and {len(gone) - shown:,} more" if len(gone) > shown else ""
    return ", ".join(list(gone.values())[:shown]) + more


def check_disk(plan: Plan, root: Path) -> None:
    """Refuse to start what the disk below `root`, the sweep's directory, cannot hold.

    Raises:
        ResourceError: there is less room than the plan needs.
    """
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    free, needed = shutil.disk_usage(existing).free, plan.disk_bytes or SPARE_BYTES
    if free < needed:
        raise ResourceError(
            explain(
                "runs_dir",
                str(root.parent),
                f"the sweep may need {needed / 1e9:.1f} GB there and {free / 1e9:.1f} GB are free",
                "Free some, or set runs_dir to a folder on a larger disk.",
            )
        )


def _disk_bytes(spec: SweepSpec, parameters: float | None, trials: int) -> int | None:
    """Space for the models and checkpoints of so many trials, and the base's subspaces."""
    if parameters is None:
        return None
    trained = parameters * (LORA_SHARE if spec.training.lora else 1.0)
    per_trial = trained * (WEIGHT_BYTES + KEPT_CHECKPOINTS * OPTIMIZER_BYTES)
    return int(per_trial * trials) + _subspace_bytes(spec) + SPARE_BYTES


def _subspace_bytes(spec: SweepSpec) -> int:
    """Size of the base's subspace files: in float16, for each image, stream and layer."""
    config = model_config(spec.model)
    text, vision = config.get_text_config(), config.vision_config
    states = 2 * (text.num_hidden_layers + 1) * text.hidden_size  # at visual and at text tokens
    width = states + vision.hidden_size + 3 * load_adapter(spec.model).cell_side() ** 2
    return 2 * SUBSPACE * width * spec.evaluation.examples


def _parameters(model: str) -> float | None:
    """Parameters of the model, from the headers of its safetensors files, which hold all shapes.

    None for a hub id whose weights are not, or not all, on this machine.

    Raises:
        CheckpointError: a folder whose weights are missing, incomplete or damaged.
    """
    folder = model_folder(model)
    if folder is None:
        return None
    try:
        shapes = tensor_shapes(weight_files(folder))
    except CheckpointError:
        if str(folder) != resolve_model(model):  # the hub's cache
            return None
        raise
    return float(sum(map(math.prod, shapes.values())))


def _seconds_a_step(run: RunSpec) -> float:
    """Time one micro-batch forwards and backwards on one core, scaled to an optimiser step."""
    vlm = load_vlm(run.model)
    positions = range(run.training.micro_batch)
    examples, _ = Decoder(run, vlm.adapter.refuses)(positions, Reader(run)(positions))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = []
    for _ in range(2):  # the first one also allocates
        start = time.perf_counter()
        batch = vlm.adapter.training_batch(examples)
        in_bf16 = computes_in_bf16(run.training.precision, "cpu")
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            loss = vlm.model(labels=batch["labels"], **vlm.adapter.model_inputs(batch)).loss
        loss.backward()
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return min(seconds) * run.training.global_batch / run.training.micro_batch
