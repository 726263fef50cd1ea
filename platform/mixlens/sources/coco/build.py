"""Makes the index of a data set, once: from annotation files and image files to columns."""

import hashlib
import json
import posixpath
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from mixlens.errors import DataError, ResourceError, explain, first_line
from mixlens.sources.coco.columns import Part, timed, write_tables
from mixlens.sources.coco.decodable import decodable
from mixlens.sources.coco.documents import (
    merge_records,
    parse_captions,
    parse_document,
    read_categories,
    read_images,
    refuse_panoptic,
)
from mixlens.sources.coco.exif import Direction, as_record, find_direction
from mixlens.sources.coco.index import LEFT_OUT, open_index
from mixlens.sources.coco.inspect import inspect
from mixlens.sources.coco.ledger import SPLITS, Ledger, Split
from mixlens.sources.coco.limits import refuse_damaged, refuse_empty, refuse_regions
from mixlens.sources.coco.names import matched, outside
from mixlens.sources.coco.pictures import Picture, sound_pictures, without_held_out
from mixlens.sources.files import Files, open_files
from mixlens.sources.pixels import MAX_PIXELS
from mixlens.sources.source import RECORD, Progress
from mixlens.spec import CocoFiles, CocoSpec

VERSION = 3  # of the index: another one makes another folder


def build_index(name: str, spec: CocoSpec, indexes: Path, progress: Progress) -> CocoSpec:
    """The data set with its index, which is made if there is none of the same content.

    Several processes may do this at once: one of them comes first, and all use what it made.

    Args:
        name: of the data set, under `data` in the sweep file.
        spec: where its files are.
        indexes: the folder of all indexes.
        progress: is told the stage, how many things are done, and of how many.

    Raises:
        DataError: files are missing, not in COCO format, or contradict themselves, no image can be
            used, no annotation is of a single object, or more than `max_left_out` of the images or
            annotations of a file are damaged.
        ResourceError: the index cannot be written.
    """
    files, ledger, seconds = open_files(spec.root), Ledger(), dict[str, float]()
    with timed(seconds, "read"):
        parts, digests = _read(name, spec, files, ledger, progress)
        where = f"data.{name}"
        vocabulary = read_categories({f"{where}.{part.field}": part.document for part in parts})
    with timed(seconds, "list"):
        sizes = _sizes(name, spec, files, parts)
        parts = [_one_a_file(part, sizes, where, ledger) for part in parts]
    fingerprint = _fingerprint(spec, digests, parts, sizes)
    folder = indexes / f"{name}-{fingerprint}"
    if not (folder / RECORD).is_file():
        with timed(seconds, "inspect"):
            pictures, directions = _pictures(spec, parts, files, sizes, ledger, progress)
        with timed(seconds, "decode held-out"):
            pictures = [
                decodable(own, files, ledger, lambda *so_far: progress("decode held-out", *so_far))
                for own in pictures
            ]
        refuse_empty(name, spec, pictures, ledger, folder)
        with _put_in_place(folder) as unfinished:
            record = write_tables(
                unfinished, parts, pictures, vocabulary, where, ledger, seconds, progress
            )
            exif = {
                part.splits[0]: told
                for part, direction in zip(parts, directions, strict=True)
                if (told := as_record(direction))
            }
            record = {"version": VERSION, "fingerprint": fingerprint, **record, "exif": exif}
            # Nothing is kept of what is refused: to repair a file need not change its size.
            refuse_damaged(name, spec, record, ledger, folder)
            refuse_regions(name, record)
            pq.write_table(ledger.table(), unfinished / LEFT_OUT)
            (unfinished / RECORD).write_text(json.dumps(record, indent=1))
    else:
        record = open_index(folder).record
        refuse_damaged(name, spec, record, Ledger.read(folder / LEFT_OUT), folder)
        refuse_regions(name, record)
    return spec.model_copy(update={"index": str(folder), "fingerprint": fingerprint})


