"""The described world against the pixels: masks, boxes, areas, ink, occlusion, attributes."""

import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import KDTree
from scipy.stats import entropy

from mixlens.scenes import Scene, SceneObject, check_scene_spec, full_mask, make_scene, mask
from mixlens.scenes.render import RGB
from mixlens.spec import SceneSpec, SizeRange

ALL_SHAPES = (
    "circle", "square", "triangle", "pentagon", "hexagon", "star", "cross", "diamond", "ring",
    "heart",
)  # fmt: skip
SPECS = {
    "separated": SceneSpec(shapes=ALL_SHAPES),
    "small image": SceneSpec(shapes=ALL_SHAPES, image_size=112),
    "crowded": SceneSpec(objects=(12, 16)),
    "fixed ink": SceneSpec(ink="fixed_total", total_ink=0.03, objects=(1, 8)),
    "overlapping": SceneSpec(placement="overlapping", objects=(2, 14), shapes=ALL_SHAPES),
    "mostly hidden": SceneSpec(
        placement="overlapping", objects=(6, 12), visible_fraction=(0.2, 0.6)
    ),
}


@pytest.fixture(scope="module", params=SPECS)
def scenes(request: pytest.FixtureRequest) -> tuple[SceneSpec, list[Scene]]:
    spec = SPECS[request.param]
    check_scene_spec(spec)
    return spec, [make_scene(spec, 11, index) for index in range(40)]


def test_objects_come_in_the_numbers_and_kinds_that_were_asked(scenes) -> None:
    spec, made = scenes
    counts = {len(scene.objects) for scene in made}
    assert counts <= set(range(spec.objects[0], spec.objects[1] + 1))
    assert len(counts) > 2
    things = [thing for scene in made for thing in scene.objects]
    assert {thing.shape for thing in things} == set(spec.shapes)
    assert {thing.colour for thing in things} == set(spec.colours)
    assert {thing.texture for thing in things} == set(spec.textures)
    assert all(thing.rotation % 5 == 0 and 0 <= thing.rotation < 360 for thing in things)


def test_full_masks_agree_with_box_area_and_circumscribed_circle(scenes) -> None:
    _, made = scenes
    for scene in made:
        for i, thing in enumerate(scene.objects):
            y, x = np.nonzero(full_mask(scene, i))
            assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == thing.box
            assert len(x) == thing.area
            # A pixel belongs when at least half of it does, so its centre is never far outside.
            reach = np.hypot(x + 0.5 - thing.x, y + 0.5 - thing.y).max()
            assert thing.diameter / 2 - 1.8 < reach < thing.diameter / 2 + 0.3


def test_the_ids_are_the_masks_painted_back_to_front(scenes) -> None:
    _, made = scenes
    for scene in made:
        ids = np.zeros_like(scene.ids)
        for i in range(len(scene.objects)):
            ids[full_mask(scene, i)] = i + 1
        assert (ids == scene.ids).all()


def test_visible_fractions_are_those_of_the_masks(scenes) -> None:
    spec, made = scenes
    for scene in made:
        for i, thing in enumerate(scene.objects):
            assert thing.visible_fraction == mask(scene, i).sum() / full_mask(scene, i).sum()
            if spec.placement == "separated":
                assert thing.visible_fraction == 1.0
            elif thing.visible_fraction < 1.0:
                assert spec.visible_fraction[0] <= thing.visible_fraction
                assert thing.visible_fraction <= spec.visible_fraction[1]


@pytest.mark.parametrize(
    "bounds",
    [(0.4, 0.9), (0.2, 0.6), (0.05, 0.1), (0.5, 0.6), (0.5, 0.55), (0.5, 0.52), (0.8, 0.82),
     (0.9, 1.0)],
)  # fmt: skip
@pytest.mark.parametrize("name", ["overlapping", "tiny"])
def test_of_the_objects_behind_others_about_half_are_partly_hidden(
    name: str, bounds: tuple[float, float]
) -> None:
    tiny = (SizeRange(name="tiny", diameter=(0.03, 0.045)),)
    spec = SPECS[name] if name in SPECS else SceneSpec(objects=(20, 30), sizes=tiny)
    spec = spec.model_copy(update={"placement": "overlapping", "visible_fraction": bounds})
    check_scene_spec(spec)
    made = [make_scene(spec, 2, i) for i in range(10 if name == "tiny" else 35)]
    shares = [thing.visible_fraction for scene in made for thing in scene.objects]
    hidden = [share for share in shares if share < 1]
    assert 0.38 < len(hidden) / (len(shares) - len(made)) < 0.62
    assert bounds[0] <= min(hidden)
    assert max(hidden) <= bounds[1]
    # The shares spread over the range, they do not crowd at an end of it.
    assert abs(np.mean(hidden) - np.mean(bounds)) < 0.2 * (bounds[1] - bounds[0])


