"""Sprites: a shape with its texture as pixel masks, made once and then stamped into pictures."""

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
    whole, rim, outline = silhouette(shape, quarters, rotation % SYMMETRY[shape])
    if texture == "solid":
        ink = whole
    elif texture == "outlined":
        ink = outline
    else:
        # With its rim painted, an object keeps its shape whatever its texture leaves white.
        ink = rim | (whole & _pattern(texture, quarters, whole.shape[0]))
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
def _pattern(texture: str, quarters: int, side: int) -> np.ndarray:
    """bool [side, side]: where a texture paints.

    Textures stay upright on a turned object, so that their edges fall on pixel edges and a texture
    can be told on an object of few pixels.
    """
    diameter = quarters / 4
    # Offsets of pixel centres from the object's centre, in half pixels.
    offset = np.abs(2 * np.arange(side) + 1 - side)
    if texture == "striped":
        line = 2 * max(2, round(diameter / 9))
        return np.broadcast_to(((offset + line // 2) // line % 2 == 0)[:, None], (side, side))
    if texture == "checked":
        field = 2 * max(3, round(diameter / 6))
        light = (offset + field // 2) // field % 2 == 0
        return light[:, None] == light
    # Four dots lie in the middle of a ring's band. A dot is centred on a pixel.
    pitch = max(3, round(diameter / 4 + 0.25))
    near = (np.arange(side) - side // 2 + pitch // 2) % pitch - pitch // 2
    return near[:, None] ** 2 + near**2 > (pitch * 0.28) ** 2


assert all(period % ROTATION_STEP == 0 for period in SYMMETRY.values())
