"""Draw what a scene holds: how many objects, of which kind and size, and where."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixlens.scenes.draws import word_list, words
from mixlens.scenes.overlap import overlapping
from mixlens.scenes.place import Corners, separated
from mixlens.scenes.shapes import ROTATION_STEP
from mixlens.scenes.sizes import Kinds, draw_sizes, sizes_with_ink, smallest_sizes
from mixlens.scenes.sprites import Sprite, sprite
from mixlens.spec.scene import SceneSpec

_ATTEMPTS = 16  # times that sizes and places are drawn again when they do not fit together


@dataclass(frozen=True, slots=True)
class Plan:
    """The objects of a scene before they are painted, back to front; one item an object in each.

    Attributes:
        kinds: shape, texture and rotation.
        colours: their names.
        quarters: diameters of the circumscribed circles, quarter pixels.
        sprites: their pixels.
        corners: left and top of each sprite's square, pixels.
    """

    kinds: Kinds
    colours: Sequence[str]
    quarters: list[int]
    sprites: list[Sprite]
    corners: Corners


def rotations(spec: SceneSpec) -> range:
    """The rotations a spec allows: multiples of 5 degrees, at most one turn."""
    low, high = spec.rotation
    first, last = -int(-low // ROTATION_STEP), int(high // ROTATION_STEP)
    last = min(last, first + 360 // ROTATION_STEP - 1)
    return range(first * ROTATION_STEP, last * ROTATION_STEP + 1, ROTATION_STEP)


def sample(spec: SceneSpec, seed: int, index: int) -> Plan:
    """The objects of a scene; `check_scene_spec` must have accepted the spec.

    Every property has random numbers of its own, so a spec with another palette, background or
    effect gives the same objects in the same places.
    """
    low, high = spec.objects
    count = low + (word_list(seed, index, "count", 1)[0] * (high - low + 1) >> 32)
    kinds, colours = _draw_kinds(spec, seed, index, "kinds", count)
    for attempt in range(_ATTEMPTS):
        if (sizes := draw_sizes(spec, seed, index, attempt, kinds)) is None:
            continue
        sprites = _sprites(kinds, *sizes, spec.image_size)
        if (corners := _place(spec, sprites, seed, index, attempt)) is not None:
            return Plan(kinds, colours, sizes[0], sprites, corners)
    return _crowded(spec, seed, index, count)


def _draw_kinds(
    spec: SceneSpec, seed: int, index: int, purpose: str, count: int
) -> tuple[Kinds, Sequence[str]]:
    """Shape, texture and rotation of each object, and its colour."""
    raw = words(seed, index, purpose, 4 * count).astype(np.int64)
    turns = rotations(spec)
    first = turns[0]
    numbers = [len(spec.shapes), len(spec.colours), len(spec.textures), len(turns)]
    shapes, colours, textures, rotation = (raw.reshape(count, 4) * numbers >> 32).T.tolist()
    kinds = list(
        zip(
            map(spec.shapes.__getitem__, shapes),
            map(spec.textures.__getitem__, textures),
            [(first + ROTATION_STEP * k) % 360 for k in rotation],
            strict=True,
        )
    )
    return kinds, list(map(spec.colours.__getitem__, colours))


def _crowded(spec: SceneSpec, seed: int, index: int, count: int) -> Plan:
    """The last resort: sizes that `check_scene_spec` has found to fit.

    Free sizes: the largest objects of the first draw give way to the smallest size there is, a
    tenth more of them each time. A fixed total of ink: all objects get the same size, and other
    kinds are drawn until it can be met.
    """
    kinds, colours = _draw_kinds(spec, seed, index, "kinds", count)
    first = draw_sizes(spec, seed, index, 0, kinds)
    for attempt in range(_ATTEMPTS, _ATTEMPTS + 64):
        if spec.ink == "fixed_total":
            sizes = sizes_with_ink(spec, kinds, [0.1] * count)
        else:
            assert first is not None
            shrunk = math.ceil(count * min(1.0, (attempt - _ATTEMPTS + 1) / 10))
            sizes = smallest_sizes(spec, first[0], count - shrunk)
        if sizes is not None:
            sprites = _sprites(kinds, *sizes, spec.image_size)
            corners = _place(spec, sprites, seed, index, attempt) or separated(
                [stamp.side for stamp in sprites], spec.image_size, seed, index, attempt
            )
            if corners is not None:
                return Plan(kinds, colours, sizes[0], sprites, corners)
        if spec.ink == "fixed_total":
            kinds, colours = _draw_kinds(spec, seed, index, f"kinds {attempt}", count)
    raise AssertionError(f"check_scene_spec accepted a spec that does not fit: {spec!r}")


def _sprites(kinds: Kinds, quarters: list[int], grains: list[int], width: int) -> list[Sprite]:
    return [
        sprite(shape, texture, quarter, rotation, grain, width)
        for (shape, texture, rotation), quarter, grain in zip(kinds, quarters, grains, strict=True)
    ]


def _place(
    spec: SceneSpec, sprites: list[Sprite], seed: int, index: int, attempt: int
) -> Corners | None:
    if spec.placement == "overlapping":
        return overlapping(sprites, spec.image_size, spec.visible_fraction, seed, index, attempt)
    return separated([stamp.side for stamp in sprites], spec.image_size, seed, index, attempt)
