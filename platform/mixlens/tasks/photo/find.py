"""All questions that can be asked about the photographs of a data set."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int16, UInt16

from mixlens.tasks.photo import candidates, coarse
from mixlens.tasks.photo.balance import answers_of, balanced
from mixlens.tasks.photo.coverage import Coverage
from mixlens.tasks.photo.objects import Objects, describe_objects
from mixlens.tasks.photo.photo import Categories
from mixlens.tasks.photo.rows import (
    GROUP_OF,
    PHOTO_GROUPS,
    QUESTION,
    ROW_KIND,
    Rows,
    supercategories_of,
)


@dataclass(frozen=True, slots=True)
class Questions:
    """What can be asked about each photograph of a data set.

    Attributes:
        rows: of type `QUESTION`, ordered by image.
        possible: whether each category can be the largest object of an image, and whether its
            supercategory can be the one that covers most: the choices of these two questions.
        carries: bit g is set if at least one turn of `PHOTO_GROUPS[g]` can be asked of the image.
    """

    rows: np.ndarray
    possible: Bool[np.ndarray, "2 categories"]
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
    coverage: Coverage,
    categories: Categories,
) -> Questions:
    """Find every question with exactly one right answer, and accept so many that they balance.

    Over all images together, what the text of a question says does not tell its answer: see
    `balance.balanced`. Which ones are accepted depends on nothing but the arguments.

    Args:
        first: of each image its first object; then the number of objects.
        width: of each upright image, pixels.
        height: pixels.
        category: of each object, in the order of images: its place in `categories`.
        boxes: x0, y0, x1, y1, pixels, inside the image.
        area: of the mask, pixels.
        crowd: whether it is a region of many objects.
        captions: number of captions of each image.
        coverage: the categories that each image is annotated for completely.
        categories: of the data set.
    """
    objects = describe_objects(
        first, width, height, category, boxes, area, crowd, coverage, categories
    )
    dominant, largest = (
        _accept(rows, objects)
        for rows in coarse.one_each(coarse.dominant(objects), coarse.largest(objects))
    )
    barred, told = coarse.given_away(dominant, largest, objects, categories)
    presence, number = coarse.presence(objects, categories, barred)
    accepted = [
        dominant,
        largest,
        _accept(presence, objects, number),
        _accept(candidates.size_class(objects, told), objects),
        _accept(candidates.direction(objects, "horizontal"), objects),
        _accept(candidates.direction(objects, "vertical"), objects),
        _accept(candidates.size(objects, told), objects),
        _accept(candidates.count_category(objects), objects),
        _accept(candidates.locate(objects, "locate"), objects),
        _accept(candidates.locate(objects, "box"), objects),
        candidates.category_graph(objects, categories),
    ]
    carries = np.zeros(objects.images, np.uint16)
    for rows in accepted:
        carries[rows.image] |= np.uint16(1 << PHOTO_GROUPS.index(GROUP_OF[rows.kind]))
    carries[captions > 0] |= np.uint16(1 << PHOTO_GROUPS.index("caption"))
    possible = np.stack(
        (
            np.isin(np.arange(len(categories.names)), largest.answer),
            np.isin(supercategories_of(categories), dominant.answer),
        )
    )
    return Questions(_table(accepted), possible, carries)


def _accept(rows: Rows, objects: Objects, crowding: Int[np.ndarray, " rows"] | int = 0) -> Rows:
    """Those accepted, balanced among images of like `crowding`, then like numbers of objects."""
    like = crowding * (1 + int(objects.many.max(initial=0))) + objects.many[rows.image]
    rows = rows.where(balanced(rows.key, rows.answer, rows.image, like, rows.chances()))
    if rows.kind in ("size_class", "count_category"):
        rows.b[:] = answers_of(rows.key, rows.answer)
    return rows


def _table(parts: list[Rows]) -> np.ndarray:
    rows = np.zeros(sum(len(part.image) for part in parts), QUESTION)
    at = 0
    for part in parts:
        here = rows[at : at + len(part.image)]
        here["image"], here["kind"] = part.image, ROW_KIND[part.kind]
        here["a"], here["b"], here["answer"] = part.a, part.b, part.answer
        at += len(part.image)
    return rows[np.argsort(rows["image"], kind="stable")]
