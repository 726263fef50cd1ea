"""Questions about single objects and pairs of them that have exactly one right answer."""

import numpy as np
from jaxtyping import Bool, Int

from mixlens.tasks.photo.balance import chances
from mixlens.tasks.photo.objects import AREA_RATIO, DIRECTION_MARGIN, Objects
from mixlens.tasks.photo.photo import Categories
from mixlens.tasks.photo.rows import (
    FORMS,
    LARGEST,
    LEFTMOST,
    MAX_PLACE,
    PLAIN,
    RIGHTMOST,
    ROW_KIND,
    SIZE_CLASSES,
    Rows,
    category_names,
    nothing,
)
from mixlens.tasks.scene_graph import MAX_LISTED
from mixlens.tasks.vocabulary import GRID

SIZE_RANGES = ((0.0, 0.01), (0.02, 0.08), (0.16, 1.01))
"""Mask area of small, medium and large objects, shares of the image; in between is not asked."""

MAX_OVERLAP = 0.5
"""One is left of another if they share at most this much of the narrower one's width; so above."""

MAX_COUNT = 10
"""Larger numbers are not asked for."""

MAX_COMPARED = 16
"""Objects of an image that are compared, the largest ones: pairs are many where objects are."""

MIN_BOX_SIDE = 0.04
"""Narrower boxes, as a share of the width or height, are too coarse in whole percent."""

MAX_BOX = 0.5
"""Larger boxes, as a share of the image, would match one drawn around the whole image."""

OWN_KEY = 8
"""Cells are balanced within a name from this many times the number of cells on; else within all."""

_IN_SIZE = (PLAIN, LEFTMOST, RIGHTMOST)
_IN_PLACE = (PLAIN, LARGEST)
_ALL = (PLAIN, LEFTMOST, RIGHTMOST, LARGEST)


def size_class(objects: Objects, told: Bool[np.ndarray, " objects"]) -> Rows:
    """Whether a named object is small, medium or large."""
    i, form, code = _named(objects, _IN_SIZE, "size_class", ~told)
    share = objects.mask[i]
    answer = nothing(i)
    for place, (low, high) in zip(range(len(SIZE_CLASSES)), SIZE_RANGES, strict=True):
        answer[(share >= low) & (share <= high)] = place
    reference = objects.place[i] * FORMS + form
    rows = Rows("size_class", objects.image[i], reference, nothing(i), answer, code)
    return rows.where(answer >= 0)


def direction(objects: Objects, kind: str) -> Rows:
    """Which of two named objects lies further left (`horizontal`) or further up (`vertical`)."""
    axis = int(kind == "vertical")
    forms = _ALL if axis else _IN_PLACE
    (i, j), references, key = _pairs(objects, forms, kind, np.ones(len(objects.image), bool))
    low, high = objects.low[:, axis], objects.high[:, axis]
    gap = objects.centre[j, axis] - objects.centre[i, axis]
    shared = np.minimum(high[i], high[j]) - np.maximum(low[i], low[j])
    narrower = np.minimum(high[i] - low[i], high[j] - low[j])
    clear = (np.abs(gap) >= DIRECTION_MARGIN) & (shared <= MAX_OVERLAP * narrower)
    answer = (gap < 0).astype(np.int64)
    one, other = references
    return Rows(kind, objects.image[i], one, other, answer, key).where(clear)


def size(objects: Objects, told: Bool[np.ndarray, " objects"]) -> Rows:
    """Which of two named objects is smaller."""
    (i, j), references, key = _pairs(objects, _IN_SIZE, "size", ~told)
    smaller = np.ones((2, len(i)), bool)
    for area in (objects.box, objects.mask):
        smaller[0] &= area[j] >= AREA_RATIO * area[i]
        smaller[1] &= area[i] >= AREA_RATIO * area[j]
    one, other = references
    rows = Rows("size", objects.image[i], one, other, smaller[1].astype(np.int64), key)
    return rows.where(smaller[0] | smaller[1])


