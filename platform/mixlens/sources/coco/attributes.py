"""Attributes of photographs from their annotations, for all images of an index at once."""

import numpy as np
from jaxtyping import Bool, Float, Int16, Int64

from mixlens.sources.coco.masks import Masks
from mixlens.tasks.photo.photo import Categories

NOTHING = "nothing"

NAMES = ("dominant_category", "dominant_supercategory")
NUMBERS = (
    "category_count", "category_diversity", "covered_fraction", "crowd_fraction", "crowding",
    "object_area_mean", "object_count", "occlusion", "size_mean", "size_spread", "size_variance",
    "supercategory_count", "supercategory_diversity",
)  # fmt: skip
"""The attributes of a photograph that are names, and those that are numbers."""


def attribute_columns(
    row: Int64[np.ndarray, " objects"],
    category: Int16[np.ndarray, " objects"],
    boxes: Float[np.ndarray, "objects 4"],
    crowd: Bool[np.ndarray, " objects"],
    masks: Masks,
    frames: Int64[np.ndarray, "images 2"],
    whole: Bool[np.ndarray, " images"],
    categories: Categories,
) -> dict[str, np.ndarray]:
    """One column an attribute; objects are those that are no crowd regions, unless said otherwise.

    Each depends on every object of the image: where annotations are not complete, all of them are
    unknown, NaN for numbers and None for names.

    object_count; category_count, supercategory_count: different names; category_diversity,
    supercategory_diversity: entropy of the objects' categories, nats; size_mean, size_variance
    (population), size_spread (largest minus smallest): of sizes, the square root of mask area over
    image area; crowding: mean distance from the centre of a box to the nearest other one over the
    square root of the image area (1 for fewer than two); occlusion: mean of
    `masks.hidden_shares`, crowds included (an upper bound, as masks do not say what is in front);
    covered_fraction: share of the image in any mask, crowds included; crowd_fraction: share in
    crowd regions; object_area_mean: mean mask area over image area; dominant_category,
    dominant_supercategory: with the largest sum of mask areas, crowds included, the first in the
    alphabet of equals, `nothing` where there is none.

    Args:
        row: of each object's image; in rising order.
        category: of each object, its place in `categories`.
        boxes: x0, y0, x1, y1, pixels.
        crowd: whether each is a crowd region.
        masks: measured, of these objects.
        frames: width and height of each image, pixels.
        whole: whether each image is annotated for all categories.
        categories: of the data set.
    """
    images = len(frames)
    pixels = frames.prod(1).astype(float)
    names, name_of = np.unique(categories.names, return_inverse=True)
    super_names, super_of = np.unique(categories.supercategories, return_inverse=True)
    named, above = name_of[category], super_of[category]

    single = ~crowd
    own, area = row[single], masks.area[single]
    share = area / pixels[own]
    count = np.bincount(own, minlength=images)

    def mean(values: Float[np.ndarray, " single"]) -> Float[np.ndarray, " images"]:
        return np.bincount(own, values, images) / np.maximum(count, 1)

    size = np.sqrt(share)
    size_mean = mean(size)
    category_count, category_diversity = _diversity(own, named[single], images)
    super_count, super_diversity = _diversity(own, above[single], images)
    centres = (boxes[single, :2] + boxes[single, 2:]) / 2
    nearest = mean(_nearest(own, centres)) / np.sqrt(pixels)
    columns: dict[str, np.ndarray] = {
        "object_count": count,
        "category_count": category_count,
        "supercategory_count": super_count,
        "category_diversity": category_diversity,
        "supercategory_diversity": super_diversity,
        "size_mean": size_mean,
        "size_variance": mean((size - size_mean[own]) ** 2),
        "size_spread": _spread(own, size, images),
        "crowding": np.where(count < 2, 1.0, nearest),
        "occlusion": mean(masks.hidden[single]),
        "covered_fraction": masks.covered / pixels,
        "crowd_fraction": masks.crowded / pixels,
        "object_area_mean": mean(share),
        "dominant_category": _dominant(row, named, masks.area, names, images),
        "dominant_supercategory": _dominant(row, above, masks.area, super_names, images),
    }
    if whole.all():
        return columns
    unknown = {True: np.array(None), False: np.array(np.nan)}
    return {
        name: np.where(whole, values, unknown[values.dtype == object])
        for name, values in columns.items()
    }


def _pairs(
    row: Int64[np.ndarray, " objects"],
    kind: Int64[np.ndarray, " objects"],
    weight: Float[np.ndarray, " objects"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, kinds and sums of weights of all pairs of row and kind that occur, in their order."""
    kinds = int(kind.max(initial=0)) + 1
    pair, place = np.unique(row * kinds + kind, return_inverse=True)
    return pair // kinds, pair % kinds, np.bincount(place, weight, len(pair))


def _diversity(
    row: Int64[np.ndarray, " objects"], kind: Int64[np.ndarray, " objects"], images: int
) -> tuple[Int64[np.ndarray, " images"], Float[np.ndarray, " images"]]:
    """Number of kinds in each image, and the entropy of their shares, nats (0 without objects)."""
    rows, _, counts = _pairs(row, kind, np.ones(len(row)))
    total = np.maximum(np.bincount(row, minlength=images), 1)
    within = np.bincount(rows, counts * np.log(counts), images)
    entropy = np.log(total) - within / total
    # As for scenes: logarithms differ in the last bit from one machine to the other.
    return np.bincount(rows, minlength=images), entropy.round(9) + 0.0


def _dominant(
    row: Int64[np.ndarray, " objects"],
    kind: Int64[np.ndarray, " objects"],
    area: Float[np.ndarray, " objects"],
    names: np.ndarray,
    images: int,
) -> np.ndarray:
    """The name with the largest sum of areas in each image; `names` are in alphabetical order."""
    rows, kinds, areas = _pairs(row, kind, area)
    order = np.lexsort((kinds, -areas, rows))
    found, first = np.unique(rows[order], return_index=True)
    dominant = np.full(images, NOTHING, object)
    dominant[found] = names[kinds[order[first]]]
    return dominant


def _spread(
    row: Int64[np.ndarray, " objects"], size: Float[np.ndarray, " objects"], images: int
) -> Float[np.ndarray, " images"]:
    largest, smallest = np.zeros(images), np.full(images, np.inf)
    np.maximum.at(largest, row, size)
    np.minimum.at(smallest, row, size)
    return np.maximum(largest - smallest, 0)


def _nearest(
    row: Int64[np.ndarray, " objects"], centres: Float[np.ndarray, "objects 2"]
) -> Float[np.ndarray, " objects"]:
    """Distance from each centre to the nearest other one of its image, pixels; 0 if alone."""
    nearest = np.full(len(row), np.inf)
    one = np.arange(len(row))
    for step in range(1, len(row)):
        # Each with the one so many places further on, as long as that is in the same image.
        one = one[one + step < len(row)]
        one = one[row[one + step] == row[one]]
        if not len(one):
            break
        distance = np.hypot(*(centres[one + step] - centres[one]).T)
        nearest[one] = np.minimum(nearest[one], distance)
        nearest[one + step] = np.minimum(nearest[one + step], distance)
    return np.where(np.isinf(nearest), 0.0, nearest)
