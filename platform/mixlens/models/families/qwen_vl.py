"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: native resolution, merged patches, positions in three axes."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image as PillowImage
from torch import Tensor, nn

from mixlens.models.adapter import Batch, Encoded, Image, Stack, Towers
from mixlens.models.family import FamilyAdapter, existing, unwrapped
from mixlens.models.places import View
from mixlens.sources.pixels import as_pixels


class QwenVlAdapter(FamilyAdapter):
    """An image has as many tokens as its pixels ask for, in one grid.

    A visual token's position has a time, a row and a column axis (M-RoPE); text goes on behind the
    largest of them, in all three alike.
    """

    def views(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[list[View]]:
        return [[View(rows, columns)] for rows, columns in self._grids(batch)]

    def cell_side(self) -> int:
        return super().cell_side() * self._merged()

    def encoder_tokens(self, batch: Batch) -> Bool[Tensor, "images tokens"]:
        return existing(batch["image_grid_thw"].prod(-1))

    def encoder_positions(self, batch: Batch) -> tuple[int, int]:
        patches = batch["image_grid_thw"].prod(-1)
        return int(patches.sum()), round(float(patches.float().mean()))

    def positions(self, batch: Batch) -> Int[Tensor, "axes batch seq"]:
        flat = super().positions(batch)
        visual = batch["input_ids"] == self.image_token_id
        planes = flat.expand(3, -1, -1).clone()
        for number, (rows, columns) in enumerate(self._grids(batch)):
            here = visual[number]
            start, end = flat[number][here][[0, -1]].tolist()
            # Up to the image all axes count tokens; behind it they go on from the larger side.
            planes[:, number, flat[number] > end] += max(rows, columns) - rows * columns
            down = planes.new_tensor(range(rows)).repeat_interleave(columns)
            across = planes.new_tensor(range(columns)).repeat(rows)
            planes[0, number, here] = start
            planes[1, number, here] = start + down
            planes[2, number, here] = start + across
        return planes

    def towers(self, model: Any) -> Towers:
        whole = unwrapped(model)
        return {
            "vision": [whole.model.visual],
            "projector": self._mergers(whole.model.visual),
            "language": [whole.model.language_model, whole.lm_head],
        }

    def blocks(self, model: Any) -> dict[Stack, list[nn.Module]]:
        inner = unwrapped(model).model
        return {"vision": list(inner.visual.blocks), "language": list(inner.language_model.layers)}

    def projector(self, model: Any) -> nn.Module:
        return unwrapped(model).model.visual.merger

    def smaller_batch(self, images: Sequence[Image], share: float) -> Batch:
        """Both sides shrink by the root of the share; what the processor rounds up to stays."""
        pictures = [as_pixels(image) for image in images]
        grids = self._grids(self.image_batch(pictures))
        side, factor = self.cell_side(), math.sqrt(share)
        return self.process(
            [
                _resized(picture, *(max(1, round(factor * cells)) * side for cells in grid))
                for picture, grid in zip(pictures, grids, strict=True)
            ],
            [self._begin] * len(pictures),
        )

    def _grids(self, batch: Batch) -> list[tuple[int, int]]:
        """Rows and columns of each image's visual tokens."""
        merged = self._merged()
        return [
            (rows // merged, columns // merged)
            for _, rows, columns in batch["image_grid_thw"].tolist()
        ]

    def _merged(self) -> int:
        return int(self.config.vision_config.spatial_merge_size)

    def _mergers(self, visual: Any) -> list[nn.Module]:
        return [visual.merger]


class DeepStackAdapter(QwenVlAdapter):
    """Qwen3-VL: states of earlier vision blocks are added to the first decoder blocks' outputs."""

    def without(
        self, batch: Batch, encoded: Encoded, stays: Bool[Tensor, "images tokens"]
    ) -> dict[str, Any]:
        given = super().without(batch, encoded, stays)
        kept = (stays & encoded.exists)[encoded.exists]
        given["mm_encoder_outputs"]["image"]["deepstack_features"] = [
            [torch.cat(list(level))[kept]] for level in encoded.outputs.deepstack_features
        ]
        return given

    def whole_until(self, model: Any) -> int:
        return len(unwrapped(model).model.visual.deepstack_merger_list)

    def _mergers(self, visual: Any) -> list[nn.Module]:
        return [visual.merger, *visual.deepstack_merger_list]


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.asarray(
        PillowImage.fromarray(picture).resize((width, height), PillowImage.Resampling.BICUBIC)
    )


ADAPTERS = {
    "qwen2_vl": QwenVlAdapter,
    "qwen2_5_vl": QwenVlAdapter,
    "qwen3_vl": DeepStackAdapter,
}
