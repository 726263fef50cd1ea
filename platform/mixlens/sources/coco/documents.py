"""Files in COCO format: their lists of records, each record read on its own.

A malformed record is left out alone, with its reason; only a file that is no JSON, or lacks a list,
is refused as a whole.
"""

import codecs
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from mixlens.errors import DataError, explain
from mixlens.sources.coco.ledger import Ledger, Split
from mixlens.tasks.photo.photo import Categories

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that is damaged or not what it should be."""

_MOST_CATEGORIES = 2**15 - 1
# Python's json writes these where a number is none, and JSON has no such thing. Strings are matched
# to pass over them.
_NO_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|\bNaN\b|\bInfinity\b', re.DOTALL)
# What is NaN is missing, as in tables of pandas. By the white space a record still tells of it.
_NULL = b"null\t \t"
_TOO_LARGE = b"1e999   "  # which no number can be
_SHOWN = 30  # letters around a place in a file
_LOOKED_AT = 20
_NOTHING = {b"0", b"0.0", b"false", b"null", b'""', b"[]", b"{}"}
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

# What VisDrone and KITTI call boxes around everything that they did not annotate, and copies of
# them in COCO format.
_BLIND_NAMES = {"ignored regions", "ignored region", "ignored", "ignore", "dontcare", "don't care"}

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Side = Annotated[int, Meta(ge=1, le=2**31 - 1)]
_Text = Annotated[str, Meta(min_length=1)]


class Document(msgspec.Struct):
    """A file of annotations, its records not yet read."""

    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[msgspec.Raw]


class CaptionDocument(msgspec.Struct):
    """A file of captions, its records not yet read."""

    annotations: list[msgspec.Raw]


class ImageRecord(msgspec.Struct, frozen=True, gc=False):
    """An image as a file lists it; width and height are declared, pixels.

    Attributes:
        neg_category_ids: categories of which somebody looked and found no object. A file with
            this or the next field is federated (LVIS): of other categories that have no
            annotation in an image, nobody knows.
        not_exhaustive_category_ids: categories of which there are more objects than annotations.
    """

    id: Id
    file_name: _Text
    width: _Side
    height: _Side
    neg_category_ids: tuple[Id, ...] | None = None
    not_exhaustive_category_ids: tuple[Id, ...] | None = None

    @property
    def is_federated(self) -> bool:
        """Whether its annotations are said to be of some categories only."""
        lists = (self.neg_category_ids, self.not_exhaustive_category_ids)
        return any(ids is not None for ids in lists)


# Besides those that are read: where an image comes from says nothing about what it shows.
_IMAGE_FIELDS = {*ImageRecord.__struct_fields__, "license", "date_captured", "coco_url",
                 "flickr_url"}  # fmt: skip


class _Category(msgspec.Struct, frozen=True, gc=False):
    id: Id
    name: _Text
    supercategory: str | None = None
    isthing: bool | Literal[0, 1] = 1


class Names(msgspec.Struct, gc=False):
    """What a malformed record calls itself; -1 or empty where it does not."""

    id: Any = -1
    image_id: Any = -1
    category_id: Any = -1
    file_name: Any = ""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The categories of all files of a data set.

    Attributes:
        categories: in the order of their ids.
        places: category id -> its place in `categories`.
        stuff: places of those whose annotations are regions and no objects, such as sky.
        blind: places of those that mark where nothing was annotated, of whatever category.
    """

    categories: Categories
    places: Mapping[int, int]
    stuff: frozenset[int]
    blind: frozenset[int]


def parse_document(data: bytes, field: str, path: str) -> Document:
    """The records of a file of annotations.

    Args:
        data: the file.
        field: of the sweep file that names it, for messages.
        path: of the file, for messages.

    Raises:
        DataError: it is no JSON, or has no lists of images, annotations and categories.
    """
    return _parse(data, Document, field, path, "images, annotations and categories")


def parse_captions(data: bytes, field: str, path: str) -> CaptionDocument:
    """The records of a file of captions; as `parse_document`."""
    return _parse(data, CaptionDocument, field, path, "annotations")


def _parse(data: bytes, kind: type, field: str, path: str, lists: str) -> Any:
    # The mark of UTF-8, which some labelling tools write; nothing is copied without one.
    text = data.removeprefix(codecs.BOM_UTF8)
    try:
        try:
            return msgspec.json.decode(text, type=kind)
        except UNREADABLE:
            if b"NaN" not in text and b"Infinity" not in text:
                raise
            text = _with_numbers(text)
            return msgspec.json.decode(text, type=kind)
    except UNREADABLE as error:
        problem = f"is not in COCO format ({error})"
        remedy = f"It has to be JSON with lists of {lists}."
        if not isinstance(error, msgspec.ValidationError):
            problem = f"is no JSON ({_placed(error, text)})"
            remedy = "It has to be JSON, whole and as UTF-8: write it anew or fetch it again."
        problem = f"this file of {len(data):,} bytes {problem}"
        raise DataError(explain(field, path, problem, remedy)) from error


