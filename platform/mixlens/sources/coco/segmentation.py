"""Segmentations as files have them, checked before pycocotools sees them.

It trusts what it gets: with numbers it does not expect it fills the memory, never ends, or takes
the process with it.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from pycocotools import mask as coco

from mixlens.sources.coco.annotations import ROUNDING
from mixlens.sources.coco.documents import fault

Rle = dict[str, Any]
"""Compressed run lengths as pycocotools has them: `size` (height, width) and `counts`."""

Polygon = list[float]
"""x and y of each corner, pixels."""

# pycocotools walks along the edges of a polygon in steps of a fifth of a pixel and keeps them all.
_LONGEST_EDGE = 2**20  # pixels
# Numbers of one to six digits of five bits, each of which ends: what its decoder reads without
# leaving the text, and without more bits than it shifts them into.
_COUNTS = re.compile(rb"(?:[P-o]{0,5}[0-O])+")


class MaskError(ValueError):
    """A segmentation that no mask can be made of."""


class _Runs(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: list[int] | str


_decode = msgspec.json.Decoder(list[Polygon] | _Runs | None).decode


def parse_segmentation(segmentation: msgspec.Raw, width: int, height: int) -> list[Polygon] | Rle:
    """Polygons (none: no segmentation) or compressed run lengths that pycocotools can take.

    Beside a polygon there may be parts of fewer than three points, which have no area (`has_area`).

    Args:
        segmentation: polygons, or run lengths (compressed or not), as JSON.
        width: of the frame, pixels.
        height: of the frame, pixels.

    Raises:
        MaskError: no mask can be made of it; the message says why.
    """
    try:
        shape = _decode(segmentation)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MaskError(f"segmentation: {fault(error, segmentation)}") from error
    if isinstance(shape, _Runs):
        return _run_lengths(shape, width, height)
    if shape is None or not any(shape):
        return []
    for polygon in [part for part in shape if has_area(part)] or shape:
        _check_polygon(polygon, width, height)
    return shape


def has_area(part: Polygon) -> bool:
    """Whether a part of a segmentation is more than a point or a line."""
    return len(part) not in (0, 2, 4)


def _check_polygon(polygon: Polygon, width: int, height: int) -> None:
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


def reaches_out(polygon: Polygon, width: int, height: int) -> bool:
    """Whether a corner lies outside the frame, by more than rounding."""
    return (
        min(polygon) < -ROUNDING
        or max(polygon[::2]) > width + ROUNDING
        or max(polygon[1::2]) > height + ROUNDING
    )


def _run_lengths(runs: _Runs, width: int, height: int) -> Rle:
    if runs.size != (height, width):
        raise MaskError(f"run lengths of size {list(runs.size)} in a frame of [{height}, {width}]")
    if isinstance(runs.counts, str):
        text = runs.counts.encode()
        if not _COUNTS.fullmatch(text):
            raise MaskError("compressed run lengths with letters that they cannot have there")
        lengths = _lengths(text)
    else:
        lengths = runs.counts
    _check_runs(lengths, width * height)
    plain = {"size": [height, width], "counts": _without_empty(lengths)}
    return coco.frPyObjects(plain, height, width)


def _without_empty(lengths: Sequence[int]) -> list[int]:
    """The same mask without runs of no pixel, except the first.

    Where two masks have such runs in the same place, pycocotools takes it for their end: their
    union is cut off there, and merging it with a third mask never ends.
    """
    joined = [0]
    for place, length in enumerate(lengths):
        if length and place % 2 != (len(joined) - 1) % 2:
            joined.append(length)
        else:
            joined[-1] += length
    return joined


def _check_runs(lengths: Sequence[int], pixels: int) -> None:
    if min(lengths, default=0) < 0:
        raise MaskError("a run of negative length")
    if sum(lengths) != pixels:
        raise MaskError(f"runs of {sum(lengths):,} pixels in all for {pixels:,}")


def _lengths(text: bytes) -> list[int]:
    """Lengths of compressed runs; the format is that of pycocotools' `rleToString`.

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
