"""Where in its image each visual token looks, and the pixels that are there."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
from torch import Tensor

NOWHERE = -1


@dataclass(frozen=True)
class View:
    """A part of an image that visual tokens cover in a grid, row by row.

    Attributes:
        rows: of the grid.
        columns: of the grid.
        box: top, left, bottom and right edge of the grid, in fractions of the image's height and
            width. Beyond 0 to 1 lies padding.
        first: tokens before the grid that stand for no place, such as a class token.
        row_ends: whether a token that stands for no place ends each row.
    """

    rows: int
    columns: int
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    first: int = 0
    row_ends: bool = False

    @property
    def tokens(self) -> int:
        return self.first + self.rows * (self.columns + self.row_ends)


@dataclass(frozen=True)
class Places:
    """The crop and the cell of its grid that each visual token of an image stands for.

    Attributes:
        view: number of the view, from 0.
        row: in the view's grid; -1 for a token that stands for no place.
        column: likewise.
    """

    view: Int[Tensor, " tokens"]
    row: Int[Tensor, " tokens"]
    column: Int[Tensor, " tokens"]


def places(views: Sequence[View]) -> Places:
    """The places of an image's visual tokens, in their order."""
    parts = []
    for number, view in enumerate(views):
        cells = torch.full((view.rows, view.columns + view.row_ends, 2), NOWHERE)
        cells[:, : view.columns, 0] = torch.arange(view.rows)[:, None]
        cells[:, : view.columns, 1] = torch.arange(view.columns)
        before = torch.full((view.first, 2), NOWHERE)
        cell = torch.cat([before, cells.flatten(0, 1)])
        parts.append(torch.cat([torch.full((len(cell), 1), number), cell], 1))
    joined = torch.cat(parts)
    return Places(joined[:, 0], joined[:, 1], joined[:, 2])


def patches(
    picture: UInt8[np.ndarray, "height width 3"], views: Sequence[View], side: int
) -> tuple[Float[Tensor, "tokens pixels"], Bool[Tensor, " tokens"]]:
    """The pixels, 0 to 1, under each visual token, and which tokens stand for a place.

    Each view is scaled to `side` x `side` pixels a cell (bicubic, as encoders do), channel by
    channel; beyond the picture's edge is black.
    """
    parts, exist = [], []
    image = Image.fromarray(picture)
    for view in views:
        size = (view.columns * side, view.rows * side)
        if view.columns:
            scaled = _cut(image, view).resize(size, Image.Resampling.BICUBIC)
            pixels = torch.from_numpy(np.array(scaled)).float() / 255
        else:  # a picture so tall that of its tiles only what ends their rows is left
            pixels = torch.zeros(view.rows * side, 0, 3)
        cells = pixels.view(view.rows, side, view.columns, side, 3).permute(0, 2, 4, 1, 3)
        row = cells.reshape(view.rows, view.columns, 3 * side**2)
        there = torch.ones(view.rows, view.columns, dtype=torch.bool)
        if view.row_ends:
            row = torch.cat([row, row.new_zeros(view.rows, 1, row.shape[-1])], 1)
            there = torch.cat([there, there.new_zeros(view.rows, 1)], 1)
        parts += [row.new_zeros(view.first, row.shape[-1]), row.flatten(0, 1)]
        exist += [there.new_zeros(view.first), there.flatten()]
    return torch.cat(parts), torch.cat(exist)


def _cut(image: Image.Image, view: View) -> Image.Image:
    if view.box == (0.0, 0.0, 1.0, 1.0):
        return image
    top, left, bottom, right = view.box
    # Pillow's `crop` takes whole pixels and fills with black what lies beyond the edge.
    return image.crop(
        (
            round(left * image.width),
            round(top * image.height),
            max(round(right * image.width), round(left * image.width) + 1),
            max(round(bottom * image.height), round(top * image.height) + 1),
        )
    )
