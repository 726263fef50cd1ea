"""The compiled loops against plain Python, an object and a pair at a time."""

import math

import numpy as np
import pytest

from mixlens.scenes.draws import words
from mixlens.scenes.loops import OUT_OF_WORDS, PLACED, STUCK, nearest_squares, place_at_random

GAP = 2


def plainly(sides, image_size, tries, raw):
    """Random sequential addition without cells: every newcomer looks at all circles."""
    raw, placed = list(map(int, raw)), []
    for side in sides:
        for _ in range(tries):
            if len(raw) < 2:
                return OUT_OF_WORDS, placed
            left, top = (raw.pop(0) * (image_size - side + 1) // 2**32 for _ in "xy")
            if all(
                math.dist((left + side / 2, top + side / 2), (x + other / 2, y + other / 2))
                >= (side + other) / 2 + GAP
                for x, y, other in placed
            ):
                placed.append((left, top, side))
                break
        else:
            return STUCK, placed
    return PLACED, placed


@pytest.mark.parametrize(
    ("sides", "image_size", "tries", "many", "expected"),
    [
        ([40, 25, 25, 9], 112, 100, 400, PLACED),
        ([10] * 60 + [6] * 60, 160, 100, 2000, PLACED),
        ([30] * 20, 112, 20, 2000, STUCK),
        ([10] * 60, 112, 100, 90, OUT_OF_WORDS),
        ([112], 112, 1, 2, PLACED),
    ],
)
def test_places_are_those_of_the_plain_loop(sides, image_size, tries, many, expected):
    order = np.random.default_rng(0).permutation(len(sides))
    for index in range(20):
        raw = words(3, index, "test", many)
        corners = np.full((len(sides), 2), -1)
        end = place_at_random(np.array(sides), image_size, GAP, tries, raw, order, corners)
        plain_end, placed = plainly(sides, image_size, tries, raw)
        assert end == plain_end == expected
        found = [(*corners[row].tolist(), side) for row, side in zip(order, sides, strict=True)]
        assert found[: len(placed)] == placed


def test_nearest_distances_are_those_of_all_pairs():
    centres = np.random.default_rng(1).integers(0, 2048, (90, 2))
    squares = np.square(centres[:, None] - centres[None]).sum(-1)
    np.fill_diagonal(squares, 2**40)
    assert nearest_squares(centres).tolist() == squares.min(1).tolist()
