"""Silhouettes and textures: right areas, told apart, colours far from each other."""

import math
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mixlens.scenes.render import RGB
from mixlens.scenes.shapes import CORNERS, HOLES, SYMMETRY, silhouette
from mixlens.scenes.sprites import Sprite, sprite

SHAPES = (*CORNERS, *HOLES)
TEXTURES = ("solid", "striped", "dotted", "checked", "outlined")


def area_of(shape: str) -> float:
    """Area for a radius of 1: of an annulus, or by the shoelace formula."""
    if shape in HOLES:
        return math.pi * (1 - HOLES[shape] ** 2)
    x, y = np.array(CORNERS[shape]).T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def perimeter_of(shape: str) -> float:
    if shape in HOLES:
        return 2 * math.pi * (1 + HOLES[shape])
    corners = CORNERS[shape]
    return sum(map(math.dist, corners, [*corners[1:], corners[0]]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pixels", [24, 61, 120])
def test_areas_follow_geometry(shape: str, pixels: int) -> None:
    expected = area_of(shape) * (pixels / 2) ** 2
    edge = perimeter_of(shape) * pixels / 2
    areas = [
        silhouette(shape, 4 * pixels, rotation).area for rotation in range(0, SYMMETRY[shape], 5)
    ]
    # Upright edges snap to whole pixels; over all rotations that evens out.
    assert max(abs(area - expected) for area in areas) < 0.6 * edge
    assert abs(np.mean(areas) - expected) < 0.13 * edge


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape in CORNERS])
def test_corners_stay_in_the_unit_circle_and_reach_it(shape: str) -> None:
    reach = [math.hypot(x, y) for x, y in CORNERS[shape]]
    assert max(reach) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("shape", CORNERS)
def test_rotation_is_clockwise_about_the_centre(shape: str) -> None:
    upright = silhouette(shape, 4 * 64, 0).mask()
    quarter = silhouette(shape, 4 * 64, 90 % SYMMETRY[shape]).mask()
    assert (np.rot90(upright, -1) != quarter).mean() < 0.02


@pytest.mark.parametrize("shape", SHAPES)
def test_a_symmetry_really_changes_nothing(shape: str) -> None:
    """Against Pillow, drawing the corners after a turn by the period."""
    turn = math.radians(SYMMETRY[shape])
    if shape in HOLES:
        return
    pictures = []
    for cos, sin in ((1.0, 0.0), (math.cos(turn), math.sin(turn))):
        picture = Image.new("L", (128, 128))
        corners = [
            (64 + 60 * (cos * x - sin * y), 64 + 60 * (sin * x + cos * y))
            for x, y in CORNERS[shape]
        ]
        ImageDraw.Draw(picture).polygon(corners, fill=255)
        pictures.append(np.asarray(picture))
    assert (pictures[0] != pictures[1]).mean() < 0.02


def picture_of(stamp: Sprite) -> np.ndarray:
    ink = np.zeros(stamp.side * stamp.side, bool)
    ink[stamp.cells[: stamp.painted]] = True
    return ink


@pytest.mark.parametrize("pixels", [14, 16, 17, 20, 24, 36, 58])
def test_textures_can_be_told_apart(pixels: int) -> None:
    for shape in SHAPES:
        for rotation in range(0, SYMMETRY[shape], 15):
            inks = {
                texture: picture_of(sprite(shape, texture, 4 * pixels, rotation, pixels, pixels))
                for texture in TEXTURES
            }
            area = inks["solid"].sum()
            for one, two in combinations(TEXTURES, 2):
                differ = (inks[one] ^ inks[two]).sum()
                assert differ >= 0.075 * area, (shape, rotation, one, two)


def test_a_texture_paints_only_inside_and_all_along_the_edge() -> None:
    for shape in SHAPES:
        for texture in TEXTURES:
            stamp = sprite(shape, texture, 4 * 40, 10 % SYMMETRY[shape], 40, 40)
            ink = np.pad(picture_of(stamp).reshape(40, 40), 1)
            inside = np.pad(silhouette(shape, 4 * 40, 10 % SYMMETRY[shape]).mask(), 1)
            assert not (ink & ~inside).any()
            around = [np.roll(~inside, step, axis) for axis in (0, 1) for step in (-1, 1)]
            edge = inside & np.any(around, axis=0)
            assert ink[edge].all()


def test_colours_are_far_from_each_other_and_from_white() -> None:
    """CIE76 colour difference; 2.3 is just noticeable, 25 is another colour at a glance."""
    names = list(RGB)
    colours = {name: lab(np.array(RGB[name])) for name in names}
    colours["white"] = lab(np.array([255, 255, 255]))
    for one, two in combinations(colours, 2):
        assert math.dist(colours[one], colours[two]) > 25, (one, two)


def lab(rgb: np.ndarray) -> tuple[float, float, float]:
    """CIE L*a*b* of an sRGB colour (IEC 61966-2-1, D65)."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(matrix) @ linear / [0.9505, 1.0, 1.089])
    return float(116 * y - 16), float(500 * (x - y)), float(200 * (y - z))
