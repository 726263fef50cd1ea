"""Paint a plan onto a background: two scatters of pixels, whatever the number of objects."""

import numpy as np

from mixlens.scenes.sample import Plan

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
_NUMBER = {name: number for number, name in enumerate(RGB)}
_INKS = np.array([pair for rgb in RGB.values() for pair in (rgb, _WHITE)], np.uint8)
_INKS = _INKS.view(_PIXEL).reshape(-1, 2)
_IDS = np.arange(1, 256, dtype=np.uint8)


def paint(plan: Plan, image: np.ndarray) -> tuple[np.ndarray, list[int], list[int]]:
    """Paint objects, back to front, onto `image` (uint8 [side, side, 3]) in place.

    Returns:
        ids: uint8 [side, side], which object is on top (see `Scene`).
        visible: pixels of each object that show.
        visible_ink: those of them that are painted in the object's colour.
    """
    side = image.shape[0]
    ids = np.zeros(side * side, np.uint8)
    areas = [stamp.area for stamp in plan.sprites]
    painted = [stamp.painted for stamp in plan.sprites]
    lengths = np.array(areas)
    owner = _IDS[: len(areas)].repeat(lengths)
    where = np.array([left + top * side for left, top in plan.corners]).repeat(lengths)
    where += np.concatenate([stamp.cells for stamp in plan.sprites])
    # Where a pixel is named twice the last one wins, so what is in front hides what is behind.
    ids[where] = owner
    # Every object has two runs of pixels: its ink, and what its texture leaves white.
    runs = np.empty((len(areas), 2), np.intp)
    runs[:, 0] = painted
    runs[:, 1] = lengths - runs[:, 0]
    inks = _INKS.take([_NUMBER[name] for name in plan.colours], axis=0)
    image.reshape(-1).view(_PIXEL)[where] = inks.ravel().repeat(runs.ravel())
    if sum(areas) == np.count_nonzero(ids):
        return ids.reshape(side, side), areas, painted
    on_top = np.concatenate([[0], np.cumsum(ids[where] == owner)])
    ends = np.cumsum([0, *runs.ravel()])
    seen = np.diff(on_top[ends]).tolist()
    visible = [ink + gaps for ink, gaps in zip(seen[::2], seen[1::2], strict=True)]
    return ids.reshape(side, side), visible, seen[::2]
