"""Draw what a scene holds: how many objects, of which kind and size, and where."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixlens.scenes.draws import word_list
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
    raw = word_list(seed, index, "kinds", 4 * count)
    shapes, textures, turns = spec.shapes, spec.textures, rotations(spec)
    kinds = [
        (
            shapes[raw[k] * len(shapes) >> 32],
            textures[raw[k + 2] * len(textures) >> 32],
            turns[raw[k + 3] * len(turns) >> 32] % 360,
        )
        for k in range(0, 4 * count, 4)
    ]
    colours = [spec.colours[word * len(spec.colours) >> 32] for word in raw[1::4]]
    for attempt in range(_ATTEMPTS):
        quarters, grains = draw_sizes(spec, seed, index, attempt, kinds)
        sprites = _sprites(kinds, quarters, grains, spec.image_size)
        if (corners := _place(spec, sprites, seed, index, attempt)) is not None:
            return Plan(kinds, colours, quarters, sprites, corners)
    return _crowded(spec, seed, index, kinds, colours, quarters)


def _crowded(
    spec: SceneSpec,
    seed: int,
    index: int,
    kinds: Kinds,
    colours: Sequence[str],
    quarters: list[int],
) -> Plan:
    """The last resort: sizes that `check_scene_spec` has found to fit, whatever the kinds.

    With free sizes the largest objects give way to the smallest size there is, as many as it
    takes; with a fixed total of ink all objects get the same size.
    """
    for kept in reversed(range(len(kinds))):
        if spec.ink == "fixed_total":
            quarters, grains = sizes_with_ink(spec, kinds, [0.1] * len(kinds))
        else:
            quarters, grains = smallest_sizes(spec, quarters, kept)
        sprites = _sprites(kinds, quarters, grains, spec.image_size)
        if (corners := _place(spec, sprites, seed, index, _ATTEMPTS)) is not None:
            return Plan(kinds, colours, quarters, sprites, corners)
    if spec.placement == "overlapping":
        sides = [stamp.side for stamp in sprites]
        if (corners := separated(sides, spec.image_size, seed, index, _ATTEMPTS)) is not None:
            return Plan(kinds, colours, quarters, sprites, corners)
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
