"""For which categories the annotations of each image are complete."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Int64

from mixlens.sources.coco.annotations import Lost, Objects
from mixlens.sources.coco.documents import ImageRecord
from mixlens.tasks.photo import Coverage


def coverage_of(
    records: Sequence[ImageRecord],
    federated: Bool[np.ndarray, " images"],
    objects: Objects,
    lost: Lost,
    places: Mapping[int, int],
    categories: int,
) -> Coverage:
    """The categories of which an image has no other objects than those that are used.

    Of an image of a federated file these are the ones that it has objects of and is not said to
    have more, and those that it is said not to have; of any other image all. Without those of which
    it lost an annotation; where it lost one of an unknown category, none.

    Args:
        records: of the images of the index.
        federated: whether each image's file is.
        objects: that are used, ordered by image.
        lost: annotations that are not.
        places: category id -> its place.
        categories: how many there are.
    """
    whole = ~federated
    whole[lost.row] = False
    without: dict[int, set[int]] = {}
    for row, place in zip(lost.row.tolist(), lost.category.tolist(), strict=True):
        without.setdefault(row, set()).add(place)
    some = np.flatnonzero(~whole)
    starts, ends = (np.searchsorted(objects.row, some, side) for side in ("left", "right"))
    every = set(range(categories))
    found: list[list[int]] = []
    for row, start, end in zip(some.tolist(), starts.tolist(), ends.tolist(), strict=True):
        gone = without.get(row, set())
        known = every
        if federated[row]:
            record = records[row]
            there = set(objects.category[start:end].tolist())
            absent = {places[one] for one in record.neg_category_ids or () if one in places}
            more = {
                places[one] for one in record.not_exhaustive_category_ids or () if one in places
            }
            # Of one that is there and said to be absent, nobody knows.
            known = (there ^ absent) - more
        complete = set() if -1 in gone else known - gone
        whole[row] = complete == every
        found.append([] if complete == every else sorted(complete))
    image = np.repeat(some, [len(own) for own in found])
    category = np.array([place for own in found for place in own], np.int64)
    return Coverage(categories, whole, image, category)


def coverage_column(coverage: Coverage) -> pa.Array:
    """Of each image the categories that it is complete for, as a list; null: for all of them."""
    images = len(coverage.whole)
    ends = np.searchsorted(coverage.image, np.arange(images), "right")
    offsets: Int64[np.ndarray, " images_and_one"] = np.concatenate(([0], ends))
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()),
        pa.array(coverage.category, pa.int16()),
        mask=pa.array(coverage.whole),
    )
