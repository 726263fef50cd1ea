"""Places for objects that never touch one another."""

import math
from collections.abc import Sequence

from mixlens.scenes.draws import word_list, words

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
    order = sorted(range(len(sides)), key=sides.__getitem__, reverse=True)
    # Corners of circles that come too near to each other lie less than a cell apart, so each placed
    # circle is listed in the 9 cells around its own: a newcomer looks at one list.
    cell = sides[order[0]] + GAP
    columns = image_size // cell + 3
    near: list[list[tuple[int, int, int]]] = [[] for _ in range(columns * columns)]
    places: list[tuple[int, int]] = [(0, 0)] * len(sides)
    raw, used = word_list(seed, index, f"place {attempt}", 6 * len(sides) + 16), 0
    for i in order:
        side = sides[i]
        span, margin = image_size - side + 1, side + 2 * GAP
        for _ in range(_TRIES):
            if used == len(raw):
                raw = word_list(seed, index, f"place {attempt}", 2 * used)
            left, top = raw[used] * span >> 32, raw[used + 1] * span >> 32
            used += 2
            at = (top // cell + 1) * columns + left // cell + 1
            # In half pixels, so that centres are whole numbers.
            x, y = 2 * left + side, 2 * top + side
            for other_x, other_y, other_side in near[at]:
                dx = x - other_x
                dy = y - other_y
                reach = margin + other_side
                if dx * dx + dy * dy < reach * reach:
                    break
            else:
                break
        else:
            return None
        places[i] = (left, top)
        entry = (x, y, side)
        for middle in (at - columns, at, at + columns):
            near[middle - 1].append(entry)
            near[middle].append(entry)
            near[middle + 1].append(entry)
    return places


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
