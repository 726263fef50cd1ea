"""Places of visual tokens and the pixels under them, on pictures cut by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from mixlens.models.places import View, patches, places


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def cell(pixels: np.ndarray) -> torch.Tensor:
    """Pixels of one cell as a token holds them: channel by channel, 0 to 1."""
    return torch.from_numpy(pixels.transpose(2, 0, 1).reshape(-1).copy()).float() / 255


def told(found) -> list[tuple[int, int, int]]:
    return list(zip(found.view.tolist(), found.row.tolist(), found.column.tolist(), strict=True))


def test_tokens_of_a_grid_go_row_by_row():
    assert told(places([View(2, 3)])) == [
        (0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 1, 2),
    ]  # fmt: skip


def test_first_tokens_and_row_ends_stand_for_no_place():
    views = [View(1, 2, first=1), View(2, 1, row_ends=True), View(1, 1, first=2, row_ends=True)]
    assert told(places(views)) == [
        (0, -1, -1), (0, 0, 0), (0, 0, 1),
        (1, 0, 0), (1, -1, -1), (1, 1, 0), (1, -1, -1),
        (2, -1, -1), (2, -1, -1), (2, 0, 0), (2, -1, -1),
    ]  # fmt: skip
    assert [view.tokens for view in views] == [3, 4, 4]


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("row_ends", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (2, 5)])
def test_places_patches_and_counts_agree(rows, columns, row_ends, first):
    views = [View(rows, columns, first=first, row_ends=row_ends), View(2, 2)]
    found = places(views)
    pixels, exist = patches(picture(30, 40), views, side=3)
    assert len(found.view) == len(found.row) == len(found.column) == sum(v.tokens for v in views)
    assert pixels.shape == (len(found.view), 3 * 3 * 3)
    assert torch.equal(exist, found.row >= 0)
    assert torch.equal(exist, found.column >= 0)
    assert int(exist.sum()) == rows * columns + 4
    assert not pixels[~exist].any()


def test_patches_of_an_unscaled_picture_are_its_own_pixels():
    whole = picture(8, 12)
    found, exist = patches(whole, [View(2, 3)], side=4)
    assert exist.all()
    for token, (_, row, column) in enumerate(told(places([View(2, 3)]))):
        own = whole[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        torch.testing.assert_close(found[token], cell(own), atol=1e-6, rtol=0)


def test_patches_between_row_ends_are_those_without():
    whole = picture(8, 12)
    plain, _ = patches(whole, [View(2, 3)], side=4)
    ended, exist = patches(whole, [View(2, 3, first=1, row_ends=True)], side=4)
    assert exist.tolist() == [False, *[True, True, True, False] * 2]
    assert torch.equal(ended[exist], plain)


def test_views_look_at_their_own_part():
    whole = picture(16, 24)
    views = [View(2, 2, (0, 0, 0.5, 0.5)), View(2, 2, (0.5, 0.5, 1, 1)), View(4, 4, (0, 0.5, 1, 1))]
    found, _ = patches(whole, views, side=4)
    parts = whole[:8, :12], whole[8:, 12:], whole[:, 12:]
    start = 0
    for view, part in zip(views, parts, strict=True):
        own, _ = patches(part, [View(view.rows, view.columns)], side=4)
        assert torch.equal(found[start : start + view.tokens], own)
        start += view.tokens
    assert start == len(found)


BEYOND = [
    View(2, 2, (0.0, 0.0, 2.0, 2.0)),
    View(2, 2, (-1.0, -1.0, 1.0, 1.0)),
    View(1, 2, (0.0, 0.0, 1.0, 2.0)),
    View(1, 1, (1.0, 0.0, 2.0, 1.0)),
]


def test_beyond_the_edge_is_black():
    """Padding right and below, left and above, right alone, and a view that lies wholly beyond."""
    whole = picture(8, 8)
    found, exist = patches(whole, BEYOND, side=8)
    assert exist.all()  # padding is encoded like the rest
    lit = [True, False, False, False, False, False, False, True, True, False, False]
    for token, seen in zip(found, lit, strict=True):
        expected = cell(whole) if seen else torch.zeros_like(token)
        torch.testing.assert_close(token, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [3, 4, 20])
def test_a_view_beyond_the_edge_is_one_of_a_padded_picture(side: int):
    whole = picture(10, 14)
    black = ((0, 10), (0, 14), (0, 0)), ((10, 0), (14, 0), (0, 0)), ((0, 0), (0, 14), (0, 0))
    found, _ = patches(whole, BEYOND[:3], side)
    start = 0
    for view, padding in zip(BEYOND[:3], black, strict=True):
        padded = np.pad(whole, padding)
        own, _ = patches(padded, [View(view.rows, view.columns)], side)
        assert torch.equal(found[start : start + view.tokens], own)
        start += view.tokens


def test_boxes_need_not_fall_on_pixels():
    """A third of seven pixels: the nearest whole ones, and never none."""
    whole = picture(7, 7)
    found, _ = patches(whole, [View(1, 1, (0, 1 / 3, 1 / 3, 2 / 3))], side=2)
    own, _ = patches(whole[0:2, 2:5], [View(1, 1)], side=2)
    assert torch.equal(found, own)
    narrow, _ = patches(whole, [View(1, 1, (0.5, 0.5, 0.51, 0.51))], side=2)
    pixel = cell(whole[4:5, 4:5].repeat(2, 0).repeat(2, 1))
    torch.testing.assert_close(narrow[0], pixel, atol=1e-6, rtol=0)


def test_the_grid_is_scaled_as_encoders_scale():
    whole = picture(50, 34)
    found, _ = patches(whole, [View(3, 2)], side=5)
    scaled = np.asarray(Image.fromarray(whole).resize((10, 15), Image.Resampling.BICUBIC))
    for token, (_, row, column) in enumerate(told(places([View(3, 2)]))):
        own = scaled[5 * row : 5 * row + 5, 5 * column : 5 * column + 5]
        torch.testing.assert_close(found[token], cell(own), atol=1e-6, rtol=0)


def test_a_ramp_lands_where_it_is():
    """Brightness tells the place: views of any box see what is at their cells' centres."""
    down, right = np.mgrid[:64, :96]
    ramp = np.stack([down * 255 / 63, right * 255 / 95, 0 * down], -1).round().astype(np.uint8)
    views = [View(4, 4), View(4, 3, (0.25, 0.5, 0.75, 1.0)), View(2, 5, (0.0, 0.25, 0.5, 0.75))]
    found, _ = patches(ramp, views, side=4)
    where = places(views)
    for token, number in enumerate(where.view.tolist()):
        view = views[number]
        top, left, bottom, end = view.box
        height = top + (int(where.row[token]) + 0.5) / view.rows * (bottom - top)
        width = left + (int(where.column[token]) + 0.5) / view.columns * (end - left)
        mean = found[token].view(3, -1).mean(-1)
        assert float(mean[0]) == pytest.approx(height, abs=0.02)
        assert float(mean[1]) == pytest.approx(width, abs=0.02)
