"""Count and ink can be separated: fixed sizes, fixed total ink."""

import numpy as np
import pytest

from mixlens.errors import SpecError
from mixlens.scenes import check_scene_spec, make_scene
from mixlens.scenes.sizes import ink_tolerance
from mixlens.spec import SceneSpec

SOLIDISH = ("solid", "striped", "dotted", "checked")


def columns(spec: SceneSpec, scenes: int, *names: str) -> list[np.ndarray]:
    check_scene_spec(spec)
    made = [make_scene(spec, 1, index).attributes for index in range(scenes)]
    return [np.array([float(attributes[name]) for attributes in made]) for name in names]


@pytest.mark.parametrize(
    ("objects", "share", "image_size", "textures"),
    [
        ((1, 1), 0.01, 112, SceneSpec().textures),
        ((1, 3), 0.04, 112, SceneSpec().textures),
        ((1, 1), 0.05, 224, ("outlined",)),
        ((2, 10), 0.03, 224, SceneSpec().textures),
        ((1, 60), 0.04, 224, SceneSpec().textures),
        ((1, 200), 0.07, 224, SOLIDISH),
        ((200, 200), 0.1, 224, SceneSpec().textures),
    ],
)
def test_the_painted_ink_is_the_target_whatever_the_count(
    objects: tuple[int, int], share: float, image_size: int, textures: tuple
) -> None:
    spec = SceneSpec(
        ink="fixed_total",
        total_ink=share,
        objects=objects,
        image_size=image_size,
        textures=textures,
    )
    (ink,) = columns(spec, 25, "ink_fraction")
    pixels = image_size**2
    assert np.abs(ink - share).max() * pixels <= ink_tolerance(share * pixels)


def test_with_fixed_ink_the_count_says_nothing_about_the_ink() -> None:
    spec = SceneSpec(ink="fixed_total", total_ink=0.07, objects=(1, 60), textures=SOLIDISH)
    count, ink = columns(spec, 150, "object_count", "ink_fraction")
    assert count.std() > 10
    # What is left of the ink's spread is the tolerance, and the count hardly explains it.
    slope = np.polyfit(count, ink, 1)[0]
    assert abs(slope) * 60 < 0.01 * 0.07


def test_with_fixed_size_the_count_says_nothing_about_the_size() -> None:
    spec = SceneSpec(ink="fixed_size", object_diameter=0.1, objects=(1, 30))
    count, area, size, ink = columns(
        spec, 300, "object_count", "object_area_mean", "size_variance", "ink_fraction"
    )
    assert abs(np.corrcoef(count, area)[0, 1]) < 0.15
    assert (size == 0).all()
    # Without the mode the two are the same thing.
    assert np.corrcoef(count, ink)[0, 1] > 0.9


def test_fixed_ink_keeps_the_proportions_of_the_sizes() -> None:
    spec = SceneSpec(ink="fixed_total", total_ink=0.04, objects=(6, 6), textures=("solid",))
    ratios = [
        max(t.diameter for t in scene.objects) / min(t.diameter for t in scene.objects)
        for scene in (make_scene(spec, 1, index) for index in range(30))
    ]
    assert 1.8 < np.median(ratios) < 2.9


@pytest.mark.parametrize(
    ("share", "objects"), [(0.3, (1, 10)), (0.001, (1, 100)), (0.05, (1, 3)), (0.01, (20, 60))]
)
def test_the_bounds_in_a_refusal_are_the_real_ones(share: float, objects: tuple) -> None:
    spec = SceneSpec(ink="fixed_total", total_ink=share, objects=objects)
    with pytest.raises(SpecError, match=r"total_ink: got .* to [0-9.]+ fits") as refused:
        check_scene_spec(spec)
    low, high = (float(w) for w in str(refused.value).split(" fits")[0].split()[-3::2])
    for fitting in (low, high):
        accepted = spec.model_copy(update={"total_ink": fitting})
        (ink,) = columns(accepted, 12, "ink_fraction")
        assert np.abs(ink - fitting).max() * 224**2 <= ink_tolerance(fitting * 224**2)
