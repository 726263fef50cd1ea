"""What is refused, with what would fit; and what is accepted always comes out."""

import re

import pytest
from pydantic import ValidationError

from mixlens.errors import SpecError
from mixlens.scenes import check_scene_spec, make_scene
from mixlens.spec import SceneSpec, SizeRange


def one_size(share: float) -> tuple[SizeRange, ...]:
    return (SizeRange(name="only", diameter=(share, share)),)


@pytest.mark.parametrize("image_size", [112, 224, 336])
@pytest.mark.parametrize("placement", ["separated", "overlapping"])
def test_200_large_objects_are_refused_with_what_would_fit(image_size: int, placement: str) -> None:
    spec = SceneSpec(
        objects=(200, 200), sizes=one_size(0.1), image_size=image_size, placement=placement
    )
    with pytest.raises(SpecError, match=r"objects: got \(200, 200\)") as refused:
        check_scene_spec(spec)
    most = int(re.findall(r"At this size (\d+) fit", str(refused.value))[0])
    share = float(re.findall(r"up to a diameter of ([0-9.]+)\.", str(refused.value))[0])
    fitting = [
        spec.model_copy(update={"objects": (most, most)}),
        spec.model_copy(update={"sizes": one_size(share)}),
    ]
    for accepted in fitting:
        check_scene_spec(accepted)
        for index in range(6):
            scene = make_scene(accepted, 0, index)
            assert len(scene.objects) == accepted.objects[0]
    with pytest.raises(SpecError):
        check_scene_spec(spec.model_copy(update={"objects": (most + 1, most + 1)}))


def test_free_sizes_that_fit_only_when_small_still_give_every_object() -> None:
    sizes = (
        SizeRange(name="small", diameter=(0.055, 0.06)),
        SizeRange(name="large", diameter=(0.3, 0.4)),
    )
    spec = SceneSpec(objects=(195, 200), sizes=sizes)
    check_scene_spec(spec)
    scene = make_scene(spec, 0, 0)
    assert len(scene.objects) >= 195


@pytest.mark.parametrize("seed", range(3))
def test_the_default_at_its_largest_count_keeps_all_sizes(seed: int) -> None:
    spec = SceneSpec(objects=(10, 10))
    words = [t.size for i in range(60) for t in make_scene(spec, seed, i).objects]
    for word in ("small", "medium", "large"):
        # Scenes that do not fit are drawn again, which costs the large objects a little.
        assert 0.27 < words.count(word) / len(words) < 0.40


def test_rotations_without_a_multiple_of_five_are_refused() -> None:
    with pytest.raises(SpecError, match=r"rotation: got \(6.0, 9.0\).*multiples of 5"):
        check_scene_spec(SceneSpec(rotation=(6, 9)))
    check_scene_spec(SceneSpec(rotation=10))
    things = [t for i in range(5) for t in make_scene(SceneSpec(rotation=10), 0, i).objects]
    assert {thing.rotation for thing in things} == {10}


@pytest.mark.parametrize(
    "spec",
    [
        SceneSpec(image_size=32, sizes=one_size(0.1)),
        SceneSpec(ink="fixed_size", object_diameter=0.01),
    ],
)
def test_objects_of_a_few_pixels_are_refused(spec: SceneSpec) -> None:
    with pytest.raises(SpecError, match=r"too small to show a shape.*is the least \(5 pixels\)"):
        check_scene_spec(spec)


@pytest.mark.parametrize("bounds", [(0.5, 0.5), (0.05, 0.08)])
def test_shares_that_objects_cannot_show_are_refused_with_what_works(bounds: tuple) -> None:
    # Half a pixel cannot be hidden, nor most of a large object by small ones.
    sizes = [("small", (0.15, 0.17)), ("medium", (0.22, 0.25)), ("large", (0.4, 0.45))]
    spec = SceneSpec(
        image_size=112,
        objects=(2, 4),
        sizes=tuple(SizeRange(name=name, diameter=share) for name, share in sizes),
        placement="overlapping",
        visible_fraction=bounds,
    )
    with pytest.raises(
        SpecError, match=r"visible_fraction: got .* can show a share in this"
    ) as refused:
        check_scene_spec(spec)
    low, high = re.findall(r"With these objects ([0-9.]+) to ([0-9.]+) works", str(refused.value))[
        0
    ]
    assert float(low) <= bounds[0] <= bounds[1] <= float(high)
    check_scene_spec(spec.model_copy(update={"visible_fraction": (float(low), float(high))}))
    # Nothing can be hidden where there is one object, whatever the range.
    check_scene_spec(spec.model_copy(update={"objects": (1, 1)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": (0, 3)}, "must lie within 1 to 200"),
        ({"objects": (1, 201)}, "must lie within 1 to 200"),
        ({"object_diameter": 0.1}, "object_diameter is needed with ink: fixed_size"),
        ({"ink": "fixed_total"}, "total_ink is needed"),
        ({"colours": ("red", "red")}, "each once"),
        ({"shapes": ()}, "at least one value"),
        ({"lighting": (0, 2)}, "lighting .* must lie within 0 and 1"),
        ({"visible_fraction": (0.5, 1.2)}, "visible_fraction .* must lie within 0"),
        ({"visible_fraction": (0.0, 1.0)}, "must start at 0.05 or more"),
        (
            {"sizes": ({"name": "a", "diameter": (0.1, 0.2)}, {"name": "b", "diameter": 0.15})},
            "must not meet",
        ),
        (
            {"sizes": ({"name": "a", "diameter": 0.1}, {"name": "a", "diameter": 0.2})},
            "different names",
        ),
        ({"sizes": ({"name": "a", "diameter": (0, 0.2)},)}, "must lie within 0 to 1"),
    ],
)
def test_impossible_values_are_refused_when_they_are_read(change: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SceneSpec(**change)