def test_every_pixel_has_the_colour_of_its_object_or_is_white(scenes) -> None:
    _, made = scenes
    for scene in made:
        pixels = 0
        for i, thing in enumerate(scene.objects):
            seen = scene.image[mask(scene, i)]
            inked = (seen == RGB[thing.colour]).all(-1)
            assert (inked | (seen == 255).all(-1)).all()
            pixels += inked.sum()
            if thing.visible_fraction == 1.0:
                assert inked.sum() == thing.ink
        assert (scene.image[scene.ids == 0] == 255).all()
        side = scene.ids.shape[0]
        assert scene.attributes["ink_fraction"] == pytest.approx(pixels / side**2, abs=1e-12)


def test_separated_objects_do_not_touch(scenes) -> None:
    spec, made = scenes
    if spec.placement == "overlapping":
        pytest.skip("overlapping scenes may touch")
    for scene in made:
        things = scene.objects
        for i, one in enumerate(things):
            for two in things[:i]:
                gap = math.dist((one.x, one.y), (two.x, two.y))
                assert gap >= (one.diameter + two.diameter) / 2 + 2
        # No pixel of an object has a pixel of another one among its 8 neighbours.
        grown = ndimage.maximum_filter(scene.ids, 3)
        shrunk = ndimage.minimum_filter(np.where(scene.ids == 0, 255, scene.ids), 3)
        assert (grown == shrunk)[scene.ids > 0].all()


def test_attributes_against_other_implementations(scenes) -> None:
    _, made = scenes
    for scene in made:
        things, got, side = scene.objects, scene.attributes, scene.ids.shape[0]

        def diversity(names: list[str]) -> float:
            return float(entropy(np.unique(names, return_counts=True)[1]))

        assert got["object_count"] == len(things)
        for key in ("shape", "colour", "texture"):
            names = [getattr(thing, key) for thing in things]
            assert got[f"{key}_diversity"] == pytest.approx(diversity(names), abs=1e-8)
        diameters = np.array([thing.diameter for thing in things]) / side
        assert got["size_mean"] == pytest.approx(diameters.mean())
        assert got["size_variance"] == pytest.approx(diameters.var(), abs=1e-12)
        assert got["covered_fraction"] == pytest.approx((scene.ids > 0).mean())
        areas = [full_mask(scene, i).mean() for i in range(len(things))]
        assert got["object_area_mean"] == pytest.approx(np.mean(areas))
        hidden = [1 - thing.visible_fraction for thing in things]
        assert got["occlusion"] == pytest.approx(np.mean(hidden), abs=1e-12)
        centres = [(thing.x, thing.y) for thing in things]
        if len(things) > 1:
            nearest = KDTree(centres).query(centres, k=2)[0][:, 1].mean() / side
            assert got["crowding"] == pytest.approx(nearest)
        else:
            assert got["crowding"] == 1.0
        assert got["dominant_colour"] == _dominant(scene, "colour")
        assert got["dominant_shape"] == _dominant(scene, "shape")


def _dominant(scene: Scene, key: str) -> str:
    def pixels(i: int, thing: SceneObject) -> int:
        seen = scene.image[mask(scene, i)]
        return int((seen == RGB[thing.colour]).all(-1).sum()) if key == "colour" else len(seen)

    sums: dict[str, int] = {}
    for i, thing in enumerate(scene.objects):
        name = getattr(thing, key)
        sums[name] = sums.get(name, 0) + pixels(i, thing)
    return min(name for name in sums if sums[name] == max(sums.values()))


def test_size_words_name_the_range_of_the_diameter() -> None:
    spec = SceneSpec()
    ranges = {named.name: named.diameter for named in spec.sizes}
    for index in range(60):
        for thing in make_scene(spec, 4, index).objects:
            low, high = ranges[thing.size]
            assert low * 224 - 0.5 <= thing.diameter <= high * 224 + 0.5


def test_free_sizes_fill_their_ranges_evenly() -> None:
    spec = SceneSpec(objects=(1, 1), sizes=(SizeRange(name="any", diameter=(0.1, 0.3)),))
    diameters = [make_scene(spec, 5, index).objects[0].diameter / 224 for index in range(800)]
    quarters = np.histogram(diameters, bins=4, range=(0.1, 0.3))[0] / 800
    assert np.abs(quarters - 0.25).max() < 0.07
