"""Masks: areas and overlaps pixel by pixel, and nothing hostile reaches pycocotools."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from coco_truth import slow_run_lengths, text_of_run_lengths
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from mixlens.sources.coco.annotations import Objects, Rows
from mixlens.sources.coco.ledger import Ledger
from mixlens.sources.coco.masks import hidden_shares, measure_masks
from mixlens.sources.coco.segmentation import MaskError, parse_segmentation

WIDTH, HEIGHT = 40, 30
PIXELS = WIDTH * HEIGHT


def raw(segmentation: Any) -> msgspec.Raw:
    return msgspec.Raw(json.dumps(segmentation).encode())


def rectangle(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def runs_of(mask: np.ndarray) -> list[int]:
    """Lengths of runs down the columns, the first of background."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(np.diff(flat))
    return np.diff(edges, prepend=0, append=mask.size).tolist()


def measure(images: list[list[tuple[Any, bool]]], clipped: bool = False):
    """Measured masks of images of (segmentation, crowd); the rows of the ledger."""
    flat = [(row, *one) for row, own in enumerate(images) for one in own]
    count = len(flat)
    objects = Objects(
        np.array([row for row, _, _ in flat], np.int64),
        np.arange(100, 100 + count),
        np.zeros(count, np.int16),
        np.array([[4.0, 6, 14, 26]] * count).reshape(-1, 4),
        np.full(count, clipped),
        np.array([crowd for *_, crowd in flat], np.int8),
        [raw(segmentation) for _, segmentation, _ in flat],
    )
    rows = Rows(["train"] * len(images), list(range(len(images))),
                np.array([[WIDTH, HEIGHT]] * len(images)))  # fmt: skip
    ledger, told = Ledger(), []
    masks = measure_masks(objects, rows, ledger, lambda *so_far: told.append(so_far))
    assert told[-1] == (len(images), len(images))
    repairs = {"clipped", "box_as_mask", "polygon_part"}
    assert all((row.outcome == "repaired") == (row.reason in repairs) for row in ledger.rows)
    return masks, [(row.reason, row.image_id, row.id) for row in ledger.rows]


def test_areas_and_overlaps_are_those_of_pixels():
    left, middle, inner = rectangle(0, 0, 20, 30), rectangle(10, 0, 30, 30), rectangle(12, 5, 18, 9)
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[20:30, 15:40] = True
    region = {"size": [HEIGHT, WIDTH], "counts": runs_of(crowd)}
    images = [[], [(left, False), (middle, False), (inner, False), (region, True)], [(left, False)]]
    masks, told = measure(images)
    assert told == []
    assert masks.usable.all()
    assert masks.area.tolist() == [600, 600, 24, 250, 600]
    # left: 300 with middle, 24 with inner, 50 with the crowd; inner lies in both others: no more
    # than all of it is hidden. crowd: 50 with left and 150 with middle.
    assert np.allclose(masks.hidden, [374 / 600, 474 / 600, 1, 200 / 250, 0])
    assert masks.covered.tolist() == [0, 900 + 100, 600]
    assert masks.crowded.tolist() == [0, 250, 0]


def test_parts_of_an_object_are_one_mask():
    two = rectangle(0, 0, 10, 10) + rectangle(5, 0, 20, 10)
    masks, _ = measure([[(rectangle(30, 0, 40, 10), False), (two, False)]])
    assert masks.area.tolist() == [100, 200]
    assert masks.hidden.tolist() == [0, 0]


@pytest.mark.parametrize("crowd", [False, True])
def test_run_lengths_compressed_or_not_are_the_same_mask(crowd):
    random = np.random.default_rng(3)
    for share in (0.02, 0.5, 0.98):
        mask = random.random((HEIGHT, WIDTH)) < share
        packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
        text = {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}
        plain = {"size": [HEIGHT, WIDTH], "counts": runs_of(mask)}
        masks, told = measure([[(text, crowd)], [(plain, crowd)]])
        assert masks.area.tolist() == [mask.sum()] * 2
        assert told == []


@pytest.mark.parametrize("nothing", [None, [], [[]], [[], []]])
def test_without_a_segmentation_the_box_is_the_mask(nothing):
    masks, told = measure([[(nothing, False)]])
    assert masks.area.tolist() == [10 * 20]
    assert told == [("box_as_mask", 0, 100)]
    _, told = measure([[(nothing, False)]], clipped=True)
    assert told == [("box_as_mask", 0, 100), ("clipped", 0, 100)]


@pytest.mark.parametrize(
    ("corners", "area"),
    [((30, 20, 60, 45), 100), ((-5, 0, 5, 10), 50), ((0, -4, 5, 10), 50), ((35, 0, 45, 10), 50),
     ((0, 25, 10, 35), 50)],
)  # fmt: skip
def test_polygons_are_clipped_by_the_frame_and_told_once(corners, area):
    for clipped in (False, True):
        masks, told = measure([[(rectangle(*corners), False)]], clipped)
        assert masks.area.tolist() == [area]
        assert told == [("clipped", 0, 100)]


def test_rounding_is_no_clipping():
    assert measure([[(rectangle(-0.04, 0, 40.04, 30.04), False)]])[1] == []


