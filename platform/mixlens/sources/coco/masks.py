"""Masks of annotations: how large they are and how far they hide each other (pycocotools)."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int64
from pycocotools import mask as coco

from mixlens.sources.coco.annotations import ROUNDING, Objects, Rows
from mixlens.sources.coco.ledger import Ledger

_REPORT_EVERY = 4096
# pycocotools walks along the edges of a polygon in steps of a fifth of a pixel and keeps them all.
_LONGEST_EDGE = 2**20  # pixels
_LARGEST_MATRIX = 2**22  # overlaps at a time
# Numbers of one to six digits of five bits, each of which ends: what its decoder reads without
# leaving the text, and without more bits than it shifts them into.
_COUNTS = re.compile(rb"(?:[P-o]{0,5}[0-O])+")

_Rle = dict[str, Any]


class MaskError(ValueError):
    """A segmentation that no mask can be made of."""


class _Runs(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: list[int] | str


_decode = msgspec.json.Decoder(list[list[float]] | _Runs | None).decode


@dataclass(frozen=True, slots=True)
class Masks:
    """What the masks say.

    Attributes:
        usable: whether each object has a mask; the other columns are of those that have.
        area: of each object's mask, pixels.
        hidden: share of each object's mask that lies in masks of others, 0 to 1.
        covered: pixels of each image that lie in any mask.
        crowded: pixels of each image that lie in crowd regions.
    """

    usable: Bool[np.ndarray, " objects"]
    area: Float[np.ndarray, " usable"]
    hidden: Float[np.ndarray, " usable"]
    covered: Int64[np.ndarray, " images"]
    crowded: Int64[np.ndarray, " images"]


def measure_masks(
    objects: Objects, rows: Rows, ledger: Ledger, progress: Callable[[int, int], None]
) -> Masks:
    """Measure the masks of all images of the index, one image at a time.

    An object without segmentation gets the mask of its box. One whose segmentation is damaged, or
    covers no pixel, has none.

    Args:
        objects: ordered by image.
        rows: their images.
        ledger: gets what was left out or repaired.
        progress: is told images done, and how many there are.
    """
    images = len(rows.frames)
    usable = np.zeros(len(objects.row), bool)
    area, hidden = np.zeros(len(usable)), np.zeros(len(usable))
    covered, crowded = np.zeros(images, np.int64), np.zeros(images, np.int64)
    ends = np.searchsorted(objects.row, np.arange(images), side="right").tolist()
    frames, crowd = rows.frames.tolist(), objects.crowd.tolist()
    first = 0
    for row, end in enumerate(ends):
        if row % _REPORT_EVERY == 0:
            progress(row, images)
        if first < end:
            rles = _rles(objects, first, end, row, frames[row], rows, ledger)
            kept = [place for place in range(first, end) if rles[place - first] is not None]
            masks = [rle for rle in rles if rle is not None]
            if kept:
                usable[kept] = True
                area[kept] = coco.area(masks)
                hidden[kept] = hidden_shares(masks)
                covered[row] = coco.area(coco.merge(masks))
                regions = [rle for rle, place in zip(masks, kept, strict=True) if crowd[place]]
                if regions:
                    crowded[row] = coco.area(coco.merge(regions))
        first = end
    progress(images, images)
    return Masks(usable, area[usable], hidden[usable], covered, crowded)


def hidden_shares(masks: Sequence[_Rle]) -> Float[np.ndarray, " masks"]:
    """Share of each mask that lies in the others of its image; 1 where these add up to more.

    Of a pair the masks do not tell which is in front, so that each counts as hidden by the other.
    """
    count = len(masks)
    shares = np.zeros(count)
    if count == 1:
        return shares
    step = max(1, _LARGEST_MATRIX // count)
    for start in range(0, count, step):
        some = masks[start : start + step]
        # For a crowd the union is its own area: what is wanted here for all.
        overlaps = coco.iou(some, masks, [1] * count)
        shares[start : start + step] = overlaps.sum(1) - 1  # without itself
    return shares.clip(0, 1)


def _rles(
    objects: Objects,
    first: int,
    end: int,
    row: int,
    frame: tuple[int, int],
    rows: Rows,
    ledger: Ledger,
) -> list[_Rle | None]:
    """The masks of an image's objects, None for those that have none."""
    width, height = frame
    rles: list[_Rle | None] = [None] * (end - first)
    polygons: list[list[float]] = []
    owners: list[int] = []
    left_out: dict[int, tuple[str, str]] = {}
    repaired: list[tuple[int, str, str]] = []
    clipped = objects.clipped[first:end].tolist()
    for place in range(end - first):
        try:
            shape = parse_mask(objects.segmentation[first + place], width, height)
        except MaskError as error:
            left_out[place] = "bad_mask", str(error)
            continue
        if isinstance(shape, dict):
            rles[place] = shape
        else:
            if not shape:
                x0, y0, x1, y1 = objects.boxes[first + place].tolist()
                shape = [[x0, y0, x0, y1, x1, y1, x1, y0]]
                repaired.append((place, "box_as_mask", "no segmentation"))
            elif any(_reaches_out(polygon, width, height) for polygon in shape):
                clipped[place] = True
            polygons += shape
            owners += [place] * len(shape)
        if clipped[place]:
            detail = f"reached outside the frame of {width} x {height}"
            repaired.append((place, "clipped", detail))
    if polygons:
        _join(rles, coco.frPyObjects(polygons, height, width), owners)
    made = [place for place, rle in enumerate(rles) if rle is not None]
    for place, pixels in zip(made, coco.area([rles[place] for place in made]), strict=True):
        if not pixels:
            rles[place] = None
            left_out[place] = "zero_area", "its mask covers no pixel"
    kept = [repair for repair in repaired if repair[0] not in left_out]
    for place, reason, detail in [*((place, *why) for place, why in left_out.items()), *kept]:
        ledger.add(rows.split[row], "annotation", reason, image_id=rows.image_id[row],
                   id=int(objects.id[first + place]), detail=detail)  # fmt: skip
    return rles


