"""What a scene is: its picture, its objects, and which object is on top at each pixel."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mixlens.scenes.shapes import SYMMETRY, silhouette


class SceneObject(NamedTuple):
    """One object, described exactly.

    An object is an opaque silhouette: its texture paints part of it in `colour`, the rest white.
    All geometry is about the silhouette, so it does not depend on the texture.

    Attributes:
        shape: one of `mixlens.spec.scene.Shape`.
        colour: one of `mixlens.spec.scene.Colour`.
        texture: one of `mixlens.spec.scene.Texture`.
        size: the name of the size range that holds the diameter, or the nearest one.
        x: centre of the circumscribed circle, pixels from the left edge of the image.
        y: centre of the circumscribed circle, pixels from the top edge of the image.
        diameter: of the circumscribed circle, pixels; a multiple of 1/4.
        rotation: degrees clockwise, a multiple of 5 in [0, 360).
        box: x0, y0, x1, y1 of the unoccluded silhouette, pixels; the end is exclusive.
        area: pixels of the unoccluded silhouette.
        ink: pixels of the unoccluded silhouette that are painted in `colour`.
        visible_fraction: share of `area` that no object in front hides, 0 to 1.
    """

    shape: str
    colour: str
    texture: str
    size: str
    x: float
    y: float
    diameter: float
    rotation: int
    box: tuple[int, int, int, int]
    area: int
    ink: int
    visible_fraction: float


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture and the world it shows.

    Attributes:
        image: uint8 [side, side, 3], RGB.
        objects: back to front.
        ids: uint8 [side, side]; 0 where the background shows, i + 1 where `objects[i]` does.
        attributes: facts about the whole scene; `mixlens.scenes.describe` defines each.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]
    ids: np.ndarray
    attributes: dict[str, float | int | str]


def mask(scene: Scene, i: int) -> np.ndarray:
    """Bool [side, side]: where object `i` is visible."""
    return scene.ids == i + 1


def full_mask(scene: Scene, i: int) -> np.ndarray:
    """Bool [side, side]: the whole silhouette of object `i`, also where it is hidden."""
    thing = scene.objects[i]
    period = SYMMETRY[thing.shape]
    shape = silhouette(thing.shape, round(thing.diameter * 4), thing.rotation % period).mask()
    side = shape.shape[0]
    left, top = round(thing.x - side / 2), round(thing.y - side / 2)
    whole = np.zeros(scene.ids.shape, bool)
    whole[top : top + side, left : left + side] = shape
    return whole