def _read(
    name: str, spec: CocoSpec, files: Files, ledger: Ledger, progress: Progress
) -> tuple[list[Part], list[str | None]]:
    """The files of annotations; and a digest of each, and of its captions if there are any."""
    given: dict[tuple[Split, ...], CocoFiles] = {SPLITS: spec.train}
    if isinstance(spec.held_out, CocoFiles):
        given = {("train",): spec.train, ("held_out",): spec.held_out}
    parts: list[Part] = []
    digests: list[str | None] = []
    for done, (splits, own) in enumerate(given.items()):
        progress("read", done, len(given))
        field = f"data.{name}.{splits[0]}"
        data = files.require(own.annotations, f"{field}.annotations")
        digests.append(hashlib.sha256(data).hexdigest())
        document, captions = parse_document(data, f"{field}.annotations", own.annotations), None
        refuse_panoptic(document, f"{field}.annotations", own.annotations)
        if own.captions is None:
            digests.append(None)
        else:
            data = files.require(own.captions, f"{field}.captions")
            digests.append(hashlib.sha256(data).hexdigest())
            captions = parse_captions(data, f"{field}.captions", own.captions)
        unread: Counter[str] = Counter()
        images = read_images(document.images, splits[0], f"{field}.annotations", ledger, unread)
        malformed = [
            path
            for row in ledger.rows
            if row.split == splits[0] and row.reason == "malformed" and row.file_name
            if (path := files.inside(own.images, row.file_name))
        ]
        records, paths = [], []
        for record in images:
            path = files.inside(own.images, record.file_name)
            if path is None:
                ledger.add(splits[0], "image", "outside_root", image_id=record.id,
                           file_name=record.file_name,
                           detail=outside(record.file_name, files.root))  # fmt: skip
            else:
                records.append(record)
                paths.append(path)
        parts.append(
            Part(
                splits, own.annotations, document, captions, records, paths, malformed, {}, unread
            )
        )  # fmt: skip
    progress("read", len(given), len(given))
    return parts, digests


def _sizes(name: str, spec: CocoSpec, files: Files, parts: Sequence[Part]) -> dict[str, int]:
    """Bytes of the files in all folders that images are in, by path."""
    folders = {spec.train.images: f"data.{name}.train.images"}
    if isinstance(spec.held_out, CocoFiles):
        folders.setdefault(spec.held_out.images, f"data.{name}.held_out.images")
    sizes: dict[str, int] = {}
    for folder, where in folders.items():
        sizes |= files.listing(folder, where)
    absent = {path for part in parts for path in part.paths if path not in sizes}
    # A file name may lead into a folder beside these, such as ../val2017/1.jpg.
    for folder in sorted({posixpath.dirname(path) for path in absent}):
        with suppress(DataError):
            sizes |= files.listing(folder)
    return sizes


def _one_a_file(part: Part, sizes: dict[str, int], where: str, ledger: Ledger) -> Part:
    """The part with one record for each of its image files."""
    paths, field = matched(part.paths, sizes), f"{where}.{part.field}"
    records, paths, instead = merge_records(
        part.records, paths, matched(part.malformed, sizes), part.splits[0], field, ledger
    )
    return replace(part, records=records, paths=paths, instead=instead)


def _fingerprint(
    spec: CocoSpec, digests: Sequence[str | None], parts: Sequence[Part], sizes: dict[str, int]
) -> str:
    """Of all that decides what the index holds; other files in the folder of images do not."""
    held_out = spec.held_out if isinstance(spec.held_out, float) else "files"
    digest = hashlib.sha256(
        json.dumps([VERSION, MAX_PIXELS, held_out, spec.exif, digests]).encode()
    )
    for part in parts:
        for path in part.paths:
            digest.update(f"{path}\0{sizes.get(path, -1)}\n".encode())
    return digest.hexdigest()[:16]


def _pictures(
    spec: CocoSpec,
    parts: Sequence[Part],
    files: Files,
    sizes: dict[str, int],
    ledger: Ledger,
    progress: Progress,
) -> tuple[list[list[Picture]], list[Direction]]:
    """The images of each part that are used, and how their annotations lie if EXIF turns them."""
    paths = [path for part in parts for path in part.paths]
    headers = inspect(files, paths, sizes, lambda done, of: progress("inspect", done, of))
    share = spec.held_out if isinstance(spec.held_out, float) else None
    found: list[list[Picture]] = []
    directions = []
    for part in parts:
        own, headers = headers[: len(part.paths)], headers[len(part.paths) :]
        direction = find_direction(
            part.records, own, part.instead, part.document.annotations, spec.exif
        )
        directions.append(direction)
        found.append(
            sound_pictures(part.records, part.paths, own, part.splits[0], share, direction, ledger)
        )
        if part.splits == ("held_out",):
            listed = list(zip(part.paths, own, strict=True))
            found[0] = without_held_out(found[0], listed, ledger)
    return found, directions


@contextmanager
def _put_in_place(folder: Path) -> Iterator[Path]:
    """A new folder to write in, which takes its place when all is written.

    Where another process was there before, its folder stays.

    Raises:
        ResourceError: it cannot be written.
    """
    unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        with suppress(OSError):  # something is there already
            unfinished.rename(folder)
        if not (folder / RECORD).is_file():
            # Not by this function, which writes elsewhere: somebody took a part of it away.
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
    except OSError as error:
        problem = f"the index of a data set cannot be written ({first_line(error)})"
        remedy = "Make room there, or set runs_dir to another folder."
        raise ResourceError(
            explain("runs_dir", str(folder.parent.parent), problem, remedy)
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
