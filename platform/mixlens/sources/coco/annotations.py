"""Annotations and captions of the images that are used, each record read on its own."""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
from jaxtyping import Bool, Float, Int8, Int16, Int64

from mixlens.errors import DataError, explain
from mixlens.sources.coco.documents import (
    UNREADABLE,
    Id,
    Names,
    Vocabulary,
    fault,
    names_in,
    unread_fields,
)
from mixlens.sources.coco.ledger import REGIONS, Ledger, Split

# Boxes are written with two decimals: their far edges lie outside by as much without any mistake.
ROUNDING = 0.05  # pixels


_Flag = bool | float | Literal["0", "1"] | None
_OFF = (0, "0", None)
_CROWD = 1 + REGIONS.index("iscrowd")
_STUFF = 1 + REGIONS.index("stuff")


class _Annotation(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What is read of a record that holds nothing else; the area is measured instead."""

    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float]
    iscrowd: bool | Literal[0, 1] = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"null")
    area: msgspec.Raw = msgspec.Raw(b"null")


class _Flagged(_Annotation, frozen=True, gc=False, forbid_unknown_fields=False):
    """The same of a record that holds more: flags, and what is not read."""

    ignore: _Flag = 0  # mmdetection, BDD100K: no detector is asked for it
    isgroupof: _Flag = 0  # Open Images, by three converters
    IsGroupOf: _Flag = 0
    is_group_of: _Flag = 0

    def region(self) -> int:
        """Its place in `REGIONS`, from 1; 0 if it is one object."""
        if self.iscrowd:
            return _CROWD
        if self.ignore not in _OFF:
            return _CROWD + 1
        groups = (self.isgroupof, self.IsGroupOf, self.is_group_of)
        return _CROWD + 2 if any(group not in _OFF for group in groups) else 0


class _Caption(msgspec.Struct, frozen=True, gc=False):
    image_id: Id
    caption: str
    id: Id = -1


@dataclass(frozen=True, slots=True)
class Rows:
    """The images of the index, row by row.

    Attributes:
        split: that each belongs to.
        image_id: in its file of annotations.
        frames: declared width and height, pixels.
    """

    split: Sequence[Split]
    image_id: Sequence[int]
    frames: Int64[np.ndarray, "images 2"]


@dataclass(frozen=True, slots=True)
class Listed:
    """The images that one file lists.

    Attributes:
        row_of: id -> row in the index; -1 if the image was left out.
        default: the split of things whose image has no row.
        rows: of the index.
    """

    row_of: Mapping[int, int]
    default: Split
    rows: Rows

    def split_of(self, image_id: int) -> Split:
        """The split of an image; of an unknown one, that of the file."""
        row = self.row_of.get(image_id, -1)
        return self.rows.split[row] if row >= 0 else self.default


@dataclass(frozen=True, slots=True)
class Objects:
    """Annotations of images that are used, ordered by image.

    Attributes:
        row: of each one's image in the index.
        id: in the file.
        category: its place in `Categories`.
        boxes: x0, y0, x1, y1 inside the declared frame, pixels.
        clipped: whether the box reached outside.
        region: place in `ledger.REGIONS`, from 1, of why it is a region and no single object; or 0.
        segmentation: as the file has it, JSON.
    """

    row: Int64[np.ndarray, " objects"]
    id: Int64[np.ndarray, " objects"]
    category: Int16[np.ndarray, " objects"]
    boxes: Float[np.ndarray, "objects 4"]
    clipped: Bool[np.ndarray, " objects"]
    region: Int8[np.ndarray, " objects"]
    segmentation: Sequence[msgspec.Raw]

    @property
    def crowd(self) -> Bool[np.ndarray, " objects"]:
        """Whether each is a region of many objects, or of none that can be told apart."""
        return self.region > 0

    def __len__(self) -> int:
        return len(self.row)

    def take(self, places: Int64[np.ndarray, " some"]) -> "Objects":
        """Those in these places, in that order."""
        return Objects(
            self.row[places],
            self.id[places],
            self.category[places],
            self.boxes[places],
            self.clipped[places],
            self.region[places],
            [self.segmentation[place] for place in places.tolist()],
        )


@dataclass(frozen=True, slots=True)
class Lost:
    """Annotations of images that are used that were left out: what is there is not told.

    Attributes:
        row: of each one's image in the index.
        category: its place in `Categories`; -1: it could be any.
    """

    row: Int64[np.ndarray, " lost"]
    category: Int16[np.ndarray, " lost"]


@dataclass(frozen=True, slots=True)
class Found:
    """What the annotations of a file hold.

    Attributes:
        objects: those of images that are used.
        lost: those of them that were left out.
        examined: how many there were of them, damaged ones too.
        unread: fields that nothing reads and that hold something, with the number of annotations.
    """

    objects: Objects
    lost: Lost
    examined: int
    unread: Counter[str]


def read_annotations(
    records: Sequence[msgspec.Raw],
    listed: Listed,
    vocabulary: Vocabulary,
    where: str,
    ledger: Ledger,
) -> Found:
    """The annotations of images that are used.

    Args:
        records: of a file.
        listed: the images of that file.
        vocabulary: of the data set.
        where: the field that names the file, for messages.
        ledger: gets those that are left out, except where the image is left out.

    Raises:
        DataError: annotations do not say of which image they are, so that any may lack them.
    """
    decode = msgspec.json.Decoder(_Annotation).decode
    decode_any = msgspec.json.Decoder(_Flagged).decode
    stuff, blind = vocabulary.stuff, vocabulary.blind
    rows, ids, categories = array("q"), array("q"), array("h")
    boxes, region = array("d"), array("b")
    lost_rows, lost_categories = array("q"), array("h")
    segmentation: list[msgspec.Raw] = []
    seen: set[int] = set()
    unread: Counter[str] = Counter()
    nowhere: list[str] = []
    elsewhere = 0
    for position, raw in enumerate(records):
        try:
            try:
                one = decode(raw)
                why = _CROWD if one.iscrowd else 0
            except msgspec.ValidationError:
                one = flagged = decode_any(raw)
                why = flagged.region()
                unread.update(unread_fields(raw, _Flagged.__struct_fields__))
        except UNREADABLE as error:
            detail = f"annotations[{position}]: {fault(error, raw)}"
            names = _malformed(ledger, listed, "annotation", raw, detail)
            row = listed.row_of.get(names.image_id)
            if row is not None and row >= 0:
                lost_rows.append(row)
                lost_categories.append(vocabulary.places.get(names.category_id, -1))
            elif names.image_id == -1:
                nowhere.append(detail)
            continue
        row = listed.row_of.get(one.image_id)
        place = vocabulary.places.get(one.category_id)
        if row is None:
            reason, detail = "unlisted_image", f"no image has the id {one.image_id}"
            elsewhere += 1
        elif row < 0:
            elsewhere += 1
            continue
        elif place is None:
            reason, detail = "unknown_category", f"no category has the id {one.category_id}"
        elif one.id in seen:
            reason, detail = "duplicate_id", "an annotation before it has this id"
        elif place in blind:
            reason, detail = "ignored_region", "nothing was annotated there, of whatever category"
        else:
            seen.add(one.id)
            rows.append(row)
            ids.append(one.id)
            categories.append(place)
            boxes.extend(one.bbox)
            region.append(_STUFF if not why and place in stuff else why)
            segmentation.append(one.segmentation)
            continue
        if row is not None:
            lost_rows.append(row)
            lost_categories.append(-1 if place is None or place in blind else place)
        ledger.add(listed.split_of(one.image_id), "annotation", reason, image_id=one.image_id,
                   id=one.id, detail=f"annotations[{position}]: {detail}")  # fmt: skip
    if nowhere:
        problem = (
            f"they do not say of which image they are, so that any may lack them: {nowhere[0]}"
        )
        remedy = "Give them an image_id, or take them out of the file."
        what = f"{len(nowhere):,} of {len(records):,}"
        raise DataError(explain(f"{where}: annotations", what, problem, remedy))
    found = Objects(
        np.array(rows, np.int64),
        np.array(ids, np.int64),
        np.array(categories, np.int16),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.zeros(len(rows), bool),
        np.array(region, np.int8),
        segmentation,
    )
    ordered = found.take(np.argsort(found.row, kind="stable"))
    objects, outside = _inside(ordered, listed.rows, ledger)
    lost = Lost(np.array(lost_rows, np.int64), np.array(lost_categories, np.int16))
    return Found(objects, joined_lost([lost, outside]), len(records) - elsewhere, unread)


def _inside(objects: Objects, rows: Rows, ledger: Ledger) -> tuple[Objects, Lost]:
    """From x, y, width, height to corners inside the frame; and what has none there."""
    corner, size = objects.boxes[:, :2], objects.boxes[:, 2:]
    frame = rows.frames[objects.row].astype(float)
    with np.errstate(over="ignore"):  # a file may say anything
        far = corner + size
    boxes = np.hstack([np.clip(corner, 0, frame), np.clip(far, 0, frame)])
    is_empty = size.min(axis=1) <= 0
    is_outside = (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    for place in np.flatnonzero(is_empty | is_outside).tolist():
        row = int(objects.row[place])
        x, y, width, height = objects.boxes[place].tolist()
        ledger.add(rows.split[row], "annotation",
                   "zero_area" if is_empty[place] else "outside_frame",
                   image_id=rows.image_id[row], id=int(objects.id[place]),
                   detail=f"box at {x:g}, {y:g} of {width:g} x {height:g} in a frame of "
                          "{} x {}".format(*rows.frames[row]))  # fmt: skip
    clipped = ((corner < -ROUNDING) | (far > frame + ROUNDING)).any(axis=1)
    inside = replace(objects, boxes=boxes, clipped=clipped)
    gone = is_empty | is_outside
    lost = Lost(objects.row[gone], objects.category[gone])
    return inside.take(np.flatnonzero(~gone)), lost


def joined(parts: Sequence[Objects]) -> Objects:
    """The objects of several files, one after the other."""
    return Objects(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.id for part in parts]),
        np.concatenate([part.category for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.clipped for part in parts]),
        np.concatenate([part.region for part in parts]),
        [raw for part in parts for raw in part.segmentation],
    )


def joined_lost(parts: Sequence[Lost]) -> Lost:
    """All that were lost."""
    return Lost(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.category for part in parts]),
    )


def read_captions(
    records: Sequence[msgspec.Raw], listed: Listed, ledger: Ledger
) -> dict[int, list[str]]:
    """Captions by row of the index, in the order of the file, each on one line.

    Args:
        records: of a file of captions.
        listed: the images of the file of annotations beside it.
        ledger: gets those that are left out, except where the image is left out.
    """
    decode = msgspec.json.Decoder(_Caption).decode
    captions: dict[int, list[str]] = {}
    for position, raw in enumerate(records):
        try:
            one = decode(raw)
        except UNREADABLE as error:
            detail = f"annotations[{position}]: {fault(error, raw)}"
            _malformed(ledger, listed, "caption", raw, detail)
            continue
        row, text = listed.row_of.get(one.image_id), " ".join(one.caption.split())
        if row is None:
            reason, detail = "unlisted_image", f"no image has the id {one.image_id}"
        elif row < 0:
            continue
        elif not text:
            reason, detail = "empty", "the caption has no words"
        else:
            captions.setdefault(row, []).append(text)
            continue
        ledger.add(listed.split_of(one.image_id), "caption", reason, image_id=one.image_id,
                   id=one.id, detail=f"annotations[{position}]: {detail}")  # fmt: skip
    return captions


def _malformed(
    ledger: Ledger,
    listed: Listed,
    what: Literal["annotation", "caption"],
    raw: Any,
    detail: str,
) -> Names:
    names = names_in(raw)
    ledger.add(listed.split_of(names.image_id), what, "malformed", image_id=names.image_id,
               id=names.id, detail=detail)  # fmt: skip
    return names
