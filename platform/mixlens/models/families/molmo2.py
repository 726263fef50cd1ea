"""Molmo 2: a view of the whole image and one of its crops stitched together, patches pooled."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool
from torch import Tensor, nn

from mixlens.models.adapter import Batch, Stack
from mixlens.models.family import FamilyAdapter, existing, unwrapped
from mixlens.models.places import View
from mixlens.models.turns import Packed


class Molmo2Adapter(FamilyAdapter):
    """All tokens of an image, those that mark its rows included, see each other both ways."""

    sees_both_ways = True

    def training_inputs(self, begun: Batch, rows: Packed) -> Batch:
        inputs = super().training_inputs(begun, rows)
        # The model insists on it in training, and with a whole mask makes nothing of it.
        return inputs | {"mm_token_type_ids": rows.both_ways.long()}

    def views(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[list[View]]:
        from transformers.models.molmo2.image_processing_molmo2 import compute_crop_geometry

        prepare = self.processor.image_processor
        side, patch = prepare.size.height, prepare.patch_size
        found = []
        for size, grid in zip(sizes, batch["image_grids"].tolist(), strict=True):
            *_, height, width = compute_crop_geometry(
                *size, prepare.max_crops, prepare.overlap_margins, side, patch
            )
            found.append(
                [
                    self._pooled(grid[:2], (side // patch, side // patch)),
                    self._pooled(grid[2:], (height // patch, width // patch)),
                ]
            )
        return found

    def _pooled(self, grid: Sequence[int], patches: Sequence[int]) -> View:
        """A grid over so many rows and columns of patches; what they do not fill lies beyond."""
        edges = []
        pools = self.processor.image_processor.pooling_size
        for cells, there, pool in zip(grid, patches, pools, strict=True):
            before = (cells * pool - there) // 2
            edges.append((-before / there, (cells * pool - before) / there))
        (top, bottom), (left, right) = edges
        return View(grid[0], grid[1], (top, left, bottom, right))

    def cell_side(self) -> int:
        return super().cell_side() * int(self.processor.image_processor.pooling_size[0])

    def encoder_tokens(self, batch: Batch) -> Bool[Tensor, "images tokens"]:
        return existing(batch["image_num_crops"] * batch["pixel_values"].shape[1])

    def encoder_positions(self, batch: Batch) -> tuple[int, int]:
        crops, patches, _ = batch["pixel_values"].shape
        return crops * patches, patches

    def blocks(self, model: Any) -> dict[Stack, list[nn.Module]]:
        inner = unwrapped(model).model
        return {
            "vision": list(inner.vision_tower.layers),
            "language": list(inner.language_model.layers),
        }


ADAPTERS = {"molmo2": Molmo2Adapter}
