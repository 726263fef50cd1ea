"""Rendered scenes that look a little like photographs, with geometry that is known exactly."""

from dataclasses import dataclass

import numpy as np
from coco_truth import pixels_of
from PIL import Image
from pycocotools import mask as coco_mask

CATEGORIES = (
    # id, name, supercategory; ids have gaps, as in COCO
    (1, "person", "person"),
    (3, "car", "vehicle"),
    (9, "boat", "vehicle"),
    (16, "bird", "animal"),
    (18, "dog", "animal"),
    (20, "sheep", "animal"),
    (47, "cup", "kitchen"),
    (51, "bowl", "kitchen"),
)
CATEGORY_IDS = {name: number for number, name, _ in CATEGORIES}
SIZES = ((160, 120), (120, 160), (128, 128), (160, 120))

_PLACES = {
    # colours of the far and the near ground; category -> fewest and most; what crowds there
    "street": ((150, 165, 185), (92, 90, 92), {"car": (1, 4), "person": (1, 5), "dog": (0, 1)},
               "person"),
    "meadow": ((165, 195, 225), (84, 128, 58), {"sheep": (1, 7), "bird": (0, 2), "dog": (0, 1),
                                                "person": (0, 1)}, "sheep"),
    "harbour": ((185, 205, 222), (52, 88, 120), {"boat": (1, 4), "bird": (0, 5), "person": (0, 2)},
                "bird"),
    "kitchen": ((196, 182, 160), (142, 104, 72), {"cup": (1, 5), "bowl": (0, 3), "person": (0, 1)},
                "cup"),
}  # fmt: skip
_LOOKS = {
    # colour; height as a share of the picture's shorter side; width over height
    "person": ((178, 92, 84), 0.42, 0.38),
    "car": ((170, 34, 40), 0.24, 2.0),
    "boat": ((230, 226, 214), 0.26, 1.8),
    "bird": ((44, 44, 50), 0.12, 1.5),
    "dog": ((122, 78, 40), 0.22, 1.3),
    "sheep": ((222, 216, 200), 0.22, 1.4),
    "cup": ((60, 120, 180), 0.20, 0.8),
    "bowl": ((210, 150, 60), 0.16, 1.9),
}


def _oval(x0: float, y0: float, x1: float, y1: float, corners: int = 14) -> np.ndarray:
    turn = 2 * np.pi * np.arange(corners) / corners
    return np.stack(
        [(x0 + x1 + (x1 - x0) * np.cos(turn)) / 2, (y0 + y1 + (y1 - y0) * np.sin(turn)) / 2], 1
    )


