"""Refuse a scene spec that cannot be satisfied, and say what would fit."""

import math
from functools import lru_cache

from mixlens.errors import SpecError, explain
from mixlens.scenes.place import cell_count, largest_side
from mixlens.scenes.sample import rotations
from mixlens.scenes.sizes import MIN_DIAMETER, pixel_range, whole_pixels
from mixlens.scenes.sprites import sprite
from mixlens.spec.scene import SceneSpec

# Diameters at which the ink of a kind is looked up, and what rotations may add or take away.
_PROBES = (10, 14, 18, 19, 25, 31, 37, 56, 93)
_MARGIN = 0.1


@lru_cache(maxsize=64)
def check_scene_spec(spec: SceneSpec) -> None:
    """Accept a spec only if every scene of it is sure to hold the objects that it asks for.

    Raises:
        SpecError: the objects do not fit, are too small to show their shape, or cannot paint as
            much as they should; or a range of rotations holds none that can be drawn.
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
        return
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


def _check_total_ink(spec: SceneSpec) -> None:
    assert spec.total_ink is not None
    least, most = _ink_shares(spec.shapes, spec.textures)
    side = spec.image_size
    low, high = spec.objects
    # Equal objects of the kind that paints least are the largest, and of the other the smallest.
    largest = min(
        (count * least * largest_side(count, side) ** 2, count) for count in range(low, high + 1)
    )
    smallest = high * most * MIN_DIAMETER**2
    bounds = (smallest / side**2, largest[0] / side**2)
    if bounds[0] <= spec.total_ink <= bounds[1]:
        return
    if spec.total_ink < bounds[0]:
        problem = f"{high} objects would be under {MIN_DIAMETER} pixels wide"
    else:
        problem = (
            f"{largest[1]} of the kind that paints least (outlines paint little) do not fit "
            "without touching"
        )
    remedy = "Lower the largest or raise the smallest number of objects, or enlarge the image."
    if bounds[0] <= bounds[1]:
        low_end, high_end = math.ceil(1e4 * bounds[0]) / 1e4, math.floor(1e4 * bounds[1]) / 1e4
        remedy = f"With these shapes, textures and counts {low_end:g} to {high_end:g} can be."
    raise SpecError(explain("scene.total_ink", spec.total_ink, problem, remedy))


@lru_cache(maxsize=64)
def _ink_shares(shapes: tuple[str, ...], textures: tuple[str, ...]) -> tuple[float, float]:
    """Least and most ink of a kind of object, as a share of its diameter squared."""
    shares = [
        sprite(shape, texture, 4 * probe, 0, probe, probe).painted / probe**2
        for shape in shapes
        for texture in textures
        for probe in _PROBES
    ]
    return min(shares) * (1 - _MARGIN), max(shares) * (1 + _MARGIN)
