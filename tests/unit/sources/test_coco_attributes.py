"""Attributes of photographs: closed forms, invariants, and the same values one image at a time."""

import math

import numpy as np
import pytest

from mixlens.sources.coco.attributes import attribute_columns
from mixlens.sources.coco.masks import Masks
from mixlens.tasks.photo import Categories

CATEGORIES = Categories(("zebra", "cup", "bowl", "dog"), ("animal", "kitchen", "kitchen", "animal"))


def columns(
    images: list[list[tuple]], side: int = 100, covered=None, crowded=None, names=CATEGORIES
):
    """Attributes of images of (category, x, y, area, hidden, crowd), boxes around x and y."""
    flat = [(row, *one) for row, own in enumerate(images) for one in own]
    table = np.array(flat, float).reshape(-1, 7)
    row, category, x, y, area, hidden, crowd = table.T
    nothing = np.zeros(len(images), np.int64)
    masks = Masks(
        np.ones(len(flat), bool), area, hidden,
        nothing if covered is None else np.array(covered),
        nothing if crowded is None else np.array(crowded),
    )  # fmt: skip
    return attribute_columns(
        row.astype(np.int64), category.astype(np.int16),
        np.stack([x - 3, y - 2, x + 3, y + 2], 1), crowd.astype(bool), masks,
        np.full((len(images), 2), side), np.ones(len(images), bool), names,
    )  # fmt: skip


def at(found: dict[str, np.ndarray], row: int) -> dict:
    return {name: column.item(row) for name, column in found.items()}


def test_an_image_without_objects():
    found = at(columns([[(0, 5, 5, 100, 0.0, 0)], []]), 1)
    assert found.pop("dominant_category") == found.pop("dominant_supercategory") == "nothing"
    assert found.pop("crowding") == 1.0
    assert set(found.values()) == {0}


def test_values_in_closed_form():
    objects = [
        (1, 10, 10, 400, 0.5, 0),
        (1, 40, 50, 400, 0.0, 0),
        (3, 10, 20, 1600, 0.1, 0),
        (0, 90, 90, 100, 0.4, 0),
        (2, 50, 50, 5000, 1.0, 1),  # a crowd of bowls
    ]
    found = at(columns([objects], covered=[6000], crowded=[5000]), 0)
    assert found["object_count"] == 4
    assert found["category_count"] == 3
    assert found["supercategory_count"] == 2
    assert found["category_diversity"] == pytest.approx(1.5 * math.log(2), abs=1e-9)
    assert found["supercategory_diversity"] == pytest.approx(math.log(2), abs=1e-9)
    sizes = [0.2, 0.2, 0.4, 0.1]
    assert found["size_mean"] == pytest.approx(np.mean(sizes))
    assert found["size_variance"] == pytest.approx(np.var(sizes))
    assert found["size_spread"] == pytest.approx(0.3)
    nearest = [10, math.hypot(30, 30), 10, math.hypot(50, 40)]
    assert found["crowding"] == pytest.approx(np.mean(nearest) / 100)
    assert found["occlusion"] == pytest.approx(0.25)
    assert found["covered_fraction"] == 0.6
    assert found["crowd_fraction"] == 0.5
    assert found["object_area_mean"] == pytest.approx(0.0625)
    assert found["dominant_category"] == "bowl"
    assert found["dominant_supercategory"] == "kitchen"


def test_the_first_in_the_alphabet_wins_a_tie_and_areas_are_summed():
    tie = [(0, 1, 1, 50, 0, 0), (3, 9, 9, 50, 0, 0)]  # zebra and dog, both animals
    summed = [(1, 1, 1, 30, 0, 0), (1, 9, 9, 30, 0, 0), (0, 5, 5, 59, 0, 0)]
    found = columns([tie, summed, [(0, 1, 1, 7, 0, 0), (2, 5, 5, 7, 0, 1)]])
    assert found["dominant_category"].tolist() == ["dog", "cup", "bowl"]
    assert found["dominant_supercategory"].tolist() == ["animal", "kitchen", "animal"]


def test_categories_of_one_name_are_one():
    """As in questions, where they could not be told apart."""
    twice = Categories(("cup", "bowl", "cup"), ("kitchen", "kitchen", "kitchen"))
    found = columns([[(0, 1, 1, 40, 0, 0), (1, 9, 9, 60, 0, 0), (2, 5, 5, 30, 0, 0)]], names=twice)
    assert found["category_count"].tolist() == [2]
    assert found["dominant_category"].tolist() == ["cup"]


def test_one_object_and_crowds_alone():
    found = columns([[(0, 5, 5, 100, 0.0, 0)], [(0, 5, 5, 100, 0.9, 1), (1, 9, 5, 10, 0.9, 1)]])
    assert found["crowding"].tolist() == [1.0, 1.0]
    assert found["object_count"].tolist() == [1, 0]
    assert found["occlusion"].tolist() == [0, 0]
    assert found["size_spread"].tolist() == [0, 0]
    assert found["category_diversity"].tolist() == [0, 0]
    assert found["dominant_category"].tolist() == ["zebra", "zebra"]


def random_images(count: int) -> list[list[tuple]]:
    random = np.random.default_rng(5)
    return [
        [
            (random.integers(4), *random.uniform(5, 95, 2), random.integers(1, 4000),
             random.random(), random.random() < 0.2)
            for _ in range(random.integers(0, 25))
        ]
        for _ in range(count)
    ]  # fmt: skip


def assert_same(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        same = expected[name] if isinstance(value, str) else pytest.approx(expected[name], rel=1e-9)
        assert value == same, name


def test_an_image_has_the_same_attributes_alone_and_among_others():
    images = random_images(40)
    together = columns(images)
    for row, own in enumerate(images):
        assert_same(at(columns([own]), 0), at(together, row))


def test_the_order_of_objects_does_not_matter():
    images = random_images(20)
    forward, backward = columns(images), columns([own[::-1] for own in images])
    for row in range(len(images)):
        assert_same(at(forward, row), at(backward, row))


def test_crowding_is_the_mean_distance_to_the_nearest():
    images = random_images(30)
    found = columns(images)["crowding"]
    for row, own in enumerate(images):
        centres = [np.array(one[1:3]) for one in own if not one[5]]
        nearest = [
            min(np.linalg.norm(a - b) for j, b in enumerate(centres) if j != i)
            for i, a in enumerate(centres) if len(centres) > 1
        ]  # fmt: skip
        assert found[row] == pytest.approx(np.mean(nearest) / 100 if nearest else 1.0)


def test_types_are_plain_numbers_and_text():
    found = columns([[(0, 5, 5, 100, 0.0, 0)]])
    for name, value in at(found, 0).items():
        expected = str if name.startswith("dominant") else int if name.endswith("count") else float
        assert type(value) is expected, name