def _join(rles: list[_Rle | None], parts: list[_Rle], owners: list[int]) -> None:
    """Give each owner the union of its parts, which follow each other."""
    start = 0
    for end in range(1, len(parts) + 1):
        if end == len(parts) or owners[end] != owners[start]:
            alone = end - start == 1
            rles[owners[start]] = parts[start] if alone else coco.merge(parts[start:end])
            start = end


def parse_mask(segmentation: msgspec.Raw, width: int, height: int) -> list[list[float]] | _Rle:
    """Polygons (none: no segmentation) or compressed run lengths that pycocotools can take.

    It trusts what it gets: with numbers it does not expect it fills the memory, never ends, or
    takes the process with it. So everything it relies on is checked here.

    Args:
        segmentation: polygons, or run lengths (compressed or not), as JSON.
        width: of the frame, pixels.
        height: of the frame, pixels.

    Raises:
        MaskError: no mask can be made of it; the message says why.
    """
    try:
        shape = _decode(segmentation)
    except msgspec.MsgspecError as error:
        raise MaskError(f"segmentation: {error}") from error
    if isinstance(shape, _Runs):
        return _run_lengths(shape, width, height)
    if shape is None or not any(shape):
        return []
    for polygon in shape:
        _check_polygon(polygon, width, height)
    return shape


def _check_polygon(polygon: list[float], width: int, height: int) -> None:
    numbers, longest = len(polygon), max(width, height)
    if numbers < 6 or numbers % 2:
        raise MaskError(f"a polygon of {numbers} numbers; it needs x and y of three points or more")
    # One frame beyond each edge is clipped by pycocotools itself; what lies farther is no polygon
    # of this image.
    if min(polygon) < -longest or max(polygon) > 2 * longest:
        farthest = max(polygon, key=abs)
        raise MaskError(f"a polygon reaches {farthest:g} in a frame of {width} x {height}")
    if 3 * longest * numbers > _LONGEST_EDGE:
        points = np.array(polygon).reshape(-1, 2)
        length = np.abs(points - np.roll(points, 1, 0)).max(1).sum()
        if length > _LONGEST_EDGE:
            raise MaskError(f"the edge of a polygon is {length:.0f} pixels long")


def _reaches_out(polygon: list[float], width: int, height: int) -> bool:
    return (
        min(polygon) < -ROUNDING
        or max(polygon[::2]) > width + ROUNDING
        or max(polygon[1::2]) > height + ROUNDING
    )


def _run_lengths(runs: _Runs, width: int, height: int) -> _Rle:
    if runs.size != (height, width):
        raise MaskError(f"run lengths of size {list(runs.size)} in a frame of [{height}, {width}]")
    if isinstance(runs.counts, str):
        text = runs.counts.encode()
        if not _COUNTS.fullmatch(text):
            raise MaskError("compressed run lengths with letters that they cannot have there")
        _check_runs(_lengths(text), width * height)
        return {"size": [height, width], "counts": text}
    _check_runs(runs.counts, width * height)
    plain = {"size": [height, width], "counts": runs.counts}
    return coco.frPyObjects(plain, height, width)


def _check_runs(lengths: Sequence[int], pixels: int) -> None:
    if min(lengths, default=0) < 0:
        raise MaskError("a run of negative length")
    if sum(lengths) != pixels:
        raise MaskError(f"runs of {sum(lengths):,} pixels in all for {pixels:,}")


def _lengths(text: bytes) -> list[int]:
    """Lengths of compressed runs, for the check alone; the format is that of `rleToString`.

    Digits of five bits, least first; from the fourth on, differences to the last but one.
    """
    digits = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = (digits & 32) == 0
    starts = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    number = np.cumsum(last) - last
    shift = 5 * (np.arange(len(digits)) - starts[number])
    values = np.add.reduceat((digits & 31) << shift, starts)
    negative = (digits[last] & 16) != 0
    values -= np.where(negative, np.int64(1) << (shift[last] + 5), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values.tolist()
