"""When so much of a data set is damaged that it cannot be used."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from mixlens.errors import DataError, explain
from mixlens.sources.coco.index import LEFT_OUT
from mixlens.sources.coco.ledger import SPLITS, Ledger, Split, damaged, summary
from mixlens.sources.coco.pictures import Picture
from mixlens.spec import CocoFiles, CocoSpec


def refuse_empty(
    name: str,
    spec: CocoSpec,
    pictures: Sequence[Sequence[Picture]],
    ledger: Ledger,
    folder: Path,
) -> None:
    """Refuse a data set without images to train on, or to hold out.

    Args:
        name: of the data set.
        spec: of the data set.
        pictures: sound images of each file.
        ledger: of what was left out; written beside `folder`.
        folder: of the index, which is not made.

    Raises:
        DataError: a split has no image.
    """
    filled = {picture.split for own in pictures for picture in own}
    for split in SPLITS:
        if split not in filled:
            rows = [row for row in ledger.rows if row.what == "image" and row.outcome == "left_out"]
            field, file = f"data.{name}.{split}", _files(spec, split).annotations
            if rows:
                problem = f"no image of this split can be used (left out: {summary(rows)})"
                remedy = f"All that was left out is in {_written(ledger, folder)}."
                raise DataError(explain(field, file, problem, remedy))
            if isinstance(spec.held_out, float) and any(pictures):
                images = sum(map(len, pictures))
                problem = f"of the {images:,} images of {file}, none falls into this split"
                field = f"data.{name}.held_out"
                raise DataError(explain(field, spec.held_out, problem, "Give another share."))
            raise DataError(explain(field, file, "it lists no image", "Name a file that does."))


def refuse_damaged(
    name: str, spec: CocoSpec, record: Mapping[str, Any], ledger: Ledger, folder: Path
) -> None:
    """Refuse a data set of which more than `max_left_out` is damaged, or all captions are no use.

    Args:
        name: of the data set.
        spec: of the data set.
        record: of its index.
        ledger: of what was left out; written beside `folder` if the data set is refused.
        folder: of its index.

    Raises:
        DataError: more of the images, or of the annotations of images that are used, of one file;
            or a file of captions without any of an image that is used.
    """
    for split, kept in record["captions"].items():
        if kept == 0:
            rows = [row for row in ledger.rows if row.what == "caption" and row.split == split]
            why = f"left out: {summary(rows)}" if rows else "it has none"
            problem = f"no caption of an image that is used ({why})"
            remedy = "Name the captions of the same images, or leave it out."
            where = f"data.{name}.{split}.captions"
            raise DataError(explain(where, _files(spec, split).captions, problem, remedy))
    damage = record["damage"]
    for split, kinds in damage.items():
        for plural, (bad, of) in kinds.items():
            if bad > spec.max_left_out * of:
                splits: tuple[Split, ...] = SPLITS if len(damage) == 1 else (split,)
                found = damaged(ledger.rows, plural.removesuffix("s"), splits)
                named = _files(spec, split).annotations
                problem = f"{bad:,} of {of:,} {plural} of {named} cannot be used: {summary(found)}"
                table = _written(ledger, folder)
                remedy = f"Repair them or allow more. All of them are in {table}."
                where = f"data.{name}.max_left_out"
                raise DataError(explain(where, spec.max_left_out, problem, remedy))


def refuse_regions(name: str, record: Mapping[str, Any]) -> None:
    """Refuse a file in which no annotation is a single object: nothing could be counted or named.

    Args:
        name: of the data set.
        record: of its index.

    Raises:
        DataError: all objects are regions, and not because their categories are stuff.
    """
    for split, file in record["files"].items():
        regions = {why: number for why, number in file["regions"].items() if number}
        if file["objects"] and sum(regions.values()) == file["objects"] != regions.get("stuff"):
            said = " and ".join(f"{number:,} by {why}" for why, number in regions.items())
            problem = (
                f"all {file['objects']:,} annotations are regions of many objects ({said}), as "
                "some tools write every mask: nothing could be counted, named or compared"
            )
            remedy = "If they are single objects, set iscrowd (or ignore) to 0 in the file."
            where = f"data.{name}.{split}.annotations"
            raise DataError(explain(where, file["annotations"], problem, remedy))


def _files(spec: CocoSpec, split: Split) -> CocoFiles:
    """The files that a split is taken from."""
    if split == "held_out" and isinstance(spec.held_out, CocoFiles):
        return spec.held_out
    return spec.train


def _written(ledger: Ledger, folder: Path) -> Path:
    """The table of all that was left out, beside where the index is or would have been."""
    table = folder.with_name(f"{folder.name}-{LEFT_OUT}")
    table.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(ledger.table(), table)
    return table
