"""Backgrounds: white, or pale enough that every object colour stands out."""

import numpy as np

from mixlens.scenes.draws import word_list, words
from mixlens.spec.scene import SceneSpec

# Red, green and blue of a plain background or of an end of a gradient are drawn from here; the
# palest object colour is darker in at least one of them.
_PALE = (200, 250)


def background(spec: SceneSpec, seed: int, index: int) -> np.ndarray:
    """A new image without objects: uint8 [side, side, 3]."""
    side = spec.image_size
    if spec.background == "white":
        return np.full((side, side, 3), 255, np.uint8)
    low, high = _PALE
    raw = word_list(seed, index, "background", 8)
    first, second = (np.array([low + (w * (high - low + 1) >> 32) for w in raw[k : k + 3]])
                     for k in (0, 3))  # fmt: skip
    if spec.background == "colour":
        return np.broadcast_to(first.astype(np.uint8), (side, side, 3)).copy()
    if spec.background == "gradient":
        ramp = slope(side, raw[6])[:, :, None]
        return ((first * (RAMP - ramp) + second * ramp) // RAMP).astype(np.uint8)
    grey = words(seed, index, "background noise", (side * side * 3 + 3) // 4)
    grey = grey.view(np.uint8)[: side * side * 3].astype(np.int64)
    return (low + (grey * (256 - low) >> 8)).astype(np.uint8).reshape(side, side, 3)


RAMP = 4096


def slope(side: int, word: int) -> np.ndarray:
    """A plane that rises from 0 to `RAMP` across the image in a direction drawn by a word.

    Returns:
        int64 [side, side]. Whole numbers only: no platform's sine reaches a pixel.
    """
    # A point on the outline of a square stands for the direction.
    along, edge = (word >> 2) * 2 * RAMP // 2**30 - RAMP, word & 3
    dx, dy = ((along, RAMP), (along, -RAMP), (RAMP, along), (-RAMP, along))[edge]
    step = np.arange(side)
    plane = dx * step + dy * step[:, None]
    plane -= plane.min()
    return plane * RAMP // max(1, int(plane.max()))
