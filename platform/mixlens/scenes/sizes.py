"""Sizes of the objects of a scene: drawn freely, all the same, or such that their ink sums up."""

import math
from collections.abc import Sequence

from mixlens.scenes.draws import between, word_list
from mixlens.scenes.sprites import sprite
from mixlens.spec.scene import SceneSpec

# Total ink is met within this share of it, or within this many pixels where that is more.
INK_TOLERANCE = 0.02
INK_TOLERANCE_PIXELS = 8
_MANY = 16
MIN_DIAMETER = 5  # pixels; a smaller object shows no shape

Kinds = Sequence[tuple[str, str, int]]  # shape, texture, rotation of each object


def draw_sizes(
    spec: SceneSpec, seed: int, index: int, attempt: int, kinds: Kinds
) -> tuple[list[int], list[int]] | None:
    """Diameter (quarter pixels) and texture grain (pixels) of each object; see `sprite`.

    None where a fixed total of ink cannot be met with what was drawn in this attempt.
    """
    if spec.ink == "fixed_size":
        assert spec.object_diameter is not None
        pixels = whole_pixels(spec.object_diameter, spec.image_size)
        return [4 * pixels] * len(kinds), [pixels] * len(kinds)
    raw = word_list(seed, index, f"sizes {attempt}", 2 * len(kinds))
    ranges = [named.diameter for named in spec.sizes]
    many = len(ranges)
    chosen = [word * many >> 32 for word in raw[::2]]
    if spec.ink == "fixed_total":
        shares = [between(ranges[k], word) for k, word in zip(chosen, raw[1::2], strict=True)]
        return sizes_with_ink(spec, kinds, shares)
    bounds = [pixel_range(diameter, spec.image_size) for diameter in ranges]
    pixels_of = []
    for k, word in zip(chosen, raw[1::2], strict=True):
        low, high = bounds[k]
        pixels_of.append(low + (word * (high - low + 1) >> 32))
    return [4 * pixels for pixels in pixels_of], pixels_of


def smallest_sizes(
    spec: SceneSpec, quarters: Sequence[int], kept: int
) -> tuple[list[int], list[int]]:
    """The `kept` smallest of the diameters as they are; all others as small as the spec allows."""
    smallest = 4 * min(pixel_range(named.diameter, spec.image_size)[0] for named in spec.sizes)
    if spec.ink == "fixed_size":
        smallest = quarters[0]
    order = sorted(range(len(quarters)), key=lambda i: quarters[i])
    sizes = list(quarters)
    for i in order[kept:]:
        sizes[i] = smallest
    return sizes, [quarter // 4 for quarter in sizes]


def sizes_with_ink(
    spec: SceneSpec, kinds: Kinds, shares: Sequence[float]
) -> tuple[list[int], list[int]] | None:
    """Diameters in the proportions of `shares` whose painted pixels sum to `spec.total_ink`.

    The grain of each texture is settled first, for then the ink grows smoothly with the diameter;
    the sum is approached by scaling all objects, and met by changing single ones by quarter pixels.

    Returns:
        Diameters and grains as `draw_sizes` does, or None when the ink cannot be met like this.
    """
    assert spec.total_ink is not None
    side = spec.image_size
    target = spec.total_ink * side * side
    tolerance = ink_tolerance(target)
    smallest, largest = 4 * MIN_DIAMETER, 4 * side
    # Many objects meet the sum in whole pixels, which are drawn far less often than quarters.
    unit = 4 if len(kinds) >= _MANY else 1
    settled: list[int] = []

    def ink(i: int, quarter: int) -> int:
        shape, texture, rotation = kinds[i]
        grain = settled[i] if settled else quarter // 4
        return sprite(shape, texture, quarter, rotation, grain, side).painted

    scale = 4.0 * side
    for step in range(12):
        quarters = [
            max(smallest, min(largest, round(scale * share / unit) * unit)) for share in shares
        ]
        if step == 3 and unit == 1:
            settled = [quarter // 4 for quarter in quarters]
        inks = [ink(i, quarter) for i, quarter in enumerate(quarters)]
        error = sum(inks) - target
        if step >= 3 and abs(error) <= tolerance:
            break
        scale *= math.sqrt(target / sum(inks))
    # Single changes of a few objects, each time the one that comes nearest, while any helps.
    few = range(min(len(kinds), 8))
    reach = max(2, 12 // len(kinds)) * unit
    while abs(error) > tolerance:
        changes = [
            (abs(error + ink(i, quarters[i] + step) - inks[i]), i, step)
            for i in few
            for step in range(-reach, reach + 1, unit)
            if smallest <= quarters[i] + step <= largest
        ]
        left, i, step = min(changes)
        if left >= abs(error):
            return None
        quarters[i] += step
        error += ink(i, quarters[i]) - inks[i]
        inks[i] = ink(i, quarters[i])
    return quarters, settled or [quarter // 4 for quarter in quarters]


def ink_tolerance(target: float) -> float:
    """How far from a total ink of `target` pixels a scene may be, pixels."""
    return max(INK_TOLERANCE * target, INK_TOLERANCE_PIXELS)


def size_word(spec: SceneSpec, quarters: int) -> str:
    """The name of the range that holds a diameter, else of the one with the nearest end."""
    share = quarters / 4 / spec.image_size

    for named in spec.sizes:
        low, high = named.diameter
        if low <= share <= high:
            return named.name

    def distance(bounds: tuple[float, float]) -> float:
        return max(bounds[0] - share, share - bounds[1], 0.0)

    return min(spec.sizes, key=lambda named: distance(named.diameter)).name


def whole_pixels(share: float, image_size: int) -> int:
    """A diameter given as a share of the side, in whole pixels."""
    return int(share * image_size + 0.5)


def pixel_range(diameter: tuple[float, float], image_size: int) -> tuple[int, int]:
    """Smallest and largest whole diameter in pixels of a range given as shares of the side."""
    return whole_pixels(diameter[0], image_size), whole_pixels(diameter[1], image_size)
