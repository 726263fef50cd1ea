"""GLM-4V: native resolution and positions in three axes, as in Qwen-VL."""

from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from mixlens.models.adapter import Batch
from mixlens.models.families.qwen_vl import QwenVlAdapter
from mixlens.models.family import FamilyAdapter


class Glm4vAdapter(QwenVlAdapter):
    """A convolution merges patches before the merger, which keeps their number."""

    def encoder_tokens(self, batch: Batch) -> Bool[Tensor, "images tokens"]:
        return FamilyAdapter.encoder_tokens(self, batch)

    def _mergers(self, visual: Any) -> list[nn.Module]:
        return [visual.downsample, visual.merger]


ADAPTERS = {"glm4v": Glm4vAdapter}