def _with_numbers(text: bytes) -> bytes:
    """The same with null for NaN, and for infinity a number that is too large to be read."""

    def instead(match: re.Match[bytes]) -> bytes:
        found = match[0]
        return _NULL if found == b"NaN" else _TOO_LARGE if found == b"Infinity" else found

    return _NO_NUMBER.sub(instead, text)


def _placed(error: Exception, text: bytes) -> str:
    """What is wrong, with the place in the file as an editor finds it."""
    match = re.fullmatch(r"(.*) \(byte (\d+)\)", str(error))
    if not match:
        return str(error)
    at = int(match[2])
    shown = text[max(at - _SHOWN, 0) : at + _SHOWN].replace(_NULL, b"NaN").decode(errors="replace")
    byte = at - text.count(_NULL, 0, at) * (len(_NULL) - len(b"NaN"))
    line = text.count(b"\n", 0, at) + 1
    return f"{match[1]} at byte {byte:,}, line {line:,}: {shown!r}"


def fault(error: Exception, raw: msgspec.Raw) -> str:
    """What is wrong with a record, for people."""
    return f"{error}{' (NaN counts as null)' if _NULL in bytes(raw) else ''}"


def read_categories(documents: Mapping[str, Document]) -> Vocabulary:
    """Categories of all files.

    A category without supercategory is one of its own.

    Args:
        documents: by the field that names their file, for messages.

    Raises:
        DataError: one is malformed, or an id stands for two: annotations could not be understood.
    """
    found: dict[int, _Category] = {}
    for field, document in documents.items():
        own: set[int] = set()
        for position, raw in enumerate(document.categories):
            where = f"{field}: categories[{position}]"
            try:
                one = msgspec.json.decode(raw, type=_Category)
            except UNREADABLE as error:
                raise _refused(where, _text(raw), f"is malformed ({fault(error, raw)})") from error
            before = found.setdefault(one.id, one)
            if one.id in own or before != one:
                both = f"{_named(before)} and {_named(one)}"
                raise _refused(where, one.id, f"the id stands for two categories, {both}")
            own.add(one.id)
    if not 1 <= len(found) <= _MOST_CATEGORIES:
        raise _refused(
            ", ".join(documents),
            len(found),
            f"there can be 1 to {_MOST_CATEGORIES:,} categories",
        )
    ordered = [found[key] for key in sorted(found)]
    categories = Categories(
        tuple(one.name for one in ordered),
        tuple(one.supercategory or one.name for one in ordered),
    )
    return Vocabulary(
        categories,
        {one.id: place for place, one in enumerate(ordered)},
        frozenset(place for place, one in enumerate(ordered) if not one.isthing),
        frozenset(
            place
            for place, one in enumerate(ordered)
            if " ".join(one.name.lower().split()) in _BLIND_NAMES
        ),
    )


def _named(category: _Category) -> str:
    return f"{category.name!r} ({category.supercategory or 'no supercategory'})"


def _refused(where: str, value: object, problem: str) -> DataError:
    remedy = "Each category needs an id of its own and a name, the same in all files."
    return DataError(explain(where, value, problem, remedy))


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw)[:80].decode(errors="replace")


def refuse_panoptic(document: Document, field: str, path: str) -> None:
    """Refuse a file of panoptic segmentations, whose objects are in PNG files beside it.

    Raises:
        DataError: an annotation has segments.
    """
    for raw in document.annotations[:_LOOKED_AT]:
        if b'"segments_info"' in bytes(raw):
            problem = "this is a panoptic file: its annotations hold `segments_info` and name PNGs"
            remedy = "Name the instances file of the same images (instances_*.json)."
            raise DataError(explain(field, path, problem, remedy))


