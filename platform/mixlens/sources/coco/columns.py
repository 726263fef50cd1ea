"""From sound images and records of annotations to the tables of an index."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32

from mixlens.sources.coco.annotations import (
    Listed,
    Objects,
    Rows,
    joined,
    read_annotations,
    read_captions,
)
from mixlens.sources.coco.attributes import attribute_columns
from mixlens.sources.coco.documents import CaptionDocument, Document, ImageRecord
from mixlens.sources.coco.index import CORNERS, TABLES, write_columns
from mixlens.sources.coco.ledger import SPLITS, Ledger, Split, count, damaged
from mixlens.sources.coco.masks import measure_masks
from mixlens.sources.coco.pictures import Picture, upright_boxes
from mixlens.tasks.photo import QUESTION, find_questions
from mixlens.tasks.photo.photo import Categories

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One file of annotations.

    Attributes:
        splits: that its images may belong to; the first is that of the file.
        document: its records.
        captions: those of the file beside it.
        records: images that it lists inside the root.
        paths: of these.
    """

    splits: tuple[Split, ...]
    document: Document
    captions: CaptionDocument | None
    records: Sequence[ImageRecord]
    paths: Sequence[str]


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
    categories: Categories,
    places: Mapping[int, int],
    ledger: Ledger,
    seconds: dict[str, float],
    progress: Progress,
) -> dict[str, Any]:
    """Write the tables of an index.

    Args:
        folder: that they are written into.
        parts: files of annotations.
        pictures: sound images of each part.
        categories: of all parts.
        places: category id -> its place in `categories`.
        ledger: gets what is left out or repaired.
        seconds: gets the time of each stage.
        progress: as of `build_index`.

    Returns:
        What the record says about them.
    """
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
        objects, captions, examined = _read_records(parts, ordered, rows, places, ledger, progress)
    with timed(seconds, "masks"):
        masks = measure_masks(objects, rows, ledger, lambda *so_far: progress("masks", *so_far))
        objects = objects.take(np.flatnonzero(masks.usable))
    with timed(seconds, "attributes"):
        attributes = attribute_columns(
            objects.row, objects.category, objects.boxes, objects.crowd, masks, rows.frames,
            categories,
        )  # fmt: skip
    sides, boxes = _upright(chosen, rows, objects)
    area = masks.area.astype(np.float32)
    first = np.searchsorted(objects.row, np.arange(len(chosen) + 1))
    with timed(seconds, "questions"):
        progress("questions", 0, len(chosen))
        questions = find_questions(
            first, sides[:, 0], sides[:, 1], objects.category, boxes, area, objects.crowd,
            np.array([len(own) for own in captions]), categories,
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
            "captions": sum(map(len, captions)),
            "questions": len(questions.rows),
        },
        "left_out": count(ledger.rows),
        "damage": _damage(parts, examined, ledger),
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
    places: Mapping[int, int],
    ledger: Ledger,
    progress: Progress,
) -> tuple[Objects, list[list[str]], list[int]]:
    """Objects by image, captions of each image, and how many annotations each part has of them."""
    captions: dict[int, list[str]] = {}
    found: list[Objects] = []
    examined: list[int] = []
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
        listed = Listed(row_of, part.splits[0], rows)
        own, number = read_annotations(part.document.annotations, listed, places, ledger)
        found.append(own)
        examined.append(number)
        if part.captions:
            captions |= read_captions(part.captions.annotations, listed, ledger)
    progress("annotations", len(parts), len(parts))
    return joined(found), [captions.get(row, []) for row in range(len(ordered))], examined


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
