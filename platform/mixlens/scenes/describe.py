"""Exact facts about a painted scene: each object's, and the scene's attributes."""

import math
from collections.abc import Sequence
from operator import truediv

import numpy as np

from mixlens.scenes.sample import Plan
from mixlens.scenes.scene import SceneObject
from mixlens.scenes.sizes import size_word
from mixlens.spec.scene import SceneSpec

Attributes = dict[str, float | int | str]


def describe_objects(
    spec: SceneSpec, plan: Plan, visible: Sequence[int]
) -> tuple[SceneObject, ...]:
    """The objects of a scene; `visible` are the pixels of each that show."""
    words = {quarters: size_word(spec, quarters) for quarters in set(plan.quarters)}
    shapes, textures, rotations = zip(*plan.kinds, strict=True)
    lefts, tops = zip(*plan.corners, strict=True)
    sides = [stamp.side for stamp in plan.sprites]
    boxes = [stamp.box for stamp in plan.sprites]
    areas = [stamp.area for stamp in plan.sprites]
    columns = zip(
        shapes,
        plan.colours,
        textures,
        [words[quarters] for quarters in plan.quarters],
        [left + side / 2 for left, side in zip(lefts, sides, strict=True)],
        [top + side / 2 for top, side in zip(tops, sides, strict=True)],
        [quarters / 4 for quarters in plan.quarters],
        rotations,
        [
            (left + x0, top + y0, left + x1, top + y1)
            for left, top, (x0, y0, x1, y1) in zip(lefts, tops, boxes, strict=True)
        ],
        areas,
        [stamp.painted for stamp in plan.sprites],
        map(truediv, visible, areas),
        strict=True,
    )
    return tuple(map(SceneObject._make, columns))


def describe_scene(
    plan: Plan, visible: Sequence[int], visible_ink: Sequence[int], side: int
) -> Attributes:
    """Attributes of a scene of `side` x `side` pixels, from the pixels of each object that show.

    object_count; shape_diversity, colour_diversity, texture_diversity: entropy of the objects'
    shapes (colours, textures), nats; size_mean, size_variance: of the diameters as shares of the
    side (population variance); ink_fraction: share of the image painted in the colour of an
    object; covered_fraction: share of the image where an object shows; object_area_mean: mean
    unoccluded area as a share of the image; dominant_colour: with the most visible ink;
    dominant_shape: with the most visible area; occlusion: mean of 1 - visible_fraction; crowding:
    mean distance from an object's centre to the nearest other one as a share of the side (1 for a
    single object). The first name in the alphabet wins a tie.
    """
    count = len(plan.kinds)
    pixels = side * side
    shapes, textures, _ = zip(*plan.kinds, strict=True)
    areas = [stamp.area for stamp in plan.sprites]
    # Whole numbers up to the last step, so that the results are the same everywhere.
    total, squares = sum(plan.quarters), sum(quarters * quarters for quarters in plan.quarters)
    return {
        "object_count": count,
        "shape_diversity": _entropy(shapes),
        "colour_diversity": _entropy(plan.colours),
        "texture_diversity": _entropy(textures),
        "size_mean": total / (count * 4 * side),
        "size_variance": (count * squares - total * total) / (count * 4 * side) ** 2,
        "ink_fraction": sum(visible_ink) / pixels,
        "covered_fraction": sum(visible) / pixels,
        "object_area_mean": sum(areas) / (count * pixels),
        "dominant_colour": _largest(plan.colours, visible_ink),
        "dominant_shape": _largest(shapes, visible),
        "occlusion": 1 - math.fsum(map(truediv, visible, areas)) / count,
        "crowding": _crowding(plan, side),
    }


def _entropy(names: Sequence[str]) -> float:
    """Entropy of the shares of each name, nats; rounded, as logarithms differ in the last bit."""
    total = len(names)
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    within = sum([n * math.log(n) for n in counts.values()])
    return round(math.log(total) - within / total, 9) + 0.0


def _largest(names: Sequence[str], weights: Sequence[int]) -> str:
    sums: dict[str, int] = {}
    for name, weight in zip(names, weights, strict=True):
        sums[name] = sums.get(name, 0) + weight
    return min(sums, key=lambda name: (-sums[name], name))


def _crowding(plan: Plan, side: int) -> float:
    # Imported late: numba takes longer to import than all other modules of scenes together.
    from mixlens.scenes.loops import nearest_squares

    if len(plan.corners) == 1:
        return 1.0
    # Centres in half pixels are whole numbers, and so are the squares of their distances.
    sides = np.array([stamp.side for stamp in plan.sprites])
    centres = 2 * np.array(plan.corners) + sides[:, None]
    nearest = nearest_squares(centres)
    return math.fsum(map(math.sqrt, nearest.tolist())) / (2 * side * len(sides))
