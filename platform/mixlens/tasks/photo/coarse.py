"""Questions about whole photographs: what covers most, what is largest, and what is there."""

import numpy as np
from jaxtyping import Bool, Float, Int

from mixlens.tasks.photo.balance import chances
from mixlens.tasks.photo.coverage import Coverage
from mixlens.tasks.photo.objects import AREA_RATIO, MIN_SHARE, Objects
from mixlens.tasks.photo.photo import Categories
from mixlens.tasks.photo.rows import (
    FORMS,
    MAX_PLACE,
    PLAIN,
    ROW_KIND,
    Rows,
    nothing,
    same_name,
    supercategories_of,
)

DOMINANT_RATIO = 1.2
"""The dominant supercategory covers this many times what the next one covers."""

ABSENT_DRAWS = 4
"""Categories drawn to be asked for in vain, for each one of the image that can be asked for."""

Pairs = tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]
"""(image, category)"""


def dominant(objects: Objects) -> Rows:
    """Which supercategory covers most of the image, crowd regions included."""
    place, known = objects.supercategory, objects.supercategory >= 0
    many = 1 + int(place.max(initial=0))
    pairs, pair = np.unique(objects.image[known] * many + place[known], return_inverse=True)
    covered = np.bincount(pair, objects.mask[known], len(pairs))
    image, place = np.divmod(pairs, many)
    order = np.lexsort((covered, image))
    last = np.flatnonzero(np.diff(image[order], append=-1))
    most, before = order[last], order[last - 1]
    second = np.where(image[before] == image[most], covered[before], 0.0)
    clear = (covered[most] >= DOMINANT_RATIO * second) & (covered[most] >= MIN_SHARE)
    clear &= objects.coverage.whole[image[most]]
    # An object without a supercategory could be of any.
    clear &= (np.bincount(objects.image, ~known, objects.images) == 0)[image[most]]
    none = nothing(most[clear])
    return Rows("dominant", image[most[clear]], none, none, place[most[clear]], none)


def largest(objects: Objects) -> Rows:
    """Which object is the largest, where there are two or more and no crowd region."""
    crowded = np.bincount(objects.image, objects.crowd, objects.images) > 0
    possible = np.flatnonzero((objects.many > 1) & ~crowded & objects.coverage.whole)
    last = np.cumsum(objects.many)[possible] - 1
    clear = np.ones(len(possible), bool)
    first_by = []
    for size in (objects.box, objects.mask):
        order = np.lexsort((size, objects.image))
        clear &= size[order[last]] >= AREA_RATIO * size[order[last - 1]]
        first_by.append(order[last])
    i = first_by[0][clear & (first_by[0] == first_by[1])]
    i = i[objects.seen[i] & (objects.category[i] >= 0) & (objects.place[i] <= MAX_PLACE)]
    reference = objects.place[i] * FORMS + PLAIN
    none = nothing(i)
    return Rows("largest", objects.image[i], reference, none, objects.category[i], none)


def one_each(one: Rows, other: Rows) -> tuple[Rows, Rows]:
    """Leave one of two kinds to each image, by chance: either would give the other away."""
    ones, others = (
        rows.where((chances(rows.image) < 0.5) == heads | ~np.isin(rows.image, rival.image))
        for rows, rival, heads in ((one, other, True), (other, one, False))
    )
    return ones, others


def given_away(
    dominant: Rows, largest: Rows, objects: Objects, categories: Categories
) -> tuple[Pairs, Bool[np.ndarray, " objects"]]:
    """What an image with one of these questions is not asked besides.

    It is left out whether or not the question is asked in the end, so that balance does not
    depend on that.

    Returns:
        (image, category) whose presence the answer tells; objects whose size it tells or hints at.
    """
    of_category = supercategories_of(categories)
    first = np.array(same_name(categories))
    members = [
        np.unique(first[(of_category == place) & (first >= 0)]) for place in range(len(of_category))
    ]
    chosen = [members[place] for place in dominant.answer]
    image = np.concatenate(
        (np.repeat(dominant.image, [len(some) for some in chosen]), largest.image)
    )
    category = np.concatenate((*chosen, largest.answer))
    of_image = np.full((2, objects.images), -2)
    of_image[0, dominant.image] = dominant.answer
    of_image[1, largest.image] = largest.a // FORMS
    told = objects.supercategory == of_image[0, objects.image]
    told |= objects.place == of_image[1, objects.image]
    return (image.astype(np.int64), category.astype(np.int64)), told


def presence(
    objects: Objects, categories: Categories, barred: Pairs
) -> tuple[Rows, Int[np.ndarray, " rows"]]:
    """Two categories of which an image shows one; it is asked whether it shows one of them.

    Which of the two is drawn when it is asked, so that yes and no are equally likely in each image.
    Balanced, the first is there and not the second as often as the other way round, so that yes
    and no are equally likely for each category too. What is only there in objects that are too
    small is not asked about.

    Returns:
        The questions, and of each how many categories can be asked about with yes in its image.
    """
    many = len(categories.names)
    named = objects.category >= 0
    code = objects.image * many + objects.category
    barred_code = barred[0] * many + barred[1]
    yes = np.unique(code[named & (objects.seen | objects.crowd)])
    yes = yes[~np.isin(yes, barred_code)]
    number = np.bincount(yes // many, minlength=objects.images)
    # Others are drawn by how often they are there, so that either order occurs about as often.
    often = np.bincount(yes % many, minlength=many)
    pair = np.repeat(yes, ABSENT_DRAWS)
    image, one = np.divmod(pair, many)
    drawn = chances(image, ROW_KIND["presence"], one, np.arange(len(pair)) % ABSENT_DRAWS)
    other = _drawn(image, drawn, often, objects.coverage)
    absent = ~np.isin(image * many + other, np.concatenate((code[named], barred_code)))
    absent &= objects.coverage.complete(image, other)
    image, one, other = np.unique(np.stack((image, one, other))[:, absent], axis=1)
    a, b = np.minimum(one, other), np.maximum(one, other)
    rows = Rows("presence", image, a, b, (one > other).astype(np.int64), a * many + b)
    return rows, number[image]


def _drawn(
    image: Int[np.ndarray, " draws"],
    chance: Float[np.ndarray, " draws"],
    often: Int[np.ndarray, " categories"],
    coverage: Coverage,
) -> Int[np.ndarray, " draws"]:
    """A category for each draw, by how often it is there; -1 where there is none to draw from.

    For an image that is not annotated for every category, one of those that it is complete for:
    these may be a few of a thousand.
    """
    # All categories in a row, and behind them those of the images that are complete for some.
    choices = np.concatenate((np.arange(len(often)), coverage.category))
    reach = np.concatenate(([0], often[choices].cumsum()))
    some = ~coverage.whole[image]
    start = np.where(some, len(often) + np.searchsorted(coverage.image, image), 0)
    end = np.where(some, len(often) + np.searchsorted(coverage.image, image, "right"), len(often))
    place = np.searchsorted(
        reach[1:], reach[start] + chance * (reach[end] - reach[start]), side="right"
    )
    none = reach[start] == reach[end]
    return np.where(none, -1, choices[np.minimum(place, len(choices) - 1)])
