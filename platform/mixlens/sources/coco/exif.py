"""How the annotations of photographs lie that EXIF turns: as the upright picture, or as the file.

One tool draws on the picture as people look at it, another on the rows of pixels as the file stores
them, and declared sizes may be of either all the same. It is a habit of the tool, so it is found
out once for a file of annotations, from all its images that tell.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgspec

from mixlens.sources.coco.documents import UNREADABLE, Id, ImageRecord
from mixlens.sources.coco.inspect import Header
from mixlens.spec import Exif

Frame = Literal["upright", "stored"]
Told = Literal["", "upright", "stored", "both"]

# Boxes are drawn beyond an edge by as much, of the longer side, without any mistake.
_BEYOND = 0.01
_NAMED = 5


class _Owner(msgspec.Struct, gc=False):
    image_id: Id


class _Shapes(msgspec.Struct, gc=False):
    bbox: Any = None
    segmentation: Any = None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many images that EXIF turns say what; those without annotations do not count.

    Attributes:
        frame: in which the annotations of the file are taken to lie.
        by: how that is known: by boxes and outlines, by declared sizes alone, by the setting of
            the data set, or not at all.
        upright: images that tell of the upright picture.
        stored: images that tell of the picture as it is stored.
        both: images whose annotations contradict each other.
        silent: images that do not tell.
        otherwise: images that declare the size of the other frame all the same.
        left_out: ids of the images that contradict `frame`, or themselves.
    """

    frame: Frame
    by: Literal["boxes", "sizes", "setting", "guess"]
    upright: int
    stored: int
    both: int
    silent: int
    otherwise: int
    left_out: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Direction:
    """What is known of a file of annotations.

    Attributes:
        tally: see there; None if EXIF turns none of its images.
        told: by id of each image with annotations that EXIF turns, what it tells.
    """

    tally: Tally | None
    told: Mapping[int, Told]

    @property
    def is_sure(self) -> bool:
        """Whether something tells, and nothing tells otherwise.

        Sizes before EXIF are also declared by tools that draw upright, but not the other way round.
        """
        tally = self.tally
        if tally is None or tally.by == "setting":
            return True
        known = tally.by == "boxes" or (tally.by == "sizes" and tally.frame == "upright")
        return known and not tally.left_out


def sides(header: Header, frame: Frame) -> tuple[int, int]:
    """Width and height of a picture, upright or as it is stored."""
    upright = header.width, header.height
    return upright[::-1] if frame == "stored" and header.turned else upright


def declared_in(record: ImageRecord, header: Header) -> bool:
    """Whether the declared size is that of one of the frames."""
    declared = record.width, record.height
    return declared in (sides(header, "upright"), sides(header, "stored"))


def find_direction(
    records: Sequence[ImageRecord],
    headers: Sequence[Header],
    instead: Mapping[int, int],
    annotations: Sequence[msgspec.Raw],
    setting: Exif,
) -> Direction:
    """How the annotations of a file lie.

    An image tells of a frame by a box, an outline or run lengths that lie in this frame alone; or
    else by its declared size, as far as no majority of images that declare theirs likewise tells
    otherwise. Most images decide, and of equally many the upright ones, as most tools draw. Half
    turns, mirrors and squares tell nothing: they follow the others.

    Args:
        records: of the images.
        headers: of each.
        instead: id of another record of one of these images -> its id.
        annotations: of the file.
        setting: what a person says of the data set.
    """
    turned = {
        record.id: (record, header)
        for record, header in zip(records, headers, strict=True)
        if header.orientation > 1 and not header.problem and declared_in(record, header)
    }
    if not turned:
        return Direction(None, {})
    shown = _shown(turned, instead, annotations)
    declared = {
        image_id: _alone((record.width, record.height), header)
        for image_id, (record, header) in turned.items()
        if image_id in shown
    }
    told = dict(shown)
    by: Literal["boxes", "sizes", "setting", "guess"] = "setting"
    if setting == "automatic":
        by = "boxes" if any(shown.values()) else "guess"
        for size in ("upright", "stored"):
            alike = [image_id for image_id, found in declared.items() if found == size]
            says = Counter(shown[image_id] for image_id in alike if shown[image_id])
            if says[size] * 2 > says.total() or not says:
                told |= {image_id: size for image_id in alike if not shown[image_id]}
        if by == "guess" and any(told.values()):
            by = "sizes"
    counts = Counter(told.values())
    frame: Frame = "stored" if counts["stored"] > counts["upright"] else "upright"
    if setting != "automatic":
        frame = setting
    against = tuple(image_id for image_id, found in told.items() if found not in ("", frame))
    otherwise = sum(
        found not in ("", frame) and image_id not in against for image_id, found in declared.items()
    )
    tally = Tally(frame, by, counts["upright"], counts["stored"], counts["both"], counts[""],
                  otherwise, against)  # fmt: skip
    return Direction(tally if told else None, told)


def _alone(size: object, header: Header) -> Told:
    """The frame whose width and height these are, if they are not those of the other as well."""
    return _which(size == sides(header, "upright"), size == sides(header, "stored"))


def _which(upright: bool, stored: bool) -> Told:
    """The frame that something fits while it does not fit the other."""
    return "" if upright == stored else "upright" if upright else "stored"


