"""What a sweep will do, before it does it: trials, examples, steps, time, disk."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mixlens.errors import ResourceError, SpecError, explain
from mixlens.mixture.order import order_of
from mixlens.models import load_vllm, resolve_model
from mixlens.sources import open_source
from mixlens.spec import Layout, RunSpec, SweepSpec

OPTIMIZER_BYTES = 12  # fp32 weight and two moments of AdamW, a trained parameter
KEPT_CHECKPOINTS = 2  # the newest, and the one being written
SPARE_BYTES = 200_000_000  # tables, figures, logs, MLflow
# Measured on the built-in model: answers and activations of a held-out image cost about as much as
# training on four images.
MEASURED_IMAGE = 4.0


@dataclass(frozen=True)
class Plan:
    """The resolved plan of a sweep.

    Attributes:
        runs: every trial, in the order of the file.
        finished: names of those with a record, which will not run again.
        examples: training examples of each component, for each run.
        parameters: of the base model, in millions.
        seconds_a_step: of one optimiser step on one CPU core here; None where GPUs will train.
        disk_bytes: what the remaining trials will need, at most.
    """

    runs: tuple[RunSpec, ...]
    finished: frozenset[str]
    examples: dict[str, dict[str, int]]
    parameters: float
    seconds_a_step: float | None
    disk_bytes: int

    @property
    def pending(self) -> tuple[RunSpec, ...]:
        return tuple(run for run in self.runs if run.name not in self.finished)

    def seconds_a_trial(self) -> float | None:
        """Worker seconds of one trial: its training, and its measurement."""
        if self.seconds_a_step is None:
            return None
        training, evaluation = self.runs[0].training, self.runs[0].evaluation
        image = self.seconds_a_step / training.global_batch
        workers = self.runs[0].resources.workers
        return training.steps * self.seconds_a_step / workers + (
            MEASURED_IMAGE * evaluation.examples * image
        )


def plan_sweep(spec: SweepSpec, time_a_step: bool) -> Plan:
    """Work out the plan; with `time_a_step`, train one micro-batch here to see how long it takes.

    Raises:
        SpecError: a component whose scenes cannot be made.
        CheckpointError: the base model is not there or not loadable.
    """
    for name, component in spec.components.items():
        try:
            open_source(name, component)
        except SpecError as error:
            raise SpecError(f"components.{name}: {error}") from None
    layout, runs = Layout.of(spec), spec.runs()
    finished = frozenset(run.name for run in runs if layout.finished(run))
    parameters = _parameters(spec.model)
    total = spec.training.steps * spec.training.global_batch
    trained = parameters * (0.02 if spec.training.lora else 1.0)
    per_trial = 4 * parameters + KEPT_CHECKPOINTS * OPTIMIZER_BYTES * trained
    on_gpu = spec.resources.gpus_per_worker > 0
    return Plan(
        runs=runs,
        finished=finished,
        examples={run.name: order_of(run).counts(total) for run in runs},
        parameters=parameters / 1e6,
        seconds_a_step=_seconds_a_step(runs[-1]) if time_a_step and not on_gpu else None,
        disk_bytes=int(per_trial * (len(runs) - len(finished))) + SPARE_BYTES,
    )


def check_disk(plan: Plan, root: Path) -> None:
    """Refuse to start what the disk below `root` cannot hold."""
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < plan.disk_bytes:
        raise ResourceError(
            explain(
                f"disk of {root}",
                f"{free / 1e9:.1f} GB free",
                f"the sweep may need {plan.disk_bytes / 1e9:.1f} GB",
                "Free some, or set runs_dir to a larger disk.",
            )
        )


def _parameters(model: str) -> float:
    """Parameters of the model, from the headers of its safetensors files, which hold all shapes.

    A hub id that is not on this machine counts as unknown: 0.
    """
    folder = Path(resolve_model(model))
    total = 0
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as weights:
            header: dict[str, Any] = json.loads(
                weights.read(int.from_bytes(weights.read(8), "little"))
            )
        for name, tensor in header.items():
            if name != "__metadata__":
                total += int(torch.Size(tensor["shape"]).numel())
    return float(total)


def _seconds_a_step(run: RunSpec) -> float:
    """Time one micro-batch forwards and backwards on one core, scaled to an optimiser step."""
    vllm = load_vllm(run.model)
    order = order_of(run)
    sources = {name: open_source(name, component) for name, component in run.components.items()}
    examples = [
        sources[name][index] for name, index in map(order.at, range(run.training.micro_batch))
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seconds = []
    for _ in range(2):  # the first one also allocates
        start = time.perf_counter()
        batch = vllm.adapter.training_batch(examples)
        with torch.autocast("cpu", torch.bfloat16, enabled=run.training.precision == "bf16"):
            loss = vllm.model(**batch).loss
        loss.backward()
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return min(seconds) * run.training.global_batch / run.training.micro_batch
