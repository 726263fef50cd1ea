"""LLaVA 1.5: one fixed grid of visual tokens an image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as PillowImage

from mixlens.models.adapter import Batch, Encoded, Image
from mixlens.models.family import FamilyAdapter
from mixlens.models.places import View


class LlavaAdapter(FamilyAdapter):
    """Adapter of `LlavaForConditionalGeneration` with an encoder of one fixed size."""

    def process(self, pictures: Sequence[np.ndarray], texts: Sequence[str]) -> Batch:
        squeezed = [self.shown(picture) for picture in pictures]
        if all(after is before for after, before in zip(squeezed, pictures, strict=True)):
            return super().process(pictures, texts)
        batch = super().process([np.zeros_like(picture) for picture in squeezed], texts)
        prepare = self.processor.image_processor
        batch["pixel_values"] = torch.cat(
            [
                prepare(
                    after,
                    input_data_format="channels_last",
                    return_tensors="pt",
                    **({} if after is before else {"do_resize": False, "do_center_crop": False}),
                )["pixel_values"]
                for after, before in zip(squeezed, pictures, strict=True)
            ]
        )
        return batch

    def views(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[list[View]]:
        side = batch["pixel_values"].shape[-1] // self.cell_side()
        return [[View(side, side)] for _ in sizes]

    def encode(self, model: Any, batch: Batch, **options: Any) -> Encoded:
        if batch["pixel_values"].shape[-1] == self.config.vision_config.image_size:
            return super().encode(model, batch)
        return super().encode(model, batch, interpolate_pos_encoding=True)

    def smaller_batch(self, images: Sequence[Image], share: float) -> Batch:
        batch = self.image_batch(images)
        pixels, side = batch["pixel_values"], self.cell_side()
        most = pixels.shape[-1] // side
        grid = min(range(1, most + 1), key=lambda cells: abs(cells**2 - share * most**2))
        if grid == most:
            return batch
        batch["pixel_values"] = torch.nn.functional.interpolate(
            pixels, size=(grid * side, grid * side), mode="bicubic", antialias=True
        )
        # The tokens of all rows stand at the same places: they differ in nothing but the image.
        visual = batch["input_ids"][0] == self.image_token_id
        stays = ~visual | (visual.cumsum(0) <= grid**2)
        for name in ("input_ids", "attention_mask"):
            batch[name] = batch[name][:, stays]
        return batch

    def encoder_output(self, model: Any) -> tuple[int, int]:
        layers = self.config.vision_feature_layer
        # States are counted from the embeddings, so state l is what block l - 1 puts out.
        last = layers if isinstance(layers, int) else layers[-1]
        block = last - 1 if last >= 0 else len(self.blocks(model)["vision"]) + last
        return block, int(self.config.vision_feature_select_strategy == "default")

    def shown(self, picture: np.ndarray) -> np.ndarray:
        """All of a picture that is not square, squeezed into a square.

        A crop would cut off what questions are asked about, and a margin would be empty tokens.
        Coordinates in fractions of the picture's sides stay those of the token grid.
        """
        height, width, _ = picture.shape
        if height == width:
            return picture
        prepare = self.processor.image_processor
        shape = prepare.crop_size if prepare.do_center_crop else prepare.size
        side = shape.height or shape.shortest_edge
        return np.array(PillowImage.fromarray(picture).resize((side, side), prepare.resample))


ADAPTERS = {"llava": LlavaAdapter}
