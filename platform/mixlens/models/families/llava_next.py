"""LLaVA-NeXT and OneVision: a view of the whole image, then its tiles stitched to one grid."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from mixlens.models.adapter import Batch, Towers
from mixlens.models.family import FamilyAdapter, existing, unwrapped
from mixlens.models.places import View


class AnyResolutionAdapter(FamilyAdapter):
    """The image is scaled into the best of some resolutions and cut into tiles, without margins.

    So the second view covers the whole image too, in a grid of which a learned token ends each row.
    """

    def towers(self, model: Any) -> Towers:
        towers = super().towers(model)
        newline = unwrapped(model).model.image_newline
        return {**towers, "projector": [*towers["projector"], newline]}

    def views(self, batch: Batch, sizes: Sequence[tuple[int, int]]) -> list[list[View]]:
        counts = (batch["input_ids"] == self.image_token_id).sum(-1).tolist()
        side = self._side()
        found = []
        for size, count in zip(batch["image_sizes"].tolist(), counts, strict=True):
            rows = self._rows(size)
            stitched = count - side**2
            whole = View(side, side)
            if not rows:  # so wide that no row of patches is left of its tiles
                found.append([whole])
                continue
            assert stitched % rows == 0, f"{stitched} tokens in {rows} rows"
            found.append([whole, View(rows, stitched // rows - 1, row_ends=True)])
        return found

    def encoder_tokens(self, batch: Batch) -> Bool[Tensor, "images tokens"]:
        from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

        pinpoints, side = self.config.image_grid_pinpoints, self.config.vision_config.image_size
        tiles = [image_size_to_num_patches(size, pinpoints, side) for size in batch["image_sizes"]]
        return existing(batch["image_sizes"].new_tensor(tiles) * self._side() ** 2)

    def _side(self) -> int:
        vision = self.config.vision_config
        return int(vision.image_size // vision.patch_size)

    def _rows(self, size: Sequence[int]) -> int:
        """Rows of the stitched grid, as the processor counts them."""
        from transformers.image_processing_utils import select_best_resolution

        height, width = select_best_resolution(size, self.config.image_grid_pinpoints)
        side, tile = self._side(), self.config.vision_config.image_size
        _, row_ends = self.processor._get_unpadded_features(
            *size, side, side, height // tile, width // tile
        )
        return int(row_ends)


ADAPTERS = {"llava_next": AnyResolutionAdapter, "llava_onevision": AnyResolutionAdapter}
