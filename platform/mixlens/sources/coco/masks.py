"""Masks of annotations: how large they are and how far they hide each other (pycocotools)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int64
from pycocotools import mask as coco

from mixlens.sources.coco.annotations import Objects, Rows
from mixlens.sources.coco.ledger import Ledger
from mixlens.sources.coco.segmentation import (
    MaskError,
    Polygon,
    Rle,
    has_area,
    parse_segmentation,
    reaches_out,
)

# pycocotools puts the number of masks whose areas it is asked for into a byte.
_MOST_AREAS = 255
_REPORT_EVERY = 4096
_LARGEST_MATRIX = 2**22  # overlaps at a time


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
    usable = np.zeros(len(objects), bool)
    area, hidden = np.zeros(len(objects)), np.zeros(len(objects))
    covered, crowded = np.zeros(images, np.int64), np.zeros(images, np.int64)
    first = np.searchsorted(objects.row, np.arange(images + 1)).tolist()
    frames, crowd = rows.frames.tolist(), objects.crowd.tolist()
    for row in range(images):
        if row % _REPORT_EVERY == 0:
            progress(row, images)
        start, end = first[row], first[row + 1]
        found, areas, outcomes = image_masks(
            objects.segmentation[start:end], objects.boxes[start:end], objects.clipped[start:end],
            *frames[row],
        )  # fmt: skip
        for place, reason, detail in outcomes:
            ledger.add(rows.split[row], "annotation", reason, image_id=rows.image_id[row],
                       id=int(objects.id[start + place]), detail=detail)  # fmt: skip
        kept = [start + place for place in found]
        masks = list(found.values())
        if masks:
            usable[kept] = True
            area[kept] = areas
            hidden[kept] = hidden_shares(masks)
            covered[row] = coco.area(coco.merge(masks))
            regions = [mask for mask, place in zip(masks, kept, strict=True) if crowd[place]]
            if regions:
                crowded[row] = coco.area(coco.merge(regions))
    progress(images, images)
    return Masks(usable, area[usable], hidden[usable], covered, crowded)


def hidden_shares(masks: Sequence[Rle]) -> Float[np.ndarray, " masks"]:
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


def image_masks(
    segmentations: Sequence[msgspec.Raw],
    boxes: Float[np.ndarray, "objects 4"],
    clipped: Bool[np.ndarray, " objects"],
    width: int,
    height: int,
) -> tuple[dict[int, Rle], list[int], list[tuple[int, str, str]]]:
    """The masks of an image's objects.

    Args:
        segmentations: of each object, as the file has them.
        boxes: of each, inside the frame.
        clipped: whether each one's box reached outside.
        width: of the frame, pixels.
        height: of the frame, pixels.

    Returns:
        Masks by place of the object, in rising order; their areas, pixels; and the place, reason
        and detail of each object that was left out or repaired.
    """
    masks: dict[int, Rle | None] = {}
    polygons: list[Polygon] = []
    owners: list[int] = []
    left_out: dict[int, tuple[str, str]] = {}
    repaired: list[tuple[int, str, str]] = []
    for place, segmentation in enumerate(segmentations):
        try:
            shape = parse_segmentation(segmentation, width, height)
        except MaskError as error:
            left_out[place] = "bad_mask", str(error)
            continue
        over = bool(clipped[place])
        if isinstance(shape, dict):
            masks[place] = shape
        else:
            if not shape:
                x0, y0, x1, y1 = boxes[place].tolist()
                shape = [[x0, y0, x0, y1, x1, y1, x1, y0]]
                repaired.append((place, "box_as_mask", "no segmentation"))
            if thin := [part for part in shape if not has_area(part)]:
                shape = [part for part in shape if has_area(part)]
                detail = f"a part of {len(thin[0])} numbers was left out: it has no area"
                repaired.append((place, "polygon_part", detail))
            over = over or any(reaches_out(polygon, width, height) for polygon in shape)
            masks[place] = None  # keeps its place until all polygons are drawn
            polygons += shape
            owners += [place] * len(shape)
        if over:
            detail = f"reached outside the frame of {width} x {height}"
            repaired.append((place, "clipped", detail))
    if polygons:
        masks |= _joined(coco.frPyObjects(polygons, height, width), owners)
    drawn = cast(dict[int, Rle], masks)
    areas = dict(zip(drawn, _areas(list(drawn.values())), strict=True))
    for place in [place for place, pixels in areas.items() if not pixels]:
        del drawn[place], areas[place]
        left_out[place] = "zero_area", "its mask covers no pixel"
    outcomes = [(place, *why) for place, why in left_out.items()]
    outcomes += [repair for repair in repaired if repair[0] not in left_out]
    return drawn, list(areas.values()), outcomes


def _areas(masks: Sequence[Rle]) -> list[int]:
    starts = range(0, len(masks), _MOST_AREAS)
    return [int(n) for start in starts for n in coco.area(masks[start : start + _MOST_AREAS])]


def _joined(parts: Sequence[Rle], owners: Sequence[int]) -> dict[int, Rle]:
    """The union of each owner's parts, which follow each other."""
    masks, start = {}, 0
    for end in range(1, len(parts) + 1):
        if end == len(parts) or owners[end] != owners[start]:
            alone = end - start == 1
            masks[owners[start]] = parts[start] if alone else coco.merge(parts[start:end])
            start = end
    return masks
