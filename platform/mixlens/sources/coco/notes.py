"""Sentences on how the files of a data set were understood, for the job's output and the page."""

from collections.abc import Iterator, Mapping
from typing import Any


def notes(record: Mapping[str, Any]) -> Iterator[str]:
    """What a person should know of an index beside its counts; nothing of an ordinary data set.

    Args:
        record: of the index.
    """
    for split, file in record["files"].items():
        name = file["annotations"]
        regions = {why: number for why, number in file["regions"].items() if number}
        if 2 * sum(regions.values()) > file["objects"]:
            said = ", ".join(f"{number:,} by {why}" for why, number in regions.items())
            remedy = (
                "" if set(regions) == {"stuff"}
                else "; if they are single objects, set iscrowd (or ignore) to 0"
            )  # fmt: skip
            yield (
                f"most annotations of {name} are regions of many objects ({said} of "
                f"{file['objects']:,}), which are not counted, named or listed{remedy}"
            )
        if file["federated"]:
            yield (
                f"{name} is federated (images say neg_category_ids or not_exhaustive_category_ids):"
                " an image is asked for absence, numbers and names only of the categories that it "
                "is annotated for completely"
            )
        merged = sum(
            row["count"]
            for row in record["left_out"]
            if row["reason"] == "same_file" and (len(record["files"]) == 1 or row["split"] == split)
        )
        if merged:
            yield f"{merged:,} image records of {name} repeat a file: annotations put together"
        for what, fields in file["unread"].items():
            if fields:
                listed = ", ".join(f"{field} ({number:,})" for field, number in fields.items())
                yield f"fields of {what} in {name} that nothing reads (number): {listed}"
    images, incomplete = record["counts"]["images"], record["counts"]["incomplete"]
    if sum(incomplete.values()):
        said = " and ".join(
            f"{incomplete[split]:,} of {images[split]:,} images {verb}"
            for split, verb in (("train", "to train on"), ("held_out", "held out"))
        )
        yield (
            f"{said} may show more than their annotations say: their attributes are unknown, and "
            "they are asked nothing that this decides"
        )
