"""Places for objects that hide one another, each by a controlled share."""

from collections.abc import Sequence

import numpy as np

from mixlens.scenes.draws import between, word_list
from mixlens.scenes.place import Corners
from mixlens.scenes.sprites import Sprite

_TRIES = 64  # random places an object gets to come near its own visible share
_CLOSE = 0.03  # a visible share this near to the wanted one ends the search


def overlapping(
    sprites: Sequence[Sprite],
    image_size: int,
    visible: tuple[float, float],
    seed: int,
    index: int,
    attempt: int,
) -> Corners | None:
    """Places such that the visible share of every object but the front one lies in `visible`.

    From front to back, each object draws the share it would like to show, and takes the best of
    some places near the objects in front of it. What is placed later is behind, so a share never
    changes once it is settled.

    Returns:
        A corner for each sprite, back to front as they are given, or None when one found no place.
    """
    taken = np.zeros(image_size * image_size, bool)
    wishes = word_list(seed, index, f"visible {attempt}", len(sprites))
    corners: Corners = [(0, 0)] * len(sprites)
    placed: list[int] = []
    for i in reversed(range(len(sprites))):
        bounds = visible if placed else (1.0, 1.0)
        wish = between(bounds, wishes[i])
        raw = word_list(seed, index, f"overlap {attempt} {i}", 3 * _TRIES)
        best = None
        for k in range(0, 3 * _TRIES, 3):
            corner = _proposal(sprites, corners, placed, i, image_size, raw[k : k + 3], wish)
            share = _visible(sprites[i], corner, taken, image_size)
            if not bounds[0] <= share <= bounds[1]:
                continue
            if best is None or abs(share - wish) < best[0]:
                best = (abs(share - wish), corner)
                if best[0] <= _CLOSE:
                    break
        if best is None:
            return None
        corners[i] = best[1]
        taken[sprites[i].cells + best[1][1] * image_size + best[1][0]] = True
        placed.append(i)
    return corners


def _proposal(
    sprites: Sequence[Sprite],
    corners: Corners,
    placed: Sequence[int],
    i: int,
    image_size: int,
    raw: Sequence[int],
    wish: float,
) -> tuple[int, int]:
    """A random place: anywhere to stay whole, else near a random object in front."""
    side = sprites[i].side
    span = image_size - side + 1
    if wish > 1 - _CLOSE:
        return raw[0] * span >> 32, raw[1] * span >> 32
    front = placed[raw[2] * len(placed) >> 32]
    reach = side + sprites[front].side
    place = []
    for axis in (0, 1):
        offset = (raw[axis] * reach >> 32) - side
        place.append(max(0, min(span - 1, corners[front][axis] + offset)))
    return place[0], place[1]


def _visible(stamp: Sprite, corner: tuple[int, int], taken: np.ndarray, image_size: int) -> float:
    hidden = np.count_nonzero(taken[stamp.cells + corner[1] * image_size + corner[0]])
    return 1 - hidden / stamp.area