def test_what_is_left_out_is_not_told_as_repaired():
    masks, told = measure(
        [[(rectangle(41, 2, 45, 9), False), ([[1, 2, 3]], False), (rectangle(3, 3, 9, 9), False)]],
        clipped=True,
    )
    assert masks.usable.tolist() == [False, False, True]
    assert sorted(told) == [("bad_mask", 0, 101), ("clipped", 0, 102), ("zero_area", 0, 100)]
    assert masks.covered.tolist() == [36]


BAD = {
    "odd": [[1, 2, 3, 4, 5, 6, 7]],
    "two points": [[1, 2, 3, 4]],
    "points and lines alone": [[1, 2], [1, 2, 3, 4], []],
    "one odd part": [[1, 2, 9, 4, 5, 16], [1, 2, 3, 4, 5, 6, 7]],
    "far": [[1, 2, 1e9, 4, 5, 6]],
    "beyond numbers": [[1, 2, 1e300, 4, -1e300, 6]],
    "long edge": [[0, 0, 40, 30] * 20_000],
    "text": "abc",
    "text in polygon": [["1", 2, 3, 4, 5, 6]],
    "no list": [1, 2, 3, 4, 5, 6],
    "other size": {"size": [WIDTH, HEIGHT], "counts": [PIXELS]},
    "large size": {"size": [10**9, 10**9], "counts": [10**18]},
    "no counts": {"size": [HEIGHT, WIDTH]},
    "empty counts": {"size": [HEIGHT, WIDTH], "counts": []},
    "short": {"size": [HEIGHT, WIDTH], "counts": [10, 20]},
    "long": {"size": [HEIGHT, WIDTH], "counts": [PIXELS, 1]},
    "negative": {"size": [HEIGHT, WIDTH], "counts": [PIXELS + 5, -5]},
    "wraps": {"size": [HEIGHT, WIDTH], "counts": [2**32, PIXELS]},
    "float": {"size": [HEIGHT, WIDTH], "counts": [0.5, PIXELS - 0.5]},
    "empty text": {"size": [HEIGHT, WIDTH], "counts": ""},
    "open end": {"size": [HEIGHT, WIDTH], "counts": "P"},
    "other letters": {"size": [HEIGHT, WIDTH], "counts": "~~"},
    "no ascii": {"size": [HEIGHT, WIDTH], "counts": "äß"},
    "short text": {"size": [HEIGHT, WIDTH], "counts": "22"},
    "seven digits": {"size": [HEIGHT, WIDTH], "counts": text_of_run_lengths([0, PIXELS], 4)},
    "many digits": {"size": [HEIGHT, WIDTH], "counts": "PPPPPPPPPPPP0"},
}


@pytest.mark.parametrize("name", BAD)
def test_no_mask_is_made_of_what_is_damaged(name):
    with pytest.raises(MaskError):
        parse_segmentation(raw(BAD[name]), WIDTH, HEIGHT)


def peak_kb() -> int:
    """`getrusage` begins with the peak of the parent, and would not see what stays below it."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def test_damaged_masks_cost_neither_the_process_nor_time_nor_memory(tmp_path):
    """In a process of its own: pycocotools would take it down, or never end."""
    (tmp_path / "bad.json").write_text(json.dumps(list(BAD.values())))
    program = (
        "import sys, json\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from test_coco_masks import measure, peak_kb\n"
        f"bad = json.load(open({str(tmp_path / 'bad.json')!r}))\n"
        "before = peak_kb()\n"
        "masks, told = measure([[(one, False) for one in bad]])\n"
        "assert not masks.usable.any()\n"
        "assert peak_kb() - before < 2**19, 'memory'\n"
        "print(len(told))\n"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(len(BAD))), done.stderr[-2000:]
    assert time.monotonic() - started < 60


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(min_codepoint=44, max_codepoint=115), max_size=12))
def test_any_text_is_refused_or_means_what_a_slow_reader_says(text):
    runs = slow_run_lengths(text)
    sound = runs is not None and min(runs, default=-1) >= 0 and sum(runs) == 6
    try:
        mask = parse_segmentation(raw({"size": [2, 3], "counts": text}), 3, 2)
    except MaskError:
        # Seven digits or more need not be read: no picture has so many pixels.
        assert not sound or re.search("[P-o]{6}", text)
    else:
        assert sound
        assert coco.area(mask) == sum(runs[1::2])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 600), min_size=1, max_size=9), st.integers(-1, 1))
def test_sound_runs_are_taken_and_a_pixel_more_or_less_is_not(runs, off):
    width = max(sum(runs) + off, 1)
    segmentation = raw({"size": [1, width], "counts": text_of_run_lengths(runs)})
    if sum(runs) == width:
        assert coco.area(parse_segmentation(segmentation, width, 1)) == sum(runs[1::2])
    else:
        with pytest.raises(MaskError):
            parse_segmentation(segmentation, width, 1)


def test_overlaps_of_many_objects_are_taken_in_pieces(monkeypatch):
    random = np.random.default_rng(0)
    drawn = [random.random((HEIGHT, WIDTH)) < 0.1 for _ in range(17)]
    masks = [coco.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in drawn]
    whole = hidden_shares(masks)
    expected = [
        min(1, sum((one & other).sum() for k, other in enumerate(drawn) if k != n) / one.sum())
        for n, one in enumerate(drawn)
    ]
    assert np.allclose(whole, expected)
    monkeypatch.setattr("mixlens.sources.coco.masks._LARGEST_MATRIX", 40)
    assert hidden_shares(masks).tolist() == whole.tolist()
