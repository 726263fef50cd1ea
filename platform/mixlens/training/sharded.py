"""Models that no worker ever holds whole: ZeRO-3 spreads each parameter as it is made."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from mixlens.mixture.batches import Collate
from mixlens.models import VLM, check_weights, load_vlm
from mixlens.spec import RunSpec, TrainingSpec
from mixlens.training.context import WorkerContext
from mixlens.training.optimizer import whole_shape
from mixlens.training.zero import check_nvme, deepspeed_config, import_deepspeed, weights_dtype


def load_trainable(run: RunSpec, context: WorkerContext) -> VLM:
    """The model that `run` starts from, where and how this worker trains it.

    All ranks must call it: at ZeRO stage 3 they load one model together.

    Raises:
        CheckpointError: nothing loadable, weights that are not those of the model, or a family
            without an adapter.
        ResourceError: the run offloads to NVMe, and this node cannot.
    """
    training, device = run.training, context.device
    check_nvme(training)
    with sharded(training, context.world_size, device):
        dtype = weights_dtype(training, device.type)
        vlm = load_vlm(run.model, dtype, str(device), training.attention)
    if is_sharded(training, context.world_size):
        check_weights(run.model)
    return vlm


def collate_of(run: RunSpec, vlm: VLM) -> Collate:
    """What makes a micro-batch of examples, for the attention that `run` asks for."""
    return partial(vlm.adapter.training_batch, unmasked=run.training.unmasked)


@contextmanager
def sharded(training: TrainingSpec, world_size: int, device: torch.device) -> Iterator[None]:
    """Have models that are loaded meanwhile spread over the workers, if the run wants that.

    Then each worker keeps its share of every parameter and nothing else, on its device or where
    `offload_parameters` says. transformers makes the parameters one module at a time, and rank 0
    alone reads the weights: it maps the checkpoint's files into memory, which costs page cache that
    the system can take back, and sends one module's parameters at a time to the others.
    """
    if not is_sharded(training, world_size):
        yield
        return
    import_deepspeed()
    from transformers.integrations import HfDeepSpeedConfig
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))  # DeepSpeed insists on it
    # transformers asks for it while it lives, by a weak reference.
    asked = HfDeepSpeedConfig(deepspeed_config(training, world_size, device.type))
    try:
        with whole_shapes():
            yield
    finally:
        unset_hf_deepspeed_config()
        del asked


def is_sharded(training: TrainingSpec, world_size: int) -> bool:
    """Whether the parameters are spread from the start; one worker without offload has no need."""
    offloaded = training.offload_parameters != "none"
    return training.zero_stage == 3 and (world_size > 1 or offloaded)


@contextmanager
def whole_shapes() -> Iterator[None]:
    """Have transformers convert checkpoints by the shapes that split parameters have when whole.

    Some families' files join what the model holds apart, or the other way round; transformers
    looks at the parameters to see where to cut, and split ones look empty.
    """
    from transformers.core_model_loading import WeightConverter

    convert = WeightConverter.convert

    def informed(self: Any, layer_name: str, model: Any = None, **others: Any) -> Any:
        return convert(self, layer_name, model=_Shapes(model), **others)

    WeightConverter.convert = informed
    try:
        yield
    finally:
        WeightConverter.convert = convert


class _Shapes:
    """A model whose parameters have nothing but the shape that they have when whole."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def get_parameter(self, name: str) -> torch.Tensor:
        return torch.empty(whole_shape(self._model.get_parameter(name)), device="meta")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
