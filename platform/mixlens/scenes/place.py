"""Places for objects that never touch one another."""

import math
from collections.abc import Sequence

import numpy as np

from mixlens.scenes.draws import words

Corners = list[tuple[int, int]]  # left, top of the square that holds each object, pixels

GAP = 2  # pixels between circumscribed circles that count as not touching
_TRIES = 100  # random places an object gets before the crowd is arranged in cells


def separated(
    sides: Sequence[int], image_size: int, seed: int, index: int, attempt: int
) -> Corners | None:
    """Top left corners of squares of these sides whose inscribed circles are `GAP` apart.

    Random sequential addition, the largest first; where that gets stuck, cells of a grid in random
    order, each object anywhere in its cell.

    Returns:
        A corner (left, top) for each side, in their order, or None when neither way fits them.
    """
    return _at_random(sides, image_size, seed, index, attempt) or _in_cells(
        sides, image_size, seed, index, attempt
    )


def cell_count(side: int, image_size: int) -> int:
    """How many objects of this side are sure to find a place in the cells of a grid."""
    return ((image_size + GAP) // (side + GAP)) ** 2


def largest_side(count: int, image_size: int) -> int:
    """The largest side of which `count` objects are sure to find a place."""
    columns = math.isqrt(count - 1) + 1
    return (image_size + GAP) // columns - GAP


def _at_random(
    sides: Sequence[int], image_size: int, seed: int, index: int, attempt: int
) -> Corners | None:
    # Imported late: numba takes longer to import than all other modules of scenes together.
    from mixlens.scenes import loops

    order = np.argsort(-np.asarray(sides), kind="stable")
    sorted_sides = np.asarray(sides)[order]
    corners = np.empty((len(sides), 2), np.int64)
    many = 6 * len(sides) + 16
    while True:
        raw = words(seed, index, f"place {attempt}", many)
        end = loops.place_at_random(sorted_sides, image_size, GAP, _TRIES, raw, order, corners)
        if end == loops.STUCK:
            return None
        if end != loops.OUT_OF_WORDS:
            return [(left, top) for left, top in corners.tolist()]
        many *= 2


def _in_cells(
    sides: Sequence[int], image_size: int, seed: int, index: int, attempt: int
) -> Corners | None:
    count, largest = len(sides), max(sides)
    columns = (image_size + GAP) // (largest + GAP)
    if columns * columns < count:
        return None
    raw = words(seed, index, f"cells {attempt}", columns * columns + 2 * count)
    chosen = raw[: columns * columns].argsort(kind="stable")[:count].tolist()
    jitter = raw[columns * columns :].tolist()
    places = []
    for k, (cell, side) in enumerate(zip(chosen, sides, strict=True)):
        row, column = divmod(cell, columns)
        corner = []
        for axis, number in ((0, column), (1, row)):
            start = number * (image_size + GAP) // columns
            end = (number + 1) * (image_size + GAP) // columns - GAP
            corner.append(start + (jitter[2 * k + axis] * (end - start - side + 1) >> 32))
        places.append((corner[0], corner[1]))
    return places
