"""The objects of all photographs as columns, and the names that fit one of them alone."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mixlens.tasks.photo.coverage import Coverage
from mixlens.tasks.photo.photo import Categories
from mixlens.tasks.photo.rows import (
    FORMS,
    LARGEST,
    LEFTMOST,
    PLAIN,
    RIGHTMOST,
    same_name,
    supercategories_of,
)

MIN_SHARE = 0.001
"""Objects with a smaller mask, as a share of the image, are not asked about."""

DIRECTION_MARGIN = 0.08
"""Centres lie left of, right of, above or below each other from this share of width or height."""

AREA_RATIO = 1.44
"""Larger, smaller and largest need this ratio of areas, of boxes and of masks."""


@dataclass(frozen=True, slots=True)
class Objects:
    """Columns over all objects; lengths are shares of the width or height, areas of the image.

    Attributes:
        images: number of images.
        image: row of each object's image.
        place: of each object in its image.
        many: objects in each image.
        category: the first category of the same name; -1 without a name.
        supercategory: place in `supercategory_names`; -1 without one.
        low: x0, y0.
        high: x1, y1.
        box: area of the box.
        mask: area of the mask.
        crowd: regions of many objects.
        seen: single objects that are large enough to be asked about.
        group: number of its category in its image, from 0; objects without a name have one too.
        group_size: single objects of each group.
        group_crowd: whether a group has a crowd region.
        forms: by which names each object alone is meant.
        coverage: of names, by their first categories.
    """

    images: int
    image: Int[np.ndarray, " objects"]
    place: Int[np.ndarray, " objects"]
    many: Int[np.ndarray, " images"]
    category: Int[np.ndarray, " objects"]
    supercategory: Int[np.ndarray, " objects"]
    low: Float[np.ndarray, "objects 2"]
    high: Float[np.ndarray, "objects 2"]
    box: Float[np.ndarray, " objects"]
    mask: Float[np.ndarray, " objects"]
    crowd: Bool[np.ndarray, " objects"]
    seen: Bool[np.ndarray, " objects"]
    group: Int[np.ndarray, " objects"]
    group_size: Int[np.ndarray, " groups"]
    group_crowd: Bool[np.ndarray, " groups"]
    forms: Bool[np.ndarray, "objects forms"]
    coverage: Coverage

    @property
    def centre(self) -> Float[np.ndarray, "objects 2"]:
        """Of the boxes."""
        return (self.low + self.high) / 2


def describe_objects(
    first: Int[np.ndarray, " images_and_one"],
    width: Int[np.ndarray, " images"],
    height: Int[np.ndarray, " images"],
    category: Int[np.ndarray, " objects"],
    boxes: Float[np.ndarray, "objects 4"],
    area: Float[np.ndarray, " objects"],
    crowd: Bool[np.ndarray, " objects"],
    coverage: Coverage,
    categories: Categories,
) -> Objects:
    """The columns, from those of `find_questions`."""
    many = np.diff(first)
    image = np.repeat(np.arange(len(many)), many)
    sides = np.stack((width, height), 1).astype(np.float64)[image]
    low, high = boxes[:, :2] / sides, boxes[:, 2:] / sides
    box, mask = np.prod(high - low, 1), area / np.prod(sides, 1)
    name = np.array(same_name(categories), np.int64)[category]
    coverage = coverage.of_names(same_name(categories))
    keys, group = np.unique(image * (len(categories.names) + 1) + name + 1, return_inverse=True)
    group_size = np.bincount(group, ~crowd, len(keys)).astype(np.int64)
    group_crowd = np.bincount(group, crowd, len(keys)) > 0

    single = ~crowd & ~group_crowd[group] & coverage.complete(image, name)
    forms = np.zeros((len(image), FORMS), bool)
    forms[:, PLAIN] = single & (group_size[group] == 1)
    several = np.flatnonzero(single & (group_size[group] > 1))
    centre = (low[several, 0] + high[several, 0]) / 2
    several_group = group[several]
    forms[several[_ahead(several_group, -centre, DIRECTION_MARGIN)], LEFTMOST] = True
    forms[several[_ahead(several_group, centre, DIRECTION_MARGIN)], RIGHTMOST] = True
    ratio = np.log(AREA_RATIO)
    by_box, by_mask = (np.log(np.maximum(size[several], 1e-12)) for size in (box, mask))
    forms[several[_ahead(several_group, by_box, ratio)], LARGEST] = True
    largest_mask = np.zeros(len(image), bool)
    largest_mask[several[_ahead(several_group, by_mask, ratio)]] = True
    forms[:, LARGEST] &= largest_mask
    return Objects(
        images=len(many),
        image=image,
        place=np.arange(len(image)) - np.repeat(first[:-1], many),
        many=many,
        category=name,
        supercategory=supercategories_of(categories)[category],
        low=low,
        high=high,
        box=box,
        mask=mask,
        crowd=crowd,
        seen=~crowd & (mask >= MIN_SHARE),
        group=group,
        group_size=group_size,
        group_crowd=group_crowd,
        forms=forms,
        coverage=coverage,
    )


def _ahead(
    group: Int[np.ndarray, " some"], value: Float[np.ndarray, " some"], margin: float
) -> Int[np.ndarray, " found"]:
    """Of each group of two or more the member with the greatest value, if it is clearly so."""
    order = np.lexsort((value, group))
    last = np.flatnonzero(np.diff(group[order], append=-1))
    lead = value[order[last]] - value[order[last - 1]]
    return order[last[lead >= margin]]
