"""Draw what a scene holds: how many objects, of which kind and size, and where."""

from dataclasses import dataclass

from mixlens.scenes.draws import below, words
from mixlens.scenes.place import separated
from mixlens.scenes.shapes import ROTATION_STEP
from mixlens.spec.scene import SceneSpec

_REDRAWS = 16  # times that the sizes of a scene are drawn again when they do not fit together


@dataclass(frozen=True, slots=True)
class Draft:
    """One object of a scene that is not painted yet; `quarters` is its diameter in 1/4 pixel."""

    shape: str
    colour: str
    texture: str
    size: str
    quarters: int
    rotation: int
    left: int
    top: int


def rotations(spec: SceneSpec) -> range:
    """The rotations a spec allows: multiples of 5 degrees, at most one turn."""
    low, high = spec.rotation
    first, last = -int(-low // ROTATION_STEP), int(high // ROTATION_STEP)
    last = min(last, first + 360 // ROTATION_STEP - 1)
    return range(first * ROTATION_STEP, last * ROTATION_STEP + 1, ROTATION_STEP)


def sample(spec: SceneSpec, seed: int, index: int) -> list[Draft]:
    """The objects of a scene, back to front. `check_scene_spec` must have accepted the spec."""
    low, high = spec.objects
    count = low + int(below(words(seed, index, "count", 1), high - low + 1)[0])
    kinds = words(seed, index, "kinds", 4 * count).reshape(count, 4)
    turns = rotations(spec)
    shapes = below(kinds[:, 0], len(spec.shapes)).tolist()
    colours = below(kinds[:, 1], len(spec.colours)).tolist()
    textures = below(kinds[:, 2], len(spec.textures)).tolist()
    rotation = below(kinds[:, 3], len(turns)).tolist()
    sizes, places = _arrange(spec, seed, index, count)
    return [
        Draft(
            spec.shapes[shapes[i]],
            spec.colours[colours[i]],
            spec.textures[textures[i]],
            sizes[i][0],
            sizes[i][1],
            turns[rotation[i]] % 360,
            places[i][0],
            places[i][1],
        )
        for i in range(count)
    ]


def _arrange(
    spec: SceneSpec, seed: int, index: int, count: int
) -> tuple[list[tuple[str, int]], list[tuple[int, int]]]:
    """Size word and diameter (quarter pixels) of each object, and its top left corner."""
    for attempt in range(_REDRAWS):
        sizes = _draw_sizes(spec, seed, index, count, attempt)
        sides = [quarters // 4 for _, quarters in sizes]
        if (places := separated(sides, spec.image_size, seed, index, attempt)) is not None:
            return sizes, places
    # The largest give way to the smallest size there is, until all fit into cells.
    named = min(spec.sizes, key=lambda named: named.diameter)
    smallest = (named.name, 4 * pixel_range(named.diameter, spec.image_size)[0])
    for k in sorted(range(count), key=lambda k: -sizes[k][1]):
        sizes[k] = smallest
        sides = [quarters // 4 for _, quarters in sizes]
        if (places := separated(sides, spec.image_size, seed, index, _REDRAWS)) is not None:
            return sizes, places
    raise AssertionError("check_scene_spec accepts no spec whose smallest objects do not fit")


def _draw_sizes(
    spec: SceneSpec, seed: int, index: int, count: int, attempt: int
) -> list[tuple[str, int]]:
    raw = words(seed, index, f"sizes {attempt}", 2 * count).tolist()
    sizes = []
    for k in range(count):
        named = spec.sizes[raw[2 * k] * len(spec.sizes) >> 32]
        low, high = pixel_range(named.diameter, spec.image_size)
        sizes.append((named.name, 4 * (low + (raw[2 * k + 1] * (high - low + 1) >> 32))))
    return sizes


def pixel_range(diameter: tuple[float, float], image_size: int) -> tuple[int, int]:
    """Smallest and largest whole diameter in pixels of a range given as shares of the side."""
    low, high = (int(share * image_size + 0.5) for share in diameter)
    return low, high
