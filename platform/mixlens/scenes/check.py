"""Refuse a scene spec that cannot be satisfied, and say what would fit."""

import math
from functools import lru_cache
from statistics import fmean, pstdev

from mixlens.errors import SpecError, explain
from mixlens.scenes.make import make_scene
from mixlens.scenes.place import cell_count, largest_side
from mixlens.scenes.sample import rotations
from mixlens.scenes.sizes import MIN_DIAMETER, pixel_range, whole_pixels
from mixlens.scenes.sprites import sprite
from mixlens.spec.scene import SceneSpec

# Overlapping scenes are tried out: as many as have so many objects behind others, at most so many.
# Of the objects that hide behind another when any share will do, so many must with the range too.
_TRIED_OBJECTS = 150
_TRIED_SCENES = 150
_HIDDEN_AT_LEAST = 0.7
_ANY = (0.05, 1.0)
_WIDER = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.9)  # what is added at each end to find what works

# Diameters at which the ink of a kind is looked up where it must not be too little, and what
# rotations may add or take away.
_PROBES = (10, 14, 18, 19, 25, 31, 37, 56, 93)
_MARGIN = 0.1


@lru_cache(maxsize=64)
def check_scene_spec(spec: SceneSpec) -> None:
    """Accept a spec only if every scene of it is sure to hold the objects that it asks for.

    Raises:
        SpecError: the objects do not fit, are too small to show their shape, cannot paint as much
            as they should, or cannot hide each other by the shares they should; or a range of
            rotations holds none that can be drawn.
    """
    if not rotations(spec):
        raise SpecError(
            explain(
                "scene.rotation",
                spec.rotation,
                "rotations are multiples of 5 degrees and the range holds none",
                "Widen the range.",
            )
        )
    if spec.ink == "fixed_total":
        _check_total_ink(spec)
    else:
        _check_sizes(spec)
    if spec.placement == "overlapping" and spec.objects[1] > 1:
        _check_hiding(spec)


def _check_sizes(spec: SceneSpec) -> None:
    side = spec.image_size
    if spec.object_diameter is not None:
        where, smallest = "scene.object_diameter", whole_pixels(spec.object_diameter, side)
    else:
        where = "scene.sizes"
        smallest = min(pixel_range(named.diameter, side)[0] for named in spec.sizes)
    if smallest < MIN_DIAMETER:
        raise SpecError(
            explain(
                where,
                smallest / side,
                f"objects of {smallest} pixels are too small to show a shape",
                f"At image_size {side}, {math.ceil(1000 * MIN_DIAMETER / side) / 1000:g} is the "
                f"least ({MIN_DIAMETER} pixels).",
            )
        )
    most, count = cell_count(smallest, side), spec.objects[1]
    if count > most:
        raise SpecError(
            explain(
                "scene.objects",
                spec.objects,
                f"{count} objects of diameter {smallest / side:.3g} ({smallest} pixels) do not "
                "fit without touching" + _cell_note(spec),
                f"At this size {most} fit; {_size_that_fits(count, side)}",
            )
        )


def _cell_note(spec: SceneSpec) -> str:
    # Only crowding makes a scene fall back to a grid, but then it has to work.
    return " (when no other places are found)" if spec.placement == "overlapping" else ""


def _size_that_fits(count: int, side: int) -> str:
    largest = largest_side(count, side)
    if largest < MIN_DIAMETER:
        return f"for {count} objects the image is too small."
    return f"{count} fit up to a diameter of {math.floor(1000 * largest / side) / 1000:g}."


def _check_hiding(spec: SceneSpec) -> None:
    any_share = max(1, _hidden(spec, _ANY))
    if (share := _hidden(spec, spec.visible_fraction) / any_share) >= _HIDDEN_AT_LEAST:
        return
    low, high = spec.visible_fraction
    tried = [(max(_ANY[0], low - wider), min(_ANY[1], high + wider)) for wider in _WIDER]
    works = next(b for b in tried if _hidden(spec, b) >= _HIDDEN_AT_LEAST * any_share)
    raise SpecError(
        explain(
            "scene.visible_fraction",
            spec.visible_fraction,
            "of the objects that should be partly hidden, only "
            f"{share:.0%} can show a share in this range, in whole pixels and behind these sizes",
            f"With these objects {works[0]:g} to {works[1]:g} works.",
        )
    )


def _hidden(spec: SceneSpec, visible: tuple[float, float]) -> int:
    """How many objects are partly hidden in some scenes of a spec with another range of shares."""
    spec = spec.model_copy(update={"visible_fraction": visible})
    behind = hidden = 0
    for index in range(_TRIED_SCENES):
        objects = make_scene(spec, 0, index).objects
        behind += len(objects) - 1
        hidden += sum(thing.visible_fraction < 1 for thing in objects)
        if behind >= _TRIED_OBJECTS:
            break
    return hidden


def _check_total_ink(spec: SceneSpec) -> None:
    assert spec.total_ink is not None
    side = spec.image_size
    low, high = spec.objects
    # All objects of a scene can be of one size. It is largest when they are of kinds that paint
    # little, and smallest when of kinds that paint much.
    fullest, crowd = min(
        (_ink_bounds(spec, count, _PROBES)[0] * largest_side(count, side) ** 2, count)
        for count in range(low, high + 1)
    )
    emptiest = _ink_bounds(spec, high, (MIN_DIAMETER,))[1] * MIN_DIAMETER**2
    bounds = (emptiest / side**2, fullest / side**2)
    if bounds[0] <= spec.total_ink <= bounds[1]:
        return
    if spec.total_ink < bounds[0]:
        problem = f"{high} objects may come out under {MIN_DIAMETER} pixels wide"
    else:
        problem = f"{crowd} objects of the kinds that paint least do not fit without touching"
    remedy = "Narrow the range of objects, leave out the outlined texture, or enlarge the image."
    if bounds[0] <= bounds[1]:
        ends = math.ceil(1e4 * bounds[0]) / 1e4, math.floor(1e4 * bounds[1]) / 1e4
        remedy = f"With these objects, shapes and textures {ends[0]:g} to {ends[1]:g} fits."
    raise SpecError(explain("scene.total_ink", spec.total_ink, problem, remedy))


def _ink_bounds(spec: SceneSpec, count: int, probes: tuple[int, ...]) -> tuple[float, float]:
    """Least and most that `count` random objects of one diameter paint, in diameters squared.

    Bounds that no draw can leave for few objects, 4 standard deviations for many.
    """
    least, most, mean, deviation = _ink_of_kinds(spec.shapes, spec.textures, probes)
    spread = 4 * deviation * math.sqrt(count)
    return max(count * least, count * mean - spread), min(count * most, count * mean + spread)


@lru_cache(maxsize=64)
def _ink_of_kinds(
    shapes: tuple[str, ...], textures: tuple[str, ...], probes: tuple[int, ...]
) -> tuple[float, float, float, float]:
    """Least, most, mean and standard deviation of a kind's ink as a share of diameter squared."""
    shares = [
        [
            sprite(shape, texture, 4 * probe, 0, probe, probe).painted / probe**2
            for shape in shapes
            for texture in textures
        ]
        for probe in probes
    ]
    return (
        min(map(min, shares)) * (1 - _MARGIN),
        max(map(max, shares)) * (1 + _MARGIN),
        fmean(map(fmean, shares)),
        max(map(pstdev, shares)),
    )
