"""What a trial of a sweep costs: memory, operations and hours, estimated before it starts."""

from typing import Literal

import torch

from mixlens.mixture.batches import Reader
from mixlens.mixture.decoding import Decoder
from mixlens.models import load_without_weights
from mixlens.spec import RunSpec
from mixlens.training.cost.devices import peak_flops
from mixlens.training.cost.fits import GIB, check_fits
from mixlens.training.cost.flops import step_flops
from mixlens.training.cost.setting import setting_of
from mixlens.training.cost.shape import shape_of
from mixlens.training.cost.summary import summary, sweep_hours
from mixlens.training.cost.tokens import padding_share, tokens_of

LOOKED_AT = 16  # examples, at least, whose tokens are counted


def estimate_cost(runs: tuple[RunSpec, ...], pending: int) -> list[tuple[str, str]]:
    """Label and text of what one trial takes, and of all that are pending.

    Tokens are those of the first examples of the first and the last run, whichever have more. All
    workers are reckoned to be on one node.

    Raises:
        ResourceError: a GPU of `resources.gpu_memory_gb` cannot hold it; the message says what can.
        CheckpointError: the model has no configuration or processor here.
    """
    run = runs[-1]
    resources = run.resources
    vlm = load_without_weights(run.model)
    adapter = vlm.adapter
    counted = []
    for one in {one.digest(): one for one in (runs[0], run)}.values():
        micro = one.training.micro_batch
        positions = range(micro * -(-LOOKED_AT // micro))
        examples, _ = Decoder(one, adapter.refuses)(positions, Reader(one)(positions))
        batches = [
            adapter.training_batch(examples[first : first + micro], run.training.unmasked)
            for first in range(0, len(examples), micro)
        ]
        largest = max(batches, key=lambda batch: batch["labels"].numel())
        padding = sum(map(padding_share, batches)) / len(batches)
        counted.append((tokens_of(adapter, largest, micro), padding))
    tokens, padding = max(counted, key=lambda found: found[0].decoder)
    shape = shape_of(vlm.model, adapter.towers(vlm.model))
    on_gpu = resources.gpus_per_worker > 0
    device: Literal["cpu", "cuda"] = "cuda" if on_gpu else "cpu"
    setting = setting_of(run.training, device, resources.workers, resources.workers)
    there = None
    if on_gpu and resources.gpu_memory_gb:
        there = resources.gpu_memory_gb * GIB * min(1.0, resources.gpus_per_worker)
    check_fits(shape, tokens, setting, there)
    rows = summary(shape, tokens, setting, there)
    rows.append(("padding", f"{padding:.1%} of the positions of a batch"))
    if on_gpu:
        work = step_flops(shape, tokens, setting, rows=run.training.global_batch).model
        name, peak = _gpu(resources.gpu)
        hours = sweep_hours(work * run.training.steps, pending, peak, name)
        rows.append(("GPU hours", f"{hours.sentence}; measuring comes on top"))
    return rows


def _gpu(name: str | None) -> tuple[str, float | None]:
    """The GPU that is asked for, or the one that is here, and its peak."""
    if name is None and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    if name is None:
        return "a GPU without a name (resources.gpu)", None
    return name, peak_flops(name)
