"""Places for objects that hide one another, each by a controlled share."""

from collections.abc import Sequence

import numpy as np

from mixlens.scenes.draws import between, word_list
from mixlens.scenes.place import Corners
from mixlens.scenes.sprites import Sprite

_TRIES = 64  # random places an object gets to come near the share it wants to show
_STARTS = 4  # of these places, how many are looked around when none has a share in the range
_REACH = 4  # pixels each way
_CLOSE = 0.03  # a visible share this near to the wanted one ends the search


def overlapping(
    sprites: Sequence[Sprite],
    image_size: int,
    visible: tuple[float, float],
    seed: int,
    index: int,
    attempt: int,
) -> Corners | None:
    """Places where each object is whole or shows a share that lies within `visible`.

    From front to back, a coin decides for each object whether it lies free of those in front, or
    behind a free one, so that objects hide each other in small groups. A hidden one draws the share
    it wants to show and takes the best of some random places. What comes later lies behind, so a
    share never changes once it is settled. Where none in front can hide an object by a share in the
    range, as small ones cannot hide most of a large one, it lies free and a later one is hidden
    instead.

    Returns:
        A corner for each sprite, back to front as they are given, or None when one found no place.
    """
    taken = np.zeros(image_size * image_size, bool)
    coins = word_list(seed, index, f"overlap {attempt}", 2 * len(sprites))
    corners: Corners = [(0, 0)] * len(sprites)
    free: list[int] = []
    owed = 0  # objects that the coin wanted hidden, less those that are
    for i in reversed(range(len(sprites))):
        raw = word_list(seed, index, f"overlap {attempt} {i}", 5 * _TRIES)
        wanted = bool(free) and coins[2 * i] >= 2**31
        hide = wanted or (bool(free) and owed > 0)
        corner, lies_free = None, True
        if not hide:
            corner = _free_place(sprites[i], taken, image_size, raw)
        if corner is None and free:
            wish = between(visible, coins[2 * i + 1])
            near = [(corners[k], sprites[k].side) for k in free]
            corner = _hidden_place(sprites[i], near, taken, image_size, visible, wish, raw)
            lies_free = corner is None
        if corner is None and hide:
            corner = _free_place(sprites[i], taken, image_size, raw)
        if corner is None:
            return None
        if lies_free:
            free.append(i)
        owed += wanted - (not lies_free)
        corners[i] = corner
        taken[_cells(sprites[i], corner, image_size)] = True
    return corners


def _free_place(
    stamp: Sprite, taken: np.ndarray, image_size: int, raw: Sequence[int]
) -> tuple[int, int] | None:
    span = image_size - stamp.side + 1
    for k in range(0, 2 * _TRIES, 2):
        corner = (raw[k] * span >> 32, raw[k + 1] * span >> 32)
        if not taken[_cells(stamp, corner, image_size)].any():
            return corner
    return None


def _hidden_place(
    stamp: Sprite,
    near: Sequence[tuple[tuple[int, int], int]],
    taken: np.ndarray,
    image_size: int,
    visible: tuple[float, float],
    wish: float,
    raw: Sequence[int],
) -> tuple[int, int] | None:
    """The place whose visible share is nearest to the wish, of random ones behind the `near`.

    Where the range is too narrow for that, of all the places around the best of the random ones.
    """
    span = image_size - stamp.side + 1
    found: list[tuple[float, tuple[int, int]]] = []
    missed: list[tuple[float, tuple[int, int]]] = []
    for k in range(2 * _TRIES, 5 * _TRIES, 3):
        (left, top), side = near[raw[k] * len(near) >> 32]
        left += (raw[k + 1] * (stamp.side + side) >> 32) - stamp.side
        top += (raw[k + 2] * (stamp.side + side) >> 32) - stamp.side
        corner = (max(0, min(span - 1, left)), max(0, min(span - 1, top)))
        hidden = np.count_nonzero(taken[_cells(stamp, corner, image_size)])
        share = 1 - hidden / stamp.area
        if hidden and visible[0] <= share <= visible[1]:
            found.append((abs(share - wish), corner))
            if found[-1][0] <= _CLOSE:
                break
        elif hidden:
            missed.append((abs(share - wish), corner))
    for _, (left, top) in [] if found else sorted(missed)[:_STARTS]:
        columns = np.arange(max(0, left - _REACH), min(span, left + _REACH + 1))
        rows = np.arange(max(0, top - _REACH), min(span, top + _REACH + 1))
        moves = (rows[:, None] * image_size + columns).reshape(-1)
        hidden_at = np.count_nonzero(taken[moves[:, None] + stamp.cells], axis=1)
        shares = 1 - hidden_at / stamp.area
        meets = (hidden_at > 0) & (visible[0] <= shares) & (shares <= visible[1])
        if meets.any():
            best = int(np.where(meets, np.abs(shares - wish), np.inf).argmin())
            row, column = divmod(best, len(columns))
            return int(columns[column]), int(rows[row])
    return min(found)[1] if found else None


def _cells(stamp: Sprite, corner: tuple[int, int], image_size: int) -> np.ndarray:
    return stamp.cells + (corner[1] * image_size + corner[0])
