"""Idefics 3 and SmolVLM: the image in tiles, then one view of all of it; patches are shuffled."""

import re
from collections.abc import Sequence
from math import isqrt
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from mixlens.models.adapter import Batch, Stack, Towers
from mixlens.models.family import FamilyAdapter, existing, unwrapped
from mixlens.models.places import View

_TILE = re.compile(r"<row_(\d+)_col_(\d+)>")


class Idefics3Adapter(FamilyAdapter):
    """An image larger than the encoder's is cut into tiles, of which markers tell in the text."""

    def views(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[list[View]]:
        side = isqrt(self.processor.image_seq_len)
        found = []
        for ids in batch["input_ids"]:
            named = _TILE.findall(self.tokenizer.decode(ids))
            cells = [(int(row) - 1, int(column) - 1) for row, column in named]
            rows = max((row for row, _ in cells), default=0) + 1
            columns = max((column for _, column in cells), default=0) + 1
            tiles = [
                View(side, side, (r / rows, c / columns, (r + 1) / rows, (c + 1) / columns))
                for r, c in cells
            ]
            found.append([*tiles, View(side, side)])
        return found

    def cell_side(self) -> int:
        return super().cell_side() * int(self._shuffled())

    def encoder_tokens(self, batch: Batch) -> Bool[Tensor, "images tokens"]:
        visual = (batch["input_ids"] == self.image_token_id).sum(-1)
        return existing(visual * self._shuffled() ** 2)

    def towers(self, model: Any) -> Towers:
        whole = unwrapped(model)
        return {
            "vision": [whole.model.vision_model],
            "projector": [whole.model.connector],
            "language": [whole.model.text_model, whole.lm_head],
        }

    def blocks(self, model: Any) -> dict[Stack, list[nn.Module]]:
        inner = unwrapped(model).model
        return {
            "vision": list(inner.vision_model.encoder.layers),
            "language": list(inner.text_model.layers),
        }

    def projector(self, model: Any) -> nn.Module:
        return unwrapped(model).model.connector

    def _shuffled(self) -> int:
        """Patches a side of a token."""
        return int(self.config.scale_factor)


ADAPTERS = {"idefics3": Idefics3Adapter, "smolvlm": Idefics3Adapter}
