"""InternVL: the image in square tiles and one view of all of it, four patches to a token."""

from collections.abc import Sequence
from math import isqrt
from typing import Any

from torch import nn

from mixlens.models.adapter import Batch, Stack
from mixlens.models.family import FamilyAdapter, unwrapped
from mixlens.models.places import View


class InternVlAdapter(FamilyAdapter):
    """The image is scaled to as many tiles as fit its shape best; behind them comes the whole."""

    def views(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[list[View]]:
        from transformers.models.got_ocr2.image_processing_got_ocr2 import (
            get_optimal_tiled_canvas,
        )

        prepare, side = self.processor.image_processor, self._side()
        tile = (prepare.size.height, prepare.size.width)
        counts = (batch["input_ids"] == self.image_token_id).sum(-1).tolist()
        found = []
        for size, count in zip(sizes, counts, strict=True):
            columns, rows = get_optimal_tiled_canvas(
                size, tile, prepare.min_patches, prepare.max_patches
            )
            tiles = [
                View(side, side, (r / rows, c / columns, (r + 1) / rows, (c + 1) / columns))
                for r in range(rows)
                for c in range(columns)
            ]
            # The view of the whole image is left out where one tile is all of it.
            whole = [View(side, side)] if count > len(tiles) * side**2 else []
            found.append([*tiles, *whole])
        return found

    def cell_side(self) -> int:
        return int(self.processor.image_processor.size.height) // self._side()

    def encoder_positions(self, batch: Batch) -> tuple[int, int]:
        prepare, vision = self.processor.image_processor, self.config.vision_config
        patch = vision.patch_size[0] if isinstance(vision.patch_size, list) else vision.patch_size
        patches = (prepare.size.height // patch) ** 2
        return len(batch["pixel_values"]) * patches, patches

    def blocks(self, model: Any) -> dict[Stack, list[nn.Module]]:
        inner = unwrapped(model).model
        return {
            "vision": list(inner.vision_tower.encoder.layer),
            "language": list(inner.language_model.layers),
        }

    def _side(self) -> int:
        """Rows, and columns, of a tile's tokens."""
        return isqrt(self.processor.image_seq_length)


ADAPTERS = {"internvl": InternVlAdapter}
