"""Sprites: a shape with its texture as pixel masks, made once and then stamped into pictures."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mixlens.scenes.shapes import ROTATION_STEP, SYMMETRY, silhouette


@dataclass(frozen=True, slots=True)
class Sprite:
    """An object before it has a place and a colour.

    Attributes:
        side: width and height of the masks, pixels; their centre is the object's centre.
        mask: bool [side, side], the silhouette.
        ink: bool [side, side], the part of it that is painted in the object's colour.
        box: x0, y0, x1, y1 of the silhouette within the masks; the end is exclusive.
        area: pixels of the silhouette.
        painted: pixels of the ink.
    """

    side: int
    mask: np.ndarray
    ink: np.ndarray
    box: tuple[int, int, int, int]
    area: int
    painted: int


@lru_cache(maxsize=16384)
def sprite(shape: str, texture: str, quarters: int, rotation: int) -> Sprite:
    """The sprite of a diameter in quarter pixels and a rotation in degrees clockwise."""
    whole, rim = silhouette(shape, quarters, rotation % SYMMETRY[shape])
    ink = whole if texture == "solid" else rim | (whole & _pattern(texture, quarters, rotation))
    columns, rows = np.flatnonzero(whole.any(0)), np.flatnonzero(whole.any(1))
    return Sprite(
        side=whole.shape[0],
        mask=whole,
        ink=ink,
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        area=int(np.count_nonzero(whole)),
        painted=int(np.count_nonzero(ink)),
    )


@lru_cache(maxsize=16384)
def cells(shape: str, texture: str, quarters: int, rotation: int, width: int) -> np.ndarray:
    """Flat positions of a sprite's pixels in a picture of this width, its corner at 0; ink first.

    Returns:
        int64 [area]: the `painted` pixels of the ink, then the rest of the silhouette.
    """
    stamp = sprite(shape, texture, quarters, rotation)
    grid = _grid(stamp.side, width)
    return np.concatenate([grid[stamp.ink], grid[stamp.mask & ~stamp.ink]])


@lru_cache(maxsize=1024)
def _grid(side: int, width: int) -> np.ndarray:
    return np.arange(side)[:, None] * width + np.arange(side)


@lru_cache(maxsize=4096)
def _pattern(texture: str, quarters: int, rotation: int) -> np.ndarray:
    """bool [side, side]: where a texture paints, were the object a square; it turns with it."""
    side = -(-quarters // 4)
    diameter = quarters / 4
    if texture == "outlined":
        return np.zeros((side, side), bool)
    turned = rotation % 180 if texture == "striped" else rotation % 90
    cos = round(math.cos(math.radians(turned)) * 4096)
    sin = round(math.sin(math.radians(turned)) * 4096)
    # Whole numbers from here on: offsets from the centre in half pixels, times 4096.
    offset = 2 * np.arange(side) + 1 - side
    u = cos * offset[None, :] + sin * offset[:, None]
    v = cos * offset[:, None] - sin * offset[None, :]
    if texture == "striped":
        line = round(max(2.0, diameter / 8) * 8192)
        return (v + line // 2) // line % 2 == 0
    if texture == "checked":
        field = round(max(3.0, diameter / 5) * 8192)
        return (u // field + v // field) % 2 == 0
    pitch = round(max(4.0, diameter / 4) * 8192)
    du, dv = (u % pitch) - pitch // 2, (v % pitch) - pitch // 2
    return du * du + dv * dv > (pitch * 5 // 16) ** 2


assert all(period % ROTATION_STEP == 0 for period in SYMMETRY.values())