# Outlines in a box from (0, 0) to (1, 1), in one or more parts that need not touch.
_OUTLINES = {
    "person": (_oval(0.25, 0, 0.75, 0.26),
               np.array([[0.1, 0.3], [0.9, 0.3], [1, 0.62], [0.78, 1], [0.22, 1], [0, 0.62]])),
    "car": (np.array([[0, 0.5], [0.2, 0.45], [0.35, 0], [0.75, 0], [0.9, 0.45], [1, 0.55],
                      [1, 1], [0, 1]]),),
    "boat": (np.array([[0, 0.6], [1, 0.6], [0.82, 1], [0.16, 1]]),
             np.array([[0.45, 0], [0.9, 0.5], [0.45, 0.5]])),
    "bird": (np.array([[0, 0], [0.5, 0.35], [1, 0], [0.6, 1], [0.4, 1]]),),
    "dog": (np.array([[0, 0.2], [0.2, 0], [0.35, 0.3], [1, 0.25], [0.95, 1], [0.8, 1],
                      [0.75, 0.7], [0.35, 0.7], [0.3, 1], [0.15, 1]]),),
    "sheep": (_oval(0, 0, 1, 0.8), np.array([[0.2, 0.84], [0.8, 0.84], [0.8, 1], [0.2, 1]])),
    "cup": (np.array([[0, 0], [1, 0], [1, 1], [0, 1]]),),
    "bowl": (np.array([[0, 0], [1, 0], [0.8, 0.8], [0.6, 1], [0.4, 1], [0.2, 0.8]]),),
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """One object of a scene: polygons (each corners x 2, pixels), or the mask of a crowd."""

    category: str
    parts: tuple[np.ndarray, ...] = ()
    crowd: np.ndarray | None = None

    def mask(self, width: int, height: int) -> np.ndarray:
        """Its pixels, as height x width booleans."""
        if self.crowd is not None:
            return self.crowd
        rle = coco_mask.frPyObjects([p.ravel().tolist() for p in self.parts], height, width)
        return pixels_of(coco_mask.merge(rle))

    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of its polygons or of its crowd's pixels."""
        if self.crowd is not None:
            ys, xs = np.nonzero(self.crowd)
            return float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)
        corners = np.concatenate(self.parts)
        (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
        return float(x0), float(y0), float(x1), float(y1)


@dataclass(frozen=True)
class Scene:
    """A rendered picture (height x width x 3) and what is on it, the farthest first."""

    pixels: np.ndarray
    place: str
    things: tuple[Thing, ...]
    sentences: tuple[str, ...]


def make_scene(random: np.random.Generator, width: int, height: int, empty: bool = False) -> Scene:
    """A street, meadow, harbour or kitchen with what usually is there, or with nothing."""
    place = str(random.choice(list(_PLACES)))
    _, _, usual, crowding = _PLACES[place]
    things = []
    for category, (fewest, most) in usual.items():
        count = 0 if empty else int(random.integers(fewest, most + 1))
        things += [_place(random, category, width, height) for _ in range(count)]
    things.sort(key=lambda thing: thing.box()[3])
    if not empty and random.random() < 0.15:
        things.insert(0, _crowd(random, crowding, width, height))
    pixels = _paint(random, place, things, width, height)
    return Scene(pixels, place, tuple(things), _sentences(random, place, things))


def _place(random: np.random.Generator, category: str, width: int, height: int) -> Thing:
    _, share, aspect = _LOOKS[category]
    bottom = random.uniform(0.4, 0.97)
    tall = share * min(width, height) * random.uniform(0.5, 0.8) * (0.6 + bottom)
    wide = min(tall * aspect * random.uniform(0.85, 1.15), 0.9 * width)
    x = random.uniform(1, width - wide - 1)
    y = max(1, bottom * height - tall)
    corner, scale = np.array([x, y]), np.array([wide, tall])
    return Thing(category, tuple(np.round(corner + scale * p, 2) for p in _OUTLINES[category]))


def _crowd(random: np.random.Generator, category: str, width: int, height: int) -> Thing:
    ys, xs = np.mgrid[:height, :width] + 0.5
    mask = np.zeros((height, width), bool)
    x, y = random.uniform(0.2, 0.7) * width, random.uniform(0.3, 0.45) * height
    for _ in range(int(random.integers(5, 9))):
        r = random.uniform(0.04, 0.08) * width
        mask |= ((xs - x) / r) ** 2 + ((ys - y) / (1.4 * r)) ** 2 < 1
        x, y = x + random.uniform(0.5, 1.8) * r, y + random.uniform(-0.3, 0.3) * r
    return Thing(category, crowd=mask)


def _paint(
    random: np.random.Generator, place: str, things: list[Thing], width: int, height: int
) -> np.ndarray:
    far, near = (np.array(colour, float) for colour in _PLACES[place][:2])
    horizon = random.uniform(0.3, 0.5)
    down = 1 / (1 + np.exp(-14 * (np.arange(height) / height - horizon)))[:, None, None]
    picture = far * (1 - down) + near * down + random.normal(0, 8, 3)
    picture = picture + _grain(random, width, height, 24, 16) + _grain(random, width, height, 6, 9)
    for thing in things:
        x0, y0, x1, y1 = thing.box()
        left, top = int(x0), int(y0)
        patch = picture[top : int(y1) + 1, left : int(x1) + 1]
        tall, wide = patch.shape[:2]
        ys, xs = np.mgrid[:tall, :wide]
        colour = np.array(_LOOKS[thing.category][0]) + random.normal(0, 14, 3)
        shade = 22 * (0.5 - ys / tall) + 10 * (0.5 - xs / wide)
        angle, pitch = random.uniform(0, np.pi), random.uniform(3, 7)
        weave = 9 * np.sin(2 * np.pi * (xs * np.cos(angle) + ys * np.sin(angle)) / pitch)
        look = colour + (shade + weave)[..., None] + _grain(random, wide, tall, 5, 8)
        mask = thing.mask(width, height)[top : top + tall, left : left + wide]
        patch[mask] = look[mask]
    picture = picture + random.normal(0, 5, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _grain(
    random: np.random.Generator, width: int, height: int, cell: int, strength: float
) -> np.ndarray:
    """Smooth noise with blots of about `cell` pixels."""
    coarse = random.normal(0, strength, (height // cell + 2, width // cell + 2))
    smooth = Image.fromarray(coarse.astype(np.float32)).resize((width, height), 3)
    return np.asarray(smooth)[..., None]


_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven")


def _sentences(random: np.random.Generator, place: str, things: list[Thing]) -> tuple[str, ...]:
    if random.random() < 0.15:
        return ()
    counts: dict[str, int] = {}
    for thing in things:
        counts[thing.category] = counts.get(thing.category, 0) + (thing.crowd is None)
    seen = [
        f"{_NUMBERS[n]} {'sheep' if name == 'sheep' else name + 's' * (n != 1)}"
        for name, n in counts.items()
        if n
    ]
    scene = " and ".join(seen) if seen else "nothing else"
    first = seen[0] if seen else "nothing"
    return (
        f"A {place} with {scene}.",
        f"There is {first} to be seen in this {place}.",
        f"A picture of a {place}.",
        f"This photograph shows a {place} and {scene}.",
        f"{first.capitalize()} in a {place}.",
    )
