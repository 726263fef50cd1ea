"""Gemma 3: a fixed number of pooled tokens, which see each other in both directions."""

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from mixlens.models.adapter import Batch
from mixlens.models.family import FamilyAdapter, existing
from mixlens.models.places import View
from mixlens.models.turns import Packed


class Gemma3Adapter(FamilyAdapter):
    """Adapter of `Gemma3ForConditionalGeneration`; its pan-and-scan crops are not used.

    Most decoder layers look back a window of positions only, so that training rows carry two masks.
    """

    sees_both_ways = True

    def training_inputs(self, begun: Batch, rows: Packed) -> Batch:
        inputs = super().training_inputs(begun, rows)
        at = rows.position_ids[0]
        near = at[:, :, None] - at[:, None, :] < self.config.text_config.sliding_window
        return inputs | {"sliding_mask": (rows.sees & near)[:, None]}

    def views(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[list[View]]:
        side = isqrt(self.config.mm_tokens_per_image)
        return [[View(side, side)] for _ in sizes]

    def cell_side(self) -> int:
        side = isqrt(self.config.mm_tokens_per_image)
        return int(self.config.vision_config.image_size // side)

    def encoder_tokens(self, batch: Batch) -> Bool[Tensor, "images tokens"]:
        vision = self.config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return existing(torch.full((len(batch["pixel_values"]),), patches))

    def model_inputs(self, batch: Batch) -> dict[str, Any]:
        inputs = super().model_inputs(batch)
        masks = {
            "full_attention": inputs["attention_mask"],
            "sliding_attention": inputs.pop("sliding_mask"),
        }
        return inputs | {"attention_mask": masks}


ADAPTERS = {"gemma3": Gemma3Adapter}
