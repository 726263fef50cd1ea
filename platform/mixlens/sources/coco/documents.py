"""Files in COCO format: their lists of records, each record read on its own.

A malformed record is left out alone, with its reason; only a file that is no JSON, or lacks a list,
is refused as a whole.
"""

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

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
    """An image as a file lists it; width and height are declared, pixels."""

    id: Id
    file_name: _Text
    width: _Side
    height: _Side


class _Category(msgspec.Struct, frozen=True, gc=False):
    id: Id
    name: _Text
    supercategory: str | None = None


class _Names(msgspec.Struct, gc=False):
    id: Any = -1
    image_id: Any = -1
    file_name: Any = ""


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


def read_categories(documents: Mapping[str, Document]) -> tuple[Categories, dict[int, int]]:
    """Categories of all files in the order of their ids, and the place of each id.

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
    return categories, {one.id: place for place, one in enumerate(ordered)}


def _named(category: _Category) -> str:
    return f"{category.name!r} ({category.supercategory or 'no supercategory'})"


def _refused(where: str, value: object, problem: str) -> DataError:
    remedy = "Each category needs an id of its own and a name, the same in all files."
    return DataError(explain(where, value, problem, remedy))


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw)[:80].decode(errors="replace")


def read_images(records: Sequence[msgspec.Raw], split: Split, ledger: Ledger) -> list[ImageRecord]:
    """The images that a file lists, without those that are malformed or listed before."""
    decode = msgspec.json.Decoder(ImageRecord).decode
    images: list[ImageRecord] = []
    seen: set[int] = set()
    for position, raw in enumerate(records):
        try:
            image = decode(raw)
        except UNREADABLE as error:
            names = names_in(raw)
            ledger.add(split, "image", "malformed", image_id=names.id, file_name=names.file_name,
                       detail=f"images[{position}]: {fault(error, raw)}")  # fmt: skip
            continue
        if image.id in seen:
            ledger.add(split, "image", "duplicate_id", image_id=image.id,
                       file_name=image.file_name,
                       detail=f"images[{position}]: an image before it has this id")  # fmt: skip
            continue
        seen.add(image.id)
        images.append(image)
    return images


def names_in(raw: msgspec.Raw) -> _Names:
    """What a malformed record calls itself, as far as that can be made out."""
    try:
        names = msgspec.json.decode(raw, type=_Names)
    except UNREADABLE:
        return _Names()
    names.id, names.image_id = _as_id(names.id), _as_id(names.image_id)
    names.file_name = names.file_name if isinstance(names.file_name, str) else ""
    return names


def _as_id(value: Any) -> int:
    is_id = type(value) is int and -(2**63) <= value < 2**63
    return value if is_id else -1
