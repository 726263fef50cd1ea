"""Llama 3.2 Vision: the decoder reads the image by cross-attention, tile by tile."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from mixlens.models.adapter import Batch, Encoded, Stack, Towers
from mixlens.models.family import FamilyAdapter, unwrapped
from mixlens.models.places import View
from mixlens.models.turns import Packed


class MllamaAdapter(FamilyAdapter):
    """One token stands for the image in the text; its visual tokens are keys and values beside it.

    An image has a canvas of tiles; each tile's tokens are a class token and a grid. Only the tiles
    that an image uses are attended to, by its token and all text behind it. What stands before
    attends to whatever its row shows, so that images do not share a row.
    """

    shares_rows = False

    def training_inputs(self, begun: Batch, rows: Packed) -> Batch:
        inputs = super().training_inputs(begun, rows)
        looks = self._looks(rows)
        shown = looks.any(-1)
        # A row of text alone has an image that is not there: no pixels, and nothing looks at it.
        found = {
            name: value.new_zeros(len(shown), *value.shape[1:]) for name, value in inputs.items()
        }
        for name, value in inputs.items():
            found[name][shown] = value
        found["aspect_ratio_mask"][..., 0] = 1  # as the processor pads; no softmax is empty so
        tiles = found["cross_attention_mask"][:, -1:]
        behind = shown[:, None] & (looks | (rows.turn > 0))
        return found | {"cross_attention_mask": tiles * behind[..., None, None]}

    def image_of_token(
        self, begun: Batch, rows: Packed, of_items: Int[Tensor, " items"]
    ) -> Int[Tensor, "rows tokens"]:
        exists, shown = self.encoder_tokens(begun), self._looks(rows).any(-1)
        found = torch.full((len(shown), exists.shape[-1]), -1)
        found[shown] = torch.where(exists, of_items[rows.item[shown, :1]], -1)
        return found

    def _looks(self, rows: Packed) -> Bool[Tensor, "rows seq"]:
        """The tokens that stand for an image."""
        return (rows.input_ids == self.image_token_id) & (rows.turn == 0)

    def behind(self, batch: Batch) -> Batch:
        return {"cross_attention_mask": batch["cross_attention_mask"][:, -1:]}

    def visual_positions(self, input_ids: Int[Tensor, "batch seq"]) -> Bool[Tensor, "batch seq"]:
        return torch.zeros_like(input_ids, dtype=torch.bool)

    def views(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[list[View]]:
        from transformers.models.mllama.image_processing_mllama import (
            get_all_supported_aspect_ratios,
            get_image_size_fit_to_canvas,
        )

        prepare, vision = self.processor.image_processor, self.config.vision_config
        canvases = get_all_supported_aspect_ratios(prepare.max_image_tiles)
        tile, side = vision.image_size, vision.image_size // vision.patch_size
        found = []
        for size, number in zip(sizes, batch["aspect_ratio_ids"][:, 0].tolist(), strict=True):
            rows, columns = canvases[number - 1]
            height, width = get_image_size_fit_to_canvas(*size, rows * tile, columns * tile, tile)
            down, across = tile / height, tile / width
            boxes = [
                (r * down, c * across, (r + 1) * down, (c + 1) * across)
                for r in range(rows)
                for c in range(columns)
            ]
            found.append([View(side, side, box, first=1) for box in boxes])
        return found

    def encoder_tokens(self, batch: Batch) -> Bool[Tensor, "images tokens"]:
        vision = self.config.vision_config
        tokens = (vision.image_size // vision.patch_size) ** 2 + 1
        return batch["cross_attention_mask"][:, -1, 0].bool().repeat_interleave(tokens, -1)

    def encoder_positions(self, batch: Batch) -> tuple[int, int]:
        """All tiles of an image at once, empty ones too, each filled up to a multiple of 8."""
        vision = self.config.vision_config
        tile = -(-((vision.image_size // vision.patch_size) ** 2 + 1) // 8) * 8
        images, _, tiles = batch["aspect_ratio_mask"].shape
        return images * tiles * tile, tiles * tile

    def visual_count(self, batch: Batch) -> int:
        vision = self.config.vision_config
        tile = (vision.image_size // vision.patch_size) ** 2 + 1
        return batch["aspect_ratio_mask"].numel() * tile

    def towers(self, model: Any) -> Towers:
        whole = unwrapped(model)
        decoder = whole.model.language_model
        return {
            "vision": [whole.model.vision_model],
            "projector": [whole.model.multi_modal_projector],
            "language": [decoder, whole.lm_head],
            "cross_attention": [decoder.layers[i] for i in decoder.cross_attention_layers],
        }

    def blocks(self, model: Any) -> dict[Stack, list[nn.Module]]:
        inner = unwrapped(model).model
        vision = inner.vision_model
        return {
            "vision": [*vision.transformer.layers, *vision.global_transformer.layers],
            "language": list(inner.language_model.layers),
        }

    def cross_attention(self, model: Any) -> dict[int, tuple[nn.Module, nn.Module]]:
        decoder = unwrapped(model).model.language_model
        readers = {i: decoder.layers[i].cross_attn for i in decoder.cross_attention_layers}
        return {i: (reader.k_norm, reader.v_proj) for i, reader in readers.items()}

    def encode(self, model: Any, batch: Batch, **options: Any) -> Encoded:
        inner = unwrapped(model).model
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        seen = inner.vision_model(**{name: batch[name] for name in names}).last_hidden_state
        tokens = inner.multi_modal_projector(seen).flatten(1, 3)
        exists = self.encoder_tokens(batch)
        return Encoded(torch.where(exists[..., None], tokens, 0.0), exists, tokens)

    def without(
        self, batch: Batch, encoded: Encoded, stays: Bool[Tensor, "images tokens"]
    ) -> dict[str, Any]:
        return {
            "cross_attention_states": encoded.outputs,
            "cross_attention_mask": batch["cross_attention_mask"],
        }


ADAPTERS = {"mllama": MllamaAdapter}
