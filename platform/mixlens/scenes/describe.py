"""Exact facts about a painted scene: each object's, and the scene's attributes."""

import math
from collections.abc import Sequence

import numpy as np

from mixlens.scenes.sample import Draft
from mixlens.scenes.scene import SceneObject
from mixlens.scenes.sprites import Sprite


def describe_objects(
    drafts: Sequence[Draft], stamps: Sequence[Sprite], visible: Sequence[int]
) -> tuple[SceneObject, ...]:
    """The objects of a scene; `visible` are the pixels of each that show."""
    objects = []
    for draft, stamp, seen in zip(drafts, stamps, visible, strict=True):
        x0, y0, x1, y1 = stamp.box
        left, top, half = draft.left, draft.top, stamp.side / 2
        objects.append(
            SceneObject(
                draft.shape,
                draft.colour,
                draft.texture,
                draft.size,
                left + half,
                top + half,
                draft.quarters / 4,
                draft.rotation,
                (left + x0, top + y0, left + x1, top + y1),
                stamp.area,
                stamp.painted,
                seen / stamp.area,
            )
        )
    return tuple(objects)


def describe_scene(
    objects: Sequence[SceneObject], visible_ink: Sequence[int], side: int
) -> dict[str, float | int | str]:
    """Attributes of a scene of `side` x `side` pixels.

    object_count; shape_diversity, colour_diversity, texture_diversity: entropy of the objects'
    shapes (colours, textures), nats; size_mean, size_variance: of the diameters as shares of the
    side (population variance); ink_fraction: share of the image painted in the colour of an
    object; covered_fraction: share of the image where an object shows; dominant_colour: with the
    most visible ink; dominant_shape: with the most visible area; occlusion: mean of
    1 - visible_fraction; crowding: mean distance from an object's centre to the nearest other
    one, divided by the side (1 for a single object).
    """
    count = len(objects)
    diameters = [thing.diameter for thing in objects]
    mean = sum(diameters) / count
    colour_ink: dict[str, float] = {}
    shape_area: dict[str, float] = {}
    covered = 0.0
    hidden = 0.0
    for thing, ink in zip(objects, visible_ink, strict=True):
        seen = thing.visible_fraction * thing.area
        covered += seen
        hidden += 1 - thing.visible_fraction
        colour_ink[thing.colour] = colour_ink.get(thing.colour, 0) + ink
        shape_area[thing.shape] = shape_area.get(thing.shape, 0) + seen
    return {
        "object_count": count,
        "shape_diversity": _entropy([thing.shape for thing in objects]),
        "colour_diversity": _entropy([thing.colour for thing in objects]),
        "texture_diversity": _entropy([thing.texture for thing in objects]),
        "size_mean": round(mean / side, 6),
        "size_variance": round(sum((d - mean) ** 2 for d in diameters) / count / side**2, 8),
        "ink_fraction": sum(visible_ink) / side**2,
        "covered_fraction": round(covered) / side**2,
        "dominant_colour": max(sorted(colour_ink), key=colour_ink.__getitem__),
        "dominant_shape": max(sorted(shape_area), key=shape_area.__getitem__),
        "occlusion": round(hidden / count, 6),
        "crowding": _nearest(objects, side),
    }


def _entropy(names: list[str]) -> float:
    total = len(names)
    counts = [names.count(name) for name in set(names)]
    return round(math.log(total) - math.fsum(n * math.log(n) for n in counts) / total, 6) + 0.0


def _nearest(objects: Sequence[SceneObject], side: int) -> float:
    if len(objects) == 1:
        return 1.0
    x = np.array([thing.x for thing in objects])
    y = np.array([thing.y for thing in objects])
    squares = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    np.fill_diagonal(squares, np.inf)
    return round(math.fsum(np.sqrt(squares.min(1)).tolist()) / len(objects) / side, 6)
