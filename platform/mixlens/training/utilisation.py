"""What a run's own arithmetic takes of its GPUs, for the model FLOPs utilisation."""

import torch
from torch import Tensor

from mixlens.models import Adapter
from mixlens.spec import RunSpec
from mixlens.training.cost.devices import peak_flops
from mixlens.training.cost.flops import step_flops
from mixlens.training.cost.setting import setting_of
from mixlens.training.cost.shape import model_shape
from mixlens.training.cost.tokens import tokens_of


class ModelFlops:
    """Model FLOPs of micro-batches; none are counted on CPUs, which have no peak to compare with.

    Tokens and padding count alike, recomputation and the optimiser not at all
    (`mixlens.training.cost.flops`).

    Attributes:
        peak: FLOP/s of this worker's GPU by its data sheet; None where unknown.
    """

    def __init__(
        self, run: RunSpec, adapter: Adapter, world_size: int, device: torch.device
    ) -> None:
        self.peak: float | None = None
        self._counts = device.type == "cuda"
        if self._counts:
            self._adapter, self._examples = adapter, run.training.micro_batch
            self._shape = model_shape(adapter.config, adapter.towers)
            self._setting = setting_of(run.training, "cuda", world_size, world_size)
            self.peak = peak_flops(torch.cuda.get_device_name(device), run.training.precision)

    def __call__(self, batch: dict[str, Tensor]) -> float:
        """Of forward and backward pass over a micro-batch, as the adapter made it."""
        if not self._counts:
            return 0.0
        tokens = tokens_of(self._adapter, batch, self._examples)
        return step_flops(self._shape, tokens, self._setting, rows=self._examples).model
