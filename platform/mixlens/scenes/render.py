"""Paint drafts onto a background: two scatters of pixels, whatever the number of objects."""

from collections.abc import Sequence

import numpy as np

from mixlens.scenes.sample import Draft
from mixlens.scenes.sprites import Sprite, cells

RGB = {
    "red": (226, 26, 28),
    "green": (34, 150, 50),
    "blue": (28, 80, 220),
    "yellow": (250, 210, 0),
    "orange": (255, 125, 0),
    "purple": (125, 45, 165),
    "pink": (255, 130, 195),
    "brown": (125, 70, 30),
    "grey": (140, 140, 140),
    "black": (15, 15, 15),
}
_WHITE = (255, 255, 255)
_PIXEL = np.dtype("V3")
_COLOURS = {
    name: np.array([rgb, _WHITE], np.uint8).view(_PIXEL).reshape(2) for name, rgb in RGB.items()
}
assert Sprite is not None


def paint(drafts: Sequence[Draft], stamps: Sequence[Sprite], image: np.ndarray) -> np.ndarray:
    """Paint objects, back to front, onto `image` (uint8 [side, side, 3]) in place.

    Returns:
        ids: uint8 [side, side], which object is on top (see `Scene`).
    """
    side = image.shape[0]
    ids = np.zeros(side * side, np.uint8)
    where = np.concatenate(
        [cells(d.shape, d.texture, d.quarters, d.rotation, side) for d in drafts]
    )
    areas = [stamp.area for stamp in stamps]
    where += np.repeat([d.top * side + d.left for d in drafts], areas)
    # Where pixels are named twice the last one wins, so the objects in front hide those behind.
    ids[where] = np.repeat(np.arange(1, len(drafts) + 1, dtype=np.uint8), areas)
    shares = [n for stamp in stamps for n in (stamp.painted, stamp.area - stamp.painted)]
    colours = np.concatenate([_COLOURS[d.colour] for d in drafts])
    image.reshape(-1).view(_PIXEL)[where] = np.repeat(colours, shares)
    return ids.reshape(side, side)
