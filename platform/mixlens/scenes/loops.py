"""Loops over objects and their neighbours, compiled by numba: Python is too slow for these two."""

import numpy as np
from numba import njit

PLACED, STUCK, OUT_OF_WORDS = range(3)


@njit(cache=True)
def place_at_random(
    sides: np.ndarray,
    image_size: int,
    gap: int,
    tries: int,
    raw: np.ndarray,
    order: np.ndarray,
    corners: np.ndarray,
) -> int:
    """Random sequential addition of circles: each goes to the first random place that is free.

    Whole numbers only, so that every machine gives the same places.

    Args:
        sides: int64 [objects], diameters in pixels, the largest first.
        image_size: side of the picture, pixels.
        gap: smallest distance between two circles, pixels.
        tries: random places that an object gets.
        raw: uint32 [words], random; a place takes two.
        order: int64 [objects], the row of `corners` that each object fills.
        corners: int64 [objects, 2], filled with left and top of each circle's square.

    Returns:
        PLACED; STUCK when an object found no place; OUT_OF_WORDS when `raw` is too short to tell.
    """
    # Circles that touch have corners less than a cell apart, so a newcomer looks at 9 cells. A
    # cell is a chain: the last circle that came in, and from each circle the one before it.
    cell = sides[0] + gap
    columns = image_size // cell + 3
    last = np.full(columns * columns, -1)
    before = np.empty_like(order)
    used = 0
    for k in range(len(sides)):
        side = sides[k]
        span = image_size - side + 1
        for attempt in range(tries + 1):
            if attempt == tries:
                return STUCK
            if used + 2 > len(raw):
                return OUT_OF_WORDS
            left = np.int64(raw[used]) * span >> 32
            top = np.int64(raw[used + 1]) * span >> 32
            used += 2
            at = (top // cell + 1) * columns + left // cell + 1
            free = True
            for row in (at - columns, at, at + columns):
                for where in range(row - 1, row + 2):
                    other = last[where]
                    while other >= 0 and free:
                        # In half pixels, so that centres are whole numbers.
                        dx = 2 * (left - corners[order[other], 0]) + side - sides[other]
                        dy = 2 * (top - corners[order[other], 1]) + side - sides[other]
                        reach = side + sides[other] + 2 * gap
                        free = dx * dx + dy * dy >= reach * reach
                        other = before[other]
            if free:
                corners[order[k], 0] = left
                corners[order[k], 1] = top
                before[k] = last[at]
                last[at] = k
                break
    return PLACED


@njit(cache=True)
def nearest_squares(centres: np.ndarray) -> np.ndarray:
    """Squared distance from each centre to the nearest other one, exact in whole numbers.

    Args:
        centres: int64 [objects, 2], at least two.

    Returns:
        int64 [objects].
    """
    count = len(centres)
    nearest = np.full(count, np.iinfo(np.int64).max)
    for i in range(count):
        for j in range(i):
            dx = centres[i, 0] - centres[j, 0]
            dy = centres[i, 1] - centres[j, 1]
            square = dx * dx + dy * dy
            nearest[i] = min(nearest[i], square)
            nearest[j] = min(nearest[j], square)
    return nearest
