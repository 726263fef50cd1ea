"""All questions that can be asked about the photographs of a data set."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int16, UInt16

from mixlens.tasks.photo import candidates
from mixlens.tasks.photo.balance import answers_of, balanced, chances
from mixlens.tasks.photo.candidates import Rows
from mixlens.tasks.photo.objects import Objects, describe_objects
from mixlens.tasks.photo.photo import Categories
from mixlens.tasks.photo.presence import fit_presence
from mixlens.tasks.photo.rows import (
    GROUP_OF,
    GROUPS,
    QUESTION,
    ROW_KIND,
    same_name,
    supercategory_names,
)


@dataclass(frozen=True, slots=True)
class Questions:
    """What can be asked about each photograph of a data set.

    Attributes:
        rows: of type `QUESTION`, ordered by image.
        presence: by how much each category is drawn for "is there any ...?" where the answer is
            yes, and where it is no.
        carries: bit g is set if at least one turn of `GROUPS[g]` can be asked of the image.
    """

    rows: np.ndarray
    presence: Float[np.ndarray, "2 categories"]
    carries: UInt16[np.ndarray, " images"]


def find_questions(
    first: Int[np.ndarray, " images_and_one"],
    width: Int[np.ndarray, " images"],
    height: Int[np.ndarray, " images"],
    category: Int16[np.ndarray, " objects"],
    boxes: Float[np.ndarray, "objects 4"],
    area: Float[np.ndarray, " objects"],
    crowd: Bool[np.ndarray, " objects"],
    captions: Int[np.ndarray, " images"],
    categories: Categories,
) -> Questions:
    """Find every question with exactly one right answer, and accept so many that they balance.

    Over all images together, what the text of a question says does not tell its answer: see
    `balance.balanced` and `presence.fit_presence`. Which ones are accepted depends on nothing but
    the arguments.

    Args:
        first: of each image its first object; then the number of objects.
        width: of each upright image, pixels.
        height: pixels.
        category: of each object, in the order of images: its place in `categories`.
        boxes: x0, y0, x1, y1, pixels, inside the image.
        area: of the mask, pixels.
        crowd: whether it is a region of many objects.
        captions: number of captions of each image.
        categories: of the data set.
    """
    objects = describe_objects(first, width, height, category, boxes, area, crowd, categories)
    coarse = _one_each(candidates.dominant(objects, categories), candidates.largest(objects))
    accepted = [_accept(rows, objects) for rows in coarse]
    barred, told = _given_away(*accepted, objects, categories)
    accepted += [
        _accept(rows, objects)
        for rows in (
            candidates.size_class(objects, told),
            candidates.direction(objects, "horizontal"),
            candidates.direction(objects, "vertical"),
            candidates.size(objects, told),
            candidates.count_category(objects),
            candidates.locate(objects, "locate"),
            candidates.locate(objects, "box"),
        )
    ]
    accepted.append(candidates.category_graph(objects, categories))

    there = objects.category >= 0
    pairs, index = np.unique(
        objects.image[there] * len(categories.names) + objects.category[there],
        return_inverse=True,
    )
    to_be_seen = (objects.seen | objects.crowd)[there]
    visible = np.bincount(index, to_be_seen, len(pairs)) > 0
    names = np.array(same_name(categories), np.int64)
    pair_image, pair_category = np.divmod(pairs, len(categories.names))
    presence = fit_presence(
        objects.images,
        len(categories.names),
        (pair_image, pair_category),
        visible,
        barred,
        names == np.arange(len(names)),
    )

    carries = np.zeros(objects.images, np.uint16)
    for rows in accepted:
        carries[rows.image] |= np.uint16(1 << GROUPS.index(GROUP_OF[rows.kind]))
    asked = _presence_possible(
        objects.images, (pair_image, pair_category), visible, barred, presence
    )
    carries[asked] |= np.uint16(1 << GROUPS.index("coarse"))
    carries[captions > 0] |= np.uint16(1 << GROUPS.index("caption"))
    return Questions(_table(accepted), presence, carries)


def _one_each(one: Rows, other: Rows) -> tuple[Rows, Rows]:
    """Leave one of the two kinds to each image, by chance: either would give the other away."""
    heads = chances(np.arange(1 + max(one.image.max(initial=0), other.image.max(initial=0)))) < 0.5
    only_one = ~np.isin(one.image, other.image)
    only_other = ~np.isin(other.image, one.image)
    return one.where(only_one | heads[one.image]), other.where(only_other | ~heads[other.image])


def _accept(rows: Rows, objects: Objects) -> Rows:
    accepted = balanced(rows.key, rows.answer, objects.many[rows.image], rows.chances())
    rows = rows.where(accepted)
    if rows.kind in ("size_class", "count_category"):
        rows.b[:] = answers_of(rows.key, rows.answer)
    return rows


def _given_away(
    dominant: Rows, largest: Rows, objects: Objects, categories: Categories
) -> tuple[tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]], Bool[np.ndarray, " objects"]]:
    """What an image with one of these questions is not asked besides.

    It is left out whether or not the question is asked in the end, so that balance does not
    depend on that.

    Returns:
        (image, category) whose presence the answer tells; objects whose size it tells or hints.
    """
    super_names = supercategory_names(categories)
    of_category = np.array(
        [super_names.index(" ".join(name.split())) for name in categories.supercategories],
        np.int64,
    )
    members = [np.flatnonzero(of_category == place) for place in range(len(super_names))]
    chosen = [members[place] for place in dominant.answer]
    barred = (
        np.concatenate(
            (np.repeat(dominant.image, [len(some) for some in chosen]), largest.image)
        ).astype(np.int64),
        np.concatenate((*chosen, largest.answer)).astype(np.int64),
    )
    of_image = np.full(objects.images, -1)
    of_image[dominant.image] = dominant.answer
    told = (objects.category >= 0) & (of_category[objects.category] == of_image[objects.image])
    of_image[:] = -1
    of_image[largest.image] = largest.a
    told |= of_image[objects.image] == objects.place * 4
    return barred, told


def _presence_possible(
    images: int,
    there: tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]],
    visible: Bool[np.ndarray, " pairs"],
    barred: tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]],
    presence: Float[np.ndarray, "2 categories"],
) -> Bool[np.ndarray, " images"]:
    """Images with a category to be asked for that is there, and with one that is not."""
    many = presence.shape[1]
    code, barred_code = there[0] * many + there[1], barred[0] * many + barred[1]
    yes = visible & ~np.isin(code, barred_code) & (presence[0][there[1]] > 0)
    blocked = np.unique(np.concatenate((code, barred_code)))
    blocked = blocked[presence[1][blocked % many] > 0]
    absent = (presence[1] > 0).sum() - np.bincount(blocked // many, minlength=images)
    return (np.bincount(there[0][yes], minlength=images) > 0) & (absent > 0)


def _table(parts: list[Rows]) -> np.ndarray:
    rows = np.zeros(sum(len(part.image) for part in parts), QUESTION)
    at = 0
    for part in parts:
        here = rows[at : at + len(part.image)]
        here["image"], here["kind"] = part.image, ROW_KIND[part.kind]
        here["a"], here["b"], here["answer"] = part.a, part.b, part.answer
        at += len(part.image)
    return rows[np.argsort(rows["image"], kind="stable")]
