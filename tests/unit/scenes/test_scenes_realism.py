"""Backgrounds and camera effects do what their numbers say, and nothing to the world."""

import numpy as np
import pytest

from mixlens.scenes import make_scene
from mixlens.scenes.render import RGB
from mixlens.spec import SceneSpec


@pytest.mark.parametrize("kind", ["colour", "gradient", "noise"])
def test_backgrounds_leave_the_objects_alone_and_in_sight(kind: str) -> None:
    for index in range(20):
        scene = make_scene(SceneSpec(background=kind), 0, index)
        white = make_scene(SceneSpec(), 0, index)
        assert scene.attributes["background"] == kind
        assert (scene.image[scene.ids > 0] == white.image[scene.ids > 0]).all()
        behind = scene.image[scene.ids == 0].astype(int)
        for rgb in RGB.values():
            assert np.abs(behind - rgb).max(1).min() >= 50
        colours = len(np.unique(behind, axis=0))
        assert colours == 1 if kind == "colour" else colours > 5


def test_a_gradient_is_smooth() -> None:
    for index in range(10):
        spec = SceneSpec(background="gradient", objects=1)
        scene = make_scene(spec, 0, index)
        clear = scene.ids == 0
        for axis in (0, 1):
            steps = np.abs(np.diff(scene.image.astype(int), axis=axis)).max(-1)
            both = np.diff(clear.astype(int), axis=axis) == 0
            inside = both & np.take(clear, range(clear.shape[axis] - 1), axis)
            assert steps[inside].max() <= 1


@pytest.mark.parametrize("deviation", [2.0, 10.0])
def test_sensor_noise_has_the_deviation_that_was_asked(deviation: float) -> None:
    spec = SceneSpec(background="colour", sensor_noise=deviation, objects=1)
    calm = spec.model_copy(update={"sensor_noise": (0.0, 0.0)})
    # Away from white, where values would be cut off at 255.
    seen, meant = (make_scene(s, 3, 1) for s in (spec, calm))
    dim = meant.image < 225
    noise = seen.image.astype(float)[dim] - meant.image[dim]
    assert dim.sum() > 10_000
    assert noise.std() == pytest.approx(deviation, rel=0.05)
    assert abs(noise.mean()) < 0.1
    assert seen.attributes["sensor_noise"] == deviation


@pytest.mark.parametrize("strength", [0.2, 0.7])
def test_lighting_dims_one_end_of_the_image_by_its_strength(strength: float) -> None:
    for index in range(8):
        scene = make_scene(SceneSpec(lighting=strength, objects=1), 0, index)
        light = scene.image[scene.ids == 0] / 255
        assert light.max() == pytest.approx(1.0, abs=0.06)
        assert light.min() == pytest.approx(1 - strength, abs=0.06)
        assert scene.attributes["lighting"] == strength


def test_blur_softens_edges_and_keeps_the_mean() -> None:
    sharp, soft = (make_scene(SceneSpec(blur=b), 0, 5) for b in (0.0, 2.0))
    steps = [np.abs(np.diff(s.image.astype(int), axis=1)).max() for s in (sharp, soft)]
    assert steps[1] < 0.6 * steps[0]
    assert soft.image.mean() == pytest.approx(sharp.image.mean(), abs=1.0)


def test_strengths_spread_over_their_ranges() -> None:
    spec = SceneSpec(image_size=64, objects=1, sensor_noise=(2, 6))
    drawn = [make_scene(spec, 0, i).attributes["sensor_noise"] for i in range(200)]
    assert 2 <= min(drawn) < 2.3
    assert 5.7 < max(drawn) <= 6
    assert np.mean(drawn) == pytest.approx(4, abs=0.3)
