"""The silhouettes: corners inside the unit circle, drawn at any size and rotation."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

Point = tuple[float, float]

# Silhouettes are drawn this many times larger and then averaged: a pixel belongs to the silhouette
# when at least half of it does.
OVERSAMPLING = 8
_HALF = [0] * 128 + [255] * 128
ROTATION_STEP = 5


def _exact(value: float) -> float:
    """Rounded to 2**-20, so that the last bits of a platform's sine cannot reach a pixel."""
    return round(value * 2**20) / 2**20


def _around(count: int, radius: float = 1.0, start: float = -90.0) -> list[Point]:
    angles = [math.radians(start + 360 * k / count) for k in range(count)]
    return [(_exact(radius * math.cos(a)), _exact(radius * math.sin(a))) for a in angles]


def _star() -> list[Point]:
    outer, inner = _around(5), _around(5, radius=0.5, start=-54.0)
    return [corner for pair in zip(outer, inner, strict=True) for corner in pair]


def _cross() -> list[Point]:
    arm, reach = 0.36, _exact(math.sqrt(1 - 0.36**2))
    corner = [(-arm, -reach), (arm, -reach), (arm, -arm)]
    quarters = [corner]
    for _ in range(3):
        quarters.append([(-y, x) for x, y in quarters[-1]])
    return [point for quarter in quarters for point in quarter]


def _heart() -> list[Point]:
    """The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled to fit."""
    points = []
    for k in range(72):
        t = math.radians(5 * k)
        x = 16 * math.sin(t) ** 3
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
        points.append((_exact(x / 17), _exact((y - 1.3) / 17)))
    reach = max(math.hypot(x, y) for x, y in points)
    return [(_exact(x / reach), _exact(y / reach)) for x, y in points]


CORNERS: dict[str, list[Point]] = {
    "square": _around(4, start=-45.0),
    "triangle": _around(3),
    "pentagon": _around(5),
    "hexagon": _around(6),
    "star": _star(),
    "cross": _cross(),
    "diamond": [(0.0, -1.0), (0.62, 0.0), (0.0, 1.0), (-0.62, 0.0)],
    "heart": _heart(),
}
HOLES = {"circle": 0.0, "ring": 0.42}  # radius of the hole, for a radius of 1

# A rotation by this many degrees changes nothing.
SYMMETRY = {
    "circle": ROTATION_STEP,
    "ring": ROTATION_STEP,
    "square": 90,
    "triangle": 120,
    "pentagon": 360,  # 72 is no multiple of the rotation step
    "hexagon": 60,
    "star": 360,
    "cross": 90,
    "diamond": 180,
    "heart": 360,
}


@dataclass(frozen=True, slots=True)
class Silhouette:
    """A filled shape in the middle of a square.

    Attributes:
        side: width and height of the square, pixels.
        inside: intp [area], ascending flat positions of the shape's pixels in the square.
        area: pixels of the shape.
        box: x0, y0, x1, y1 of the shape; the end is exclusive.
    """

    side: int
    inside: np.ndarray
    area: int
    box: tuple[int, int, int, int]

    def mask(self) -> np.ndarray:
        """Bool [side, side], where the shape is."""
        flat = np.zeros(self.side * self.side, bool)
        flat[self.inside] = True
        return flat.reshape(self.side, self.side)


# Some 5 KB each at the default sizes and 224 pixels.
@lru_cache(maxsize=8192)
def silhouette(shape: str, quarters: int, rotation: int) -> Silhouette:
    """The silhouette of a shape.

    Args:
        shape: a key of `CORNERS` or `HOLES`.
        quarters: diameter of the circumscribed circle in quarter pixels.
        rotation: degrees clockwise, less than the shape's `SYMMETRY`.

    Returns:
        A shape whose square is as wide as its diameter, rounded up to whole pixels.
    """
    side = -(-quarters // 4)
    size = side * OVERSAMPLING
    canvas = Image.new("L", (size, size), 0)
    draw = ImageDraw.Draw(canvas)
    centre, radius = size / 2, quarters * OVERSAMPLING / 8
    if shape in HOLES:
        for reach, fill in ((radius, 255), (radius * HOLES[shape], 0)):
            if reach:
                low, high = centre - reach, centre + reach - 1
                draw.ellipse((low, low, high, high), fill=fill)
    else:
        turn = math.radians(rotation)
        cos, sin = _exact(math.cos(turn)), _exact(math.sin(turn))
        corners = [
            (
                round(centre + radius * (cos * x - sin * y) - 0.5),
                round(centre + radius * (sin * x + cos * y) - 0.5),
            )
            for x, y in CORNERS[shape]
        ]
        draw.polygon(corners, fill=255)
    reduced = canvas.reduce(OVERSAMPLING).point(_HALF)
    box = reduced.getbbox()
    assert box is not None, f"no pixel of a {shape} of {quarters / 4} pixels"
    inside = np.flatnonzero(np.asarray(reduced))
    return Silhouette(side, inside, len(inside), box)


# Some 1 KB each at the default sizes and 224 pixels.
@lru_cache(maxsize=8192)
def outline(shape: str, quarters: int, rotation: int, width: int) -> np.ndarray:
    """Bool [side, side]: pixels of a silhouette that are nearer to its outside than `width`."""
    whole = silhouette(shape, quarters, rotation).mask()
    side = whole.shape[0]
    padded = np.zeros((side + 2 * width, side + 2 * width), bool)  # np.pad is much slower
    padded[width:-width, width:-width] = whole
    # Pixels whose neighbours to the left and right are inside, up to a distance of 0, 1, 2 ...
    inner = [padded]
    for distance in range(1, width + 1):
        row = inner[-1].copy()
        row[:, distance:] &= padded[:, :-distance]
        row[:, :-distance] &= padded[:, distance:]
        inner.append(row)
    # A pixel is inside when a disc about it is, which is one such row above the other.
    inside = np.ones_like(whole)
    for dy in range(-width, width + 1):
        reach = math.isqrt(width * width + width // 2 - dy * dy)
        inside &= inner[reach][width + dy : width + dy + side, width : width + side]
    return whole & ~inside
