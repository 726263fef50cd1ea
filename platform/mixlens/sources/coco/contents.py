"""What an index says of its data set: to a job's output, to a page and to MLflow."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mixlens.errors import read_record
from mixlens.sources.coco.exif import sentence
from mixlens.sources.coco.index import LEFT_OUT
from mixlens.sources.coco.notes import notes
from mixlens.sources.source import RECORD, Contents
from mixlens.spec import CocoSpec


def contents(name: str, data: CocoSpec) -> Contents | None:
    """See `mixlens.sources.kinds.DataSetKind`."""
    folder = Path(data.index)
    if not data.index or not (folder / RECORD).is_file():
        return None
    record = read_record(folder / RECORD, "counts", "left_out", "exif", "files")
    return Contents(
        images=record["counts"]["images"],
        told=tuple(_told(f"data.{name}", record)),
        notes=tuple(notes(record)),
        left_out=folder / LEFT_OUT,
    )


def _told(field: str, record: Mapping[str, Any]) -> Iterator[str]:
    counts = record["counts"]
    images, number = counts["images"], Counter[str]()
    for row in record["left_out"]:
        number[row["outcome"]] += row["count"]
    yield (
        f"{field}: {images['train']:,} images to train on, {images['held_out']:,} held out; left "
        f"out: {number['left_out']:,} images, annotations and captions; repaired: "
        f"{number['repaired']:,}"
        + (f"; assumed: {number['assumed']:,}" if number["assumed"] else "")
        + f"; regions of many objects: {number['region']:,} of {counts['objects']:,} annotations"
    )
    for split, found in record["exif"].items():
        yield f"{field}.{split}: {sentence(field, found)}"
    for note in notes(record):
        yield f"{field}: {note}"
