"""From sound images and records of annotations to the tables of an index."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int8, Int32

from mixlens.sources.coco.annotations import (
    Found,
    Listed,
    Lost,
    Objects,
    Rows,
    joined,
    joined_lost,
    read_annotations,
    read_captions,
)
from mixlens.sources.coco.attributes import attribute_columns
from mixlens.sources.coco.completeness import coverage_column, coverage_of
from mixlens.sources.coco.documents import CaptionDocument, Document, ImageRecord, Vocabulary
from mixlens.sources.coco.index import CORNERS, TABLES, write_columns
from mixlens.sources.coco.ledger import REGIONS, SPLITS, Ledger, Split, count, damaged
from mixlens.sources.coco.masks import measure_masks
from mixlens.sources.coco.pictures import Picture, upright_boxes
from mixlens.sources.source import Progress
from mixlens.tasks.photo import QUESTION, find_questions


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One file of annotations.

    Attributes:
        splits: that its images may belong to; the first is that of the file.
        path: of the file.
        document: its records.
        captions: those of the file beside it.
        records: images that it lists inside the root; in the end once each file.
        paths: of these.
        malformed: paths of the files that malformed records name.
        instead: id of another record of one of these files -> id of the record that stands for it.
        unread: fields of images that nothing reads and that hold something, counted.
    """

    splits: tuple[Split, ...]
    path: str
    document: Document
    captions: CaptionDocument | None
    records: Sequence[ImageRecord]
    paths: Sequence[str]
    malformed: Sequence[str]
    instead: Mapping[int, int]
    unread: Counter[str]

    @property
    def field(self) -> str:
        """The field that names its file, below the data set's."""
        return f"{self.splits[0]}.annotations"

    @property
    def is_federated(self) -> bool:
        """Whether it says of its images which categories were looked for."""
        return any(record.is_federated for record in self.records)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Write down how long a stage takes."""
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 3)


def write_tables(
    folder: Path,
    parts: Sequence[Part],
    pictures: Sequence[Sequence[Picture]],
    vocabulary: Vocabulary,
    where: str,
    ledger: Ledger,
    seconds: dict[str, float],
    progress: Progress,
) -> dict[str, Any]:
    """Write the tables of an index.

    Args:
        folder: that they are written into.
        parts: files of annotations.
        pictures: sound images of each part.
        vocabulary: of all parts.
        where: the field of the data set, for messages.
        ledger: gets what is left out or repaired.
        seconds: gets the time of each stage.
        progress: as of `build_index`.

    Returns:
        What the record says about them.

    Raises:
        DataError: annotations do not say of which image they are.
    """
    categories = vocabulary.categories
    # The held-out images of a part may stand between the others.
    ordered = [
        (part, picture)
        for split in SPLITS
        for part, own in zip(parts, pictures, strict=True)
        for picture in own
        if picture.split == split
    ]
    chosen = [picture for _, picture in ordered]
    rows = Rows(
        [picture.split for picture in chosen],
        [picture.record.id for picture in chosen],
        np.array([picture.sides for picture in chosen]),
    )
    with timed(seconds, "annotations"):
        found, captions = _read_records(parts, ordered, rows, vocabulary, where, ledger, progress)
        objects = joined([part.objects for part in found])
    with timed(seconds, "masks"):
        masks = measure_masks(objects, rows, ledger, lambda *so_far: progress("masks", *so_far))
        maskless = ~masks.usable
        lost = joined_lost(
            [
                *(part.lost for part in found),
                Lost(objects.row[maskless], objects.category[maskless]),
            ]
        )
        objects = objects.take(np.flatnonzero(masks.usable))
        _tell_regions(objects, rows, ledger)
    owner = np.array([parts.index(part) for part, _ in ordered])
    coverage = coverage_of(
        [picture.record for picture in chosen],
        np.array([part.is_federated for part in parts])[owner],
        objects, lost, vocabulary.places, len(categories.names),
    )  # fmt: skip
    with timed(seconds, "attributes"):
        attributes = attribute_columns(
            objects.row, objects.category, objects.boxes, objects.crowd, masks, rows.frames,
            coverage.whole, categories,
        )  # fmt: skip
    sides, boxes = _upright(chosen, rows, objects)
    area = masks.area.astype(np.float32)
    first = np.searchsorted(objects.row, np.arange(len(chosen) + 1))
    with timed(seconds, "questions"):
        progress("questions", 0, len(chosen))
        questions = find_questions(
            first, sides[:, 0], sides[:, 1], objects.category, boxes, area, objects.crowd,
            np.array([len(own) for own in captions]), coverage, categories,
        )  # fmt: skip
        asked = np.searchsorted(questions.rows["image"], np.arange(len(chosen) + 1))
        progress("questions", len(chosen), len(chosen))
    images = {
        "image_id": np.array(rows.image_id, np.int64),
        "file_name": [one.record.file_name for one in chosen],
        "path": [one.path for one in chosen],
        "split": np.array([SPLITS.index(split) for split in rows.split], np.int8),
        "width": sides[:, 0],
        "height": sides[:, 1],
        "first_object": first[:-1],
        "objects": np.diff(first).astype(np.int32),
        "first_question": asked[:-1],
        "questions": np.diff(asked).astype(np.int32),
        "captions": pa.array(captions, pa.list_(pa.string())),
        "carries": questions.carries,
        "complete": coverage_column(coverage),
    }
    corners = dict(zip(CORNERS, boxes.T, strict=True))
    annotations = {
        "category": objects.category, **corners, "area": area, "crowd": objects.crowd
    }  # fmt: skip
    columns = {name: questions.rows[name] for name in QUESTION.names or ()}
    with timed(seconds, "write"):
        tables = (images, attributes, annotations, columns)
        for name, table in zip(TABLES, tables, strict=True):
            write_columns(folder / f"{name}.arrow", table)
    return {
        "categories": categories.names,
        "supercategories": categories.supercategories,
        "possible": questions.possible.tolist(),
        "counts": {
            "images": {split: rows.split.count(split) for split in SPLITS},
            "objects": len(objects),
            "regions": int(objects.crowd.sum()),
            "incomplete": {
                split: int((~coverage.whole[np.array(rows.split) == split]).sum())
                for split in SPLITS
            },
            "captions": sum(map(len, captions)),
            "questions": len(questions.rows),
        },
        "left_out": count(ledger.rows),
        "damage": _damage(parts, [part.examined for part in found], ledger),
        "files": {
            part.splits[0]: _file_record(part, own, objects.region[owner[objects.row] == place])
            for place, (part, own) in enumerate(zip(parts, found, strict=True))
        },
        "captions": {
            part.splits[0]: sum(
                len(said)
                for (owner, _), said in zip(ordered, captions, strict=True)
                if owner is part
            )
            for part in parts
            if part.captions
        },
        "seconds": seconds,
    }


def _read_records(
    parts: Sequence[Part],
    ordered: Sequence[tuple[Part, Picture]],
    rows: Rows,
    vocabulary: Vocabulary,
    where: str,
    ledger: Ledger,
    progress: Progress,
) -> tuple[list[Found], list[list[str]]]:
    """What the annotations of each part hold, and the captions of each image."""
    captions: dict[int, list[str]] = {}
    found: list[Found] = []
    for done, part in enumerate(parts):
        progress("annotations", done, len(parts))
        row_of = {
            row.image_id: -1
            for row in ledger.rows
            if row.what == "image" and row.split in part.splits and row.image_id != -1
        }
        row_of |= {
            picture.record.id: row for row, (owner, picture) in enumerate(ordered) if owner is part
        }
        row_of |= {other: row_of.get(first, -1) for other, first in part.instead.items()}
        listed = Listed(row_of, part.splits[0], rows)
        field = f"{where}.{part.field}"
        found.append(read_annotations(part.document.annotations, listed, vocabulary, field, ledger))
        if part.captions:
            captions |= read_captions(part.captions.annotations, listed, ledger)
    progress("annotations", len(parts), len(parts))
    return found, [captions.get(row, []) for row in range(len(ordered))]


def _tell_regions(objects: Objects, rows: Rows, ledger: Ledger) -> None:
    """A row of the ledger for each annotation that is used as a region."""
    for place in np.flatnonzero(objects.crowd).tolist():
        row = int(objects.row[place])
        ledger.add(rows.split[row], "annotation", REGIONS[objects.region[place] - 1],
                   image_id=rows.image_id[row], id=int(objects.id[place]),
                   detail="a region of its category: not counted, named or listed")  # fmt: skip


def _file_record(part: Part, found: Found, regions: Int8[np.ndarray, " objects"]) -> dict[str, Any]:
    """What the record says about a file of annotations; `regions` are of its objects."""
    numbers = np.bincount(regions, minlength=len(REGIONS) + 1).tolist()
    return {
        "annotations": part.path,
        "federated": part.is_federated,
        "objects": len(regions),
        "regions": dict(zip(REGIONS, numbers[1:], strict=True)),
        "unread": {
            "images": dict(part.unread.most_common()),
            "annotations": dict(found.unread.most_common()),
        },
    }


def _upright(
    pictures: Sequence[Picture], rows: Rows, objects: Objects
) -> tuple[Int32[np.ndarray, "images 2"], Float32[np.ndarray, "objects 4"]]:
    """Width and height of the upright pictures, and the boxes in them, pixels."""
    way = np.array([one.header.orientation if one.frame == "stored" else 1 for one in pictures])
    sides = np.array([(one.header.width, one.header.height) for one in pictures])
    boxes = upright_boxes(objects.boxes, rows.frames[objects.row], way[objects.row])
    return sides.astype(np.int32), boxes.astype(np.float32)


def _damage(
    parts: Sequence[Part], examined: Sequence[int], ledger: Ledger
) -> dict[str, dict[str, list[int]]]:
    """Of each part, how many of its images and annotations are damaged, and of how many."""
    return {
        part.splits[0]: {
            "images": [len(damaged(ledger.rows, "image", part.splits)), len(part.document.images)],
            "annotations": [len(damaged(ledger.rows, "annotation", part.splits)), number],
        }
        for part, number in zip(parts, examined, strict=True)
    }
