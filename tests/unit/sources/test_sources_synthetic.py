"""The synthetic source: the row contract, its bounds, and refusals before any work."""

import numpy as np
import pytest

from mixlens.errors import DataError, SpecError
from mixlens.scenes import make_scene
from mixlens.sources import from_row, open_source, to_row
from mixlens.spec import SceneComponent, SceneSpec

TASKS = {"coarse": 2, "relational": 3, "scene_graph": 1}


def test_an_example_is_the_scene_with_its_index():
    spec = SceneComponent(tasks=TASKS, seed=4)
    source = open_source("complex", spec)
    assert source.size is None
    far = 2**62 - 1 + 5
    for index in (0, 7, far):
        example = source.example(index)
        scene = make_scene(spec.scene, 4, index)
        assert example.example_id == f"complex/{index}"
        assert example.component == "complex"
        assert np.array_equal(example.image, scene.image)
        assert example.attributes == scene.attributes
        assert {turn.group for turn in example.turns} <= set(TASKS)


def test_an_example_does_not_depend_on_what_was_read_before():
    spec = SceneComponent(tasks=TASKS)
    one, other = open_source("a", spec), open_source("a", spec)
    other.example(3)
    assert one.example(9).turns == other.example(9).turns


def test_rows_bring_the_example_back():
    example = open_source("a", SceneComponent(tasks=TASKS)).example(1)
    back = from_row(to_row(example))
    assert back.turns == example.turns
    assert back.attributes == example.attributes
    assert back.example_id == example.example_id
    assert np.array_equal(back.image, example.image)


@pytest.mark.parametrize("index", [-1, 10, 2**62 - 1])
def test_indices_outside_a_finite_component_are_refused(index):
    source = open_source("small", SceneComponent(tasks=TASKS, size=10))
    assert source.size == 10
    assert source.example(9).turns
    with pytest.raises(DataError, match=rf"small.*{index}.*0 to 9"):
        source.example(index)


def test_negative_indices_are_refused_in_endless_components_too():
    with pytest.raises(DataError, match="from 0 up"):
        open_source("a", SceneComponent(tasks=TASKS)).example(-1)


def test_what_cannot_be_satisfied_is_refused_on_opening():
    crowded = SceneSpec(objects=200, sizes=({"name": "large", "diameter": 0.3},))
    with pytest.raises(SpecError):
        open_source("a", SceneComponent(tasks=TASKS, scene=crowded))
    misnamed = SceneSpec(sizes=({"name": "Extra Large", "diameter": 0.1},))
    with pytest.raises(SpecError, match="Extra Large"):
        open_source("a", SceneComponent(tasks=TASKS, scene=misnamed))


def test_a_source_tells_of_its_scenes():
    source = open_source("a", SceneComponent(tasks=TASKS, scene=SceneSpec(objects=(2, 4))))
    assert source.attributes(3) == source.example(3).attributes
    assert source.attribute_names() == sorted(source.attributes(3))
    assert source.describe() == "scenes of 2 to 4 objects"
    assert source.caveats() == []