def count_category(objects: Objects) -> Rows:
    """How many objects of a category there are, where all are known, seen and told apart."""
    groups, first = np.unique(objects.group, return_index=True)
    hidden = np.bincount(objects.group, ~objects.seen, len(groups)) > 0
    number = objects.group_size[groups]
    fine = ~hidden & (number >= 1) & (number <= MAX_COUNT)
    fine &= objects.coverage.complete(objects.image[first], objects.category[first])
    i, number = first[fine], number[fine]
    category = objects.category[i]
    return Rows("count_category", objects.image[i], category, nothing(i), number, category)


def locate(objects: Objects, kind: str) -> Rows:
    """Where a named object is: its cell (`locate`) or its box (`box`).

    Both are balanced by the cell, since boxes have too many values.
    """
    i, form, key = _named(objects, _IN_PLACE, kind, np.ones(len(objects.image), bool))
    if kind == "box":
        sides = objects.high[i] - objects.low[i]
        fine = (sides.min(1) >= MIN_BOX_SIDE) & (objects.box[i] <= MAX_BOX)
        i, form, key = i[fine], form[fine], key[fine]
    column, row = np.minimum((objects.centre[i] * GRID).astype(np.int64), GRID - 1).T
    codes, code, many = np.unique(key, return_inverse=True, return_counts=True)
    key = np.where(many[code] >= OWN_KEY * GRID * GRID, codes[code], -1) if len(i) else key
    reference = objects.place[i] * FORMS + form
    return Rows(kind, objects.image[i], reference, nothing(i), row * GRID + column, key)


def category_graph(objects: Objects, categories: Categories) -> Rows:
    """Images whose objects can all be listed with their names."""
    names = category_names(categories)
    listable = np.array([bool(name) and not {";", "|"} & set(name) for name in names])
    fine = objects.seen & (objects.category >= 0) & listable[objects.category]
    others = np.bincount(objects.image, ~fine, objects.images) > 0
    listed = (objects.many > 1) & (objects.many <= MAX_LISTED) & objects.coverage.whole
    image = np.flatnonzero(listed & ~others)
    none = nothing(image)
    return Rows("category_graph", image, none, none, none, none)


def _named(
    objects: Objects, allowed: tuple[int, ...], kind: str, fine: Bool[np.ndarray, " objects"]
) -> tuple[Int[np.ndarray, " named"], Int[np.ndarray, " named"], Int[np.ndarray, " named"]]:
    """Objects that one of the allowed forms names; the form, by chance; a code of the name."""
    fits = objects.forms[:, allowed]
    i = np.flatnonzero(
        fits.any(1) & fine & objects.seen & (objects.category >= 0) & (objects.place <= MAX_PLACE)
    )
    chance = chances(objects.image[i], ROW_KIND[kind], objects.place[i])
    order = fits[i].cumsum(1)
    number = (chance * order[:, -1]).astype(np.int64) + 1
    form = np.array(allowed)[(fits[i] & (order == number[:, None])).argmax(1)]
    return i, form, objects.category[i] * FORMS + form


def _pairs(
    objects: Objects, allowed: tuple[int, ...], kind: str, fine: Bool[np.ndarray, " objects"]
) -> tuple[Int[np.ndarray, "2 pairs"], Int[np.ndarray, "2 pairs"], Int[np.ndarray, " pairs"]]:
    """Two named objects of one image, in the order of their names: objects, references, key."""
    i, form, code = _named(objects, allowed, kind, fine)
    image = objects.image[i]
    order = np.lexsort((-objects.mask[i], image))
    i, form, code, image = i[order], form[order], code[order], image[order]
    starts = np.searchsorted(image, image)
    few = np.arange(len(i)) - starts < MAX_COMPARED
    i, form, code, image = i[few], form[few], code[few], image[few]
    found = [np.zeros((2, 0), np.int64)]
    for step in range(1, min(MAX_COMPARED, len(i))):
        first = np.flatnonzero(image[step:] == image[:-step])
        if not len(first):
            break
        found.append(np.stack((first, first + step)))
    pairs = np.concatenate(found, 1)
    swap = code[pairs[0]] > code[pairs[1]]
    pairs = np.where(swap, pairs[::-1], pairs)
    references = (objects.place[i] * FORMS + form)[pairs]
    codes = int(objects.category.max(initial=0) + 1) * FORMS
    return i[pairs], references, code[pairs[0]] * codes + code[pairs[1]]