def read_images(
    records: Sequence[msgspec.Raw], split: Split, where: str, ledger: Ledger, unread: Counter[str]
) -> list[ImageRecord]:
    """The images that a file lists, without those that are malformed.

    Args:
        records: of the file.
        split: of the file.
        where: the field that names the file, for messages.
        ledger: gets those that are malformed.
        unread: gets the fields that nothing here reads and that hold something, counted.

    Raises:
        DataError: two images have one id.
    """
    decode = msgspec.json.Decoder(ImageRecord).decode
    images: list[ImageRecord] = []
    of_id: dict[int, ImageRecord] = {}
    twice: list[str] = []
    malformed: list[Names] = []
    for position, raw in enumerate(records):
        try:
            image = decode(raw)
        except UNREADABLE as error:
            names = names_in(raw)
            ledger.add(split, "image", "malformed", image_id=names.id, file_name=names.file_name,
                       detail=f"images[{position}]: {fault(error, raw)}")  # fmt: skip
            malformed.append(names)
            continue
        before = of_id.setdefault(image.id, image)
        if (before.file_name, before.width, before.height) != (
            image.file_name, image.width, image.height
        ):  # fmt: skip
            twice.append(f"{image.id} is {_framed(before)} and {_framed(image)}")
        images.append(image)
        unread.update(unread_fields(raw, _IMAGE_FIELDS))
    twice += [
        f"{names.id} is {_framed(of_id[names.id])} and {names.file_name!r}, malformed"
        for names in malformed
        if names.id in of_id and names.file_name != of_id[names.id].file_name
    ]
    if twice:
        problem = f"two images have one id, so their annotations cannot be told apart: {twice[0]}"
        remedy = "Give each image an id of its own, in `images` and in its annotations."
        raise DataError(explain(f"{where}: images", f"{len(twice):,} ids", problem, remedy))
    return images


def _framed(image: ImageRecord) -> str:
    return f"{image.file_name!r} ({image.width} x {image.height})"


def merge_records(
    records: Sequence[ImageRecord],
    paths: Sequence[str],
    malformed: Collection[str],
    split: Split,
    where: str,
    ledger: Ledger,
) -> tuple[list[ImageRecord], list[str], dict[int, int]]:
    """One record for each image file; tools that list one for each box give a file several.

    Args:
        records: of images.
        paths: of their files.
        malformed: paths of the files that malformed records name.
        split: of the file of annotations.
        where: the field that names it, for messages.
        ledger: gets each record beyond the first of a file.

    Returns:
        The records and paths that stay, and, for the id of each other record, that of the one that
        stands for it.

    Raises:
        DataError: records of one file disagree on its size, or one of them is malformed: some of
            the annotations of the picture would be lost.
    """
    place_of: dict[str, int] = {}
    kept: list[ImageRecord] = []
    instead: dict[int, int] = {}
    apart: list[str] = []
    for record, path in zip(records, paths, strict=True):
        place = place_of.setdefault(path, len(kept))
        if place == len(kept):
            kept.append(record)
            continue
        first = kept[place]
        if (first.width, first.height) != (record.width, record.height):
            apart.append(f"{_framed(first)} and {_framed(record)}")
            continue
        kept[place] = replace(
            first,
            neg_category_ids=_both(first.neg_category_ids, record.neg_category_ids),
            not_exhaustive_category_ids=_both(
                first.not_exhaustive_category_ids, record.not_exhaustive_category_ids
            ),
        )
        if record.id != first.id:
            instead[record.id] = first.id
        ledger.add(split, "image", "same_file", image_id=record.id, file_name=record.file_name,
                   detail=f"image {first.id} is the same file: their annotations are put "
                          "together")  # fmt: skip
    apart += [f"{path!r}, once malformed" for path in malformed if path in place_of]
    if apart:
        problem = f"records of one image file disagree: {apart[0]}"
        remedy = "List each image file once, with its size, and give its id to all its annotations."
        raise DataError(explain(f"{where}: images", f"{len(apart):,} records", problem, remedy))
    return kept, list(place_of), instead


def _both(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return other if one is None else one + (other or ())


def unread_fields(raw: msgspec.Raw, read: Collection[str]) -> list[str]:
    """The fields of a record that are none of these and hold something else than nothing or no."""
    held = _fields(raw)
    return [name for name in held.keys() - read if bytes(held[name]) not in _NOTHING]


def names_in(raw: msgspec.Raw) -> Names:
    """What a malformed record calls itself, as far as that can be made out."""
    try:
        names = msgspec.json.decode(raw, type=Names)
    except UNREADABLE:
        return Names()
    names.id, names.image_id = _as_id(names.id), _as_id(names.image_id)
    names.category_id = _as_id(names.category_id)
    names.file_name = names.file_name if isinstance(names.file_name, str) else ""
    return names


def _as_id(value: Any) -> int:
    """The id that is meant: 7 also by 7.0 and "7", with which a record is malformed; or -1."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 19:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_id = type(value) is int and -(2**63) <= value < 2**63
    return value if is_id else -1