def _shown(
    turned: Mapping[int, tuple[ImageRecord, Header]],
    instead: Mapping[int, int],
    annotations: Sequence[msgspec.Raw],
) -> dict[int, Told]:
    """What the annotations of each image tell, of those that have any."""
    owner = msgspec.json.Decoder(_Owner).decode
    shapes = msgspec.json.Decoder(_Shapes).decode
    shown: dict[int, Told] = {}
    for raw in annotations:
        try:
            image_id = owner(raw).image_id
            image_id = instead.get(image_id, image_id)
            if image_id not in turned:
                continue
            found = shapes(raw)
        except UNREADABLE:  # told where annotations are read
            continue
        _, header = turned[image_id]
        before = shown.setdefault(image_id, "")
        for one in _frames(found, header):
            before = one if before in ("", one) else "both"
        shown[image_id] = before
    return shown


def _frames(found: _Shapes, header: Header) -> list[Told]:
    """The frames that the parts of an annotation tell of."""
    if header.width == header.height or not header.turned:
        return []
    told: list[Told] = []
    shape = found.segmentation
    if isinstance(shape, dict) and isinstance(size := shape.get("size"), list):
        told.append(_alone(tuple(size[::-1]), header))
    box, outlines = found.bbox, shape if isinstance(shape, list) else []
    if _are_numbers(box) and len(box) == 4:
        x, y, width, height = box
        told.append(_inside([x, x + width], [y, y + height], header))
    told += [_inside(part[::2], part[1::2], header) for part in outlines if _are_numbers(part)]
    return [one for one in told if one]


def _are_numbers(part: Any) -> bool:
    return (
        isinstance(part, list) and len(part) >= 4 and len(part) % 2 == 0
        and all(isinstance(number, int | float) for number in part)
    )  # fmt: skip


def _inside(xs: Sequence[float], ys: Sequence[float], header: Header) -> Told:
    """The frame that points lie in while they do not lie in the other."""
    beyond = max(1.0, _BEYOND * max(header.width, header.height))
    if min(*xs, *ys) < -beyond:
        return ""
    right, low = max(xs) - beyond, max(ys) - beyond
    frames: tuple[Frame, ...] = ("upright", "stored")
    fits = [
        right <= width and low <= height for width, height in (sides(header, f) for f in frames)
    ]
    return _which(*fits)


_LIES = {
    "upright": "as the upright picture",
    "stored": "as the file is stored, before EXIF turns it",
}


def doubt(record: ImageRecord, header: Header, direction: Direction) -> tuple[str, str]:
    """The reason and the detail that the ledger gets of an image that EXIF turns; empty if none."""
    tally, told = direction.tally, direction.told.get(record.id)
    if tally is None or told is None:
        return "", ""
    upright, stored = (
        f"{_LIES[frame]}, {width} x {height}"
        for frame in ("upright", "stored")
        for width, height in [sides(header, frame)]
    )
    here = f"EXIF orientation {header.orientation}"
    if record.id in tally.left_out:
        if told == "both":
            return "exif_contradiction", f"{here}: some annotations lie {upright}, others {stored}"
        own, other = (upright, stored) if told == "upright" else (stored, upright)
        why = {"setting": "by the setting"}.get(tally.by, f"by {tally.upright:,} images against "
                                                          f"{tally.stored:,}")  # fmt: skip
        return "exif_contradiction", (
            f"{here}: its annotations or its declared size lie {own}; those of the file lie "
            f"{other}, {why}"
        )
    if tally.frame == "stored":
        known = direction.is_sure or (tally.by == "boxes" and told)
        return "turned" if known else "turned_unsure", f"{here}: annotations lie {stored}"
    if tally.by == "guess":
        return "exif_guess", f"{here}: nothing tells whether annotations lie {upright}; taken so"
    if not told and not direction.is_sure:
        return "exif_guess", f"{here}: annotations are taken to lie {upright}, as of most images"
    if (record.width, record.height) != sides(header, "upright"):
        return "size_as_stored", (
            f"{here}: declared {record.width} x {record.height}, {_LIES['stored']}; annotations "
            f"lie {upright}"
        )
    return "", ""


def as_record(direction: Direction) -> dict[str, Any] | None:
    """What the record of an index holds of it."""
    return asdict(direction.tally) if direction.tally else None


def sentence(field: str, found: Mapping[str, Any]) -> str:
    """What a job prints of it.

    Args:
        field: of the data set.
        found: what `as_record` gave.
    """
    tally = Tally(**found)
    number = tally.upright + tally.stored + tally.both + tally.silent
    images = f"{number:,} images" if number != 1 else "1 image"
    set_it = f"look at some and set {field}.exif to upright or stored"
    lies = f"{_LIES[tally.frame]}"
    if tally.by == "guess":
        return (
            f"EXIF turns {images} and nothing tells how their annotations lie; they are taken "
            f"{lies}, which is a guess: {set_it}"
        )
    telling = {"upright": tally.upright, "stored": tally.stored}[tally.frame]
    by = {
        "boxes": f"as {telling:,} of them show",
        "sizes": f"as {telling:,} of them say by their declared size alone; if that is wrong, set "
        f"{field}.exif",
        "setting": f"as {field}.exif says",
    }[tally.by]
    text = f"EXIF turns {images}; annotations are taken {lies}, {by}"
    if tally.otherwise:
        text += (
            f"; {tally.otherwise:,} declare a size that does not fit this, and tools that do so "
            "may draw outlines otherwise than boxes: look at some"
        )
    if tally.left_out:
        ids = ", ".join(map(str, tally.left_out[:_NAMED]))
        more = " ..." if len(tally.left_out) > _NAMED else ""
        text += (
            f"; {len(tally.left_out):,} that contradict this or themselves are left out (image "
            f"{ids}{more})"
        )
        if tally.silent and tally.by != "setting":
            text += f", and {tally.silent:,} that tell nothing hang on it: {set_it}"
    return text
