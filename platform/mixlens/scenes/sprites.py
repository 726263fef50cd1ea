"""Sprites: a shape with its texture as lists of pixels, made once and stamped into pictures."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mixlens.scenes.shapes import SYMMETRY, outline, silhouette


@dataclass(frozen=True, slots=True)
class Sprite:
    """An object before it has a place and a colour.

    Attributes:
        side: width and height of the square that holds the object about its centre, pixels.
        cells: uint16 [area] (int32 in pictures of more than 2**16 pixels), flat positions of the
            silhouette's pixels in a picture of one certain width when the square is in its top
            left corner: first the painted ones.
        painted: pixels that are painted in the object's colour.
        area: pixels of the silhouette.
        box: x0, y0, x1, y1 of the silhouette within the square; the end is exclusive.
    """

    side: int
    cells: np.ndarray
    painted: int
    area: int
    box: tuple[int, int, int, int]


def sprite(
    shape: str, texture: str, quarters: int, rotation: int, grain: int, width: int
) -> Sprite:
    """The sprite of an object.

    Args:
        shape: one of `mixlens.spec.scene.Shape`.
        texture: one of `mixlens.spec.scene.Texture`.
        quarters: diameter of the circumscribed circle in quarter pixels.
        rotation: degrees clockwise, a multiple of 5.
        grain: the diameter, in pixels, that the texture is made for: its lines, dots and fields
            have whole widths in pixels that grow with it.
        width: of the picture, pixels.
    """
    return _sprite(shape, texture, quarters, rotation % SYMMETRY[shape], grain, width)


# Some 3 KB each at the default sizes and 224 pixels. All 30,250 sprites of the default spec fit.
@lru_cache(maxsize=32768)
def _sprite(
    shape: str, texture: str, quarters: int, rotation: int, grain: int, width: int
) -> Sprite:
    whole = silhouette(shape, quarters, rotation)
    cells = _grid(whole.side, width).take(whole.inside)
    painted = whole.area
    if texture != "solid":
        ink = _ink(shape, texture, quarters, rotation, grain).ravel().take(whole.inside)
        painted = int(np.count_nonzero(ink))
        cells = np.concatenate([cells[ink], cells[~ink]])
    return Sprite(whole.side, cells, painted, whole.area, whole.box)


def _ink(shape: str, texture: str, quarters: int, rotation: int, grain: int) -> np.ndarray:
    """Bool [side, side]: the pixels that a texture paints; outside the silhouette anything."""
    if texture == "outlined":
        return outline(shape, quarters, rotation, max(1, round(grain * 0.08)))
    # With its rim painted, an object keeps its shape whatever its texture leaves white.
    rim = outline(shape, quarters, rotation, max(1, round(grain * 0.04)))
    return rim | _pattern(texture, grain, rim.shape[0])


@lru_cache(maxsize=256)
def _grid(side: int, width: int) -> np.ndarray:
    grid = np.arange(side)[:, None] * width + np.arange(side)
    return grid.astype(np.uint16 if width * width <= 2**16 else np.int32)


@lru_cache(maxsize=1024)
def _pattern(texture: str, grain: int, side: int) -> np.ndarray:
    """Bool [side, side]: where a striped, checked or dotted texture paints.

    Textures stay upright on a turned object, so that their edges fall on pixel edges and a texture
    can be told on an object of few pixels.
    """
    # Offsets of pixel centres from the object's centre, in half pixels.
    offset = np.abs(2 * np.arange(side) + 1 - side)
    if texture == "striped":
        line = 2 * max(2, round(grain / 9))
        return np.broadcast_to(((offset + line // 2) // line % 2 == 0)[:, None], (side, side))
    if texture == "checked":
        field = 2 * max(3, round(grain / 6))
        light = (offset + field // 2) // field % 2 == 0
        return light[:, None] == light
    # Dots: four of them lie in the middle of a ring's band. A dot is centred on a pixel.
    pitch = max(3, round(grain / 4 + 0.25))
    near = (np.arange(side) - side // 2 + pitch // 2) % pitch - pitch // 2
    return near[:, None] ** 2 + near**2 > (pitch * 0.28) ** 2
