"""What was left out of a data set, repaired, or no single object, and why: one row a thing."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from mixlens.errors import damaged_file

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")

Outcome = Literal["left_out", "repaired", "assumed", "region"]

REGIONS = ("iscrowd", "ignore", "group_of", "stuff")
"""Why an annotation is a region of its category, and not one object."""

_REPAIRS = {"turned", "clipped", "box_as_mask", "polygon_part", "same_file"}
# Nothing is known to be wrong: how annotations lie does not follow from the image itself.
_ASSUMED = {"turned_unsure", "exif_guess", "size_as_stored"}
# What was left out for these reasons is not damaged: there is only no place for it here.
_SOUND = {"held_out", "unlisted_image", "ignored_region"}
_SHOWN = 5


class LeftOut(NamedTuple):
    """One image, annotation or caption, and what became of it.

    Attributes:
        split: the split that it belongs or would have belonged to.
        what: kind of thing.
        outcome: `left_out`, or kept: `repaired`, `assumed` to be what it seems, or as a `region`
            of many objects.
        reason: such as `missing_file` or `zero_area`.
        image_id: of the file of annotations; -1 if unknown.
        id: of the annotation or caption; -1 if unknown or an image.
        file_name: of the image; empty if unknown.
        detail: for people.
    """

    split: Split
    what: Literal["image", "annotation", "caption"]
    outcome: Outcome
    reason: str
    image_id: int
    id: int
    file_name: str
    detail: str


_SCHEMA = pa.schema(
    [(name, pa.int64() if name.endswith("id") else pa.string()) for name in LeftOut._fields]
)


class Ledger:
    """Rows in the order they were found.

    Attributes:
        rows: so far.
    """

    def __init__(self) -> None:
        self.rows: list[LeftOut] = []

    def add(
        self,
        split: Split,
        what: Literal["image", "annotation", "caption"],
        reason: str,
        *,
        image_id: int = -1,
        id: int = -1,
        file_name: str = "",
        detail: str = "",
    ) -> None:
        """Write a thing down; its outcome follows from the reason."""
        outcome: Outcome = "repaired" if reason in _REPAIRS else "left_out"
        if reason in _ASSUMED:
            outcome = "assumed"
        if reason in REGIONS:
            outcome = "region"
        self.rows.append(LeftOut(split, what, outcome, reason, image_id, id, file_name, detail))

    @classmethod
    def read(cls, file: Path) -> "Ledger":
        """That of an index, from its table."""
        ledger = cls()
        try:
            ledger.rows = [LeftOut(**row) for row in pq.read_table(file).to_pylist()]
        except (OSError, pa.ArrowException, TypeError) as error:
            raise damaged_file(
                file, error, "Delete its folder; the data set is then indexed again."
            ) from None
        return ledger

    def table(self) -> pa.Table:
        """All rows as a table."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(_SCHEMA)
        return pa.Table.from_arrays(
            [pa.array(column, kind.type) for column, kind in zip(columns, _SCHEMA, strict=True)],
            schema=_SCHEMA,
        )


def damaged(rows: Sequence[LeftOut], what: str, splits: Sequence[Split]) -> list[LeftOut]:
    """Images or annotations that were left out because something is wrong with them."""
    return [
        row
        for row in rows
        if row.what == what
        and row.split in splits
        and row.outcome == "left_out"
        and row.reason not in _SOUND
    ]


def count(rows: Sequence[LeftOut]) -> list[dict[str, str | int]]:
    """Rows by split, kind, outcome and reason, in the order of the alphabet."""
    counts = Counter(row[:4] for row in rows)
    return [
        {**dict(zip(LeftOut._fields[:4], key, strict=True)), "count": number}
        for key, number in sorted(counts.items())
    ]


def summary(rows: Sequence[LeftOut]) -> str:
    """Counts by reason, each with the ids of its first few: `missing_file 12 (image 4, 9 ...)`.

    Of the most frequent reason it also tells what is wrong with the first.
    """
    by_reason: dict[str, list[LeftOut]] = {}
    for row in rows:
        by_reason.setdefault(row.reason, []).append(row)
    parts = []
    for reason, group in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0])):
        ids = [str(row.image_id if row.what == "image" else row.id) for row in group[:_SHOWN]]
        more = " ..." if len(group) > _SHOWN else ""
        parts.append(f"{reason} {len(group):,} ({group[0].what} {', '.join(ids)}{more})")
    if parts and (detail := max(by_reason.values(), key=len)[0].detail):
        parts[0] += f", the first: {detail}"
    return "; ".join(parts)
