"""The rows that say what can be asked about a photograph, and the names its objects have."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

from mixlens.spec import TaskGroup
from mixlens.tasks.photo.balance import chances
from mixlens.tasks.photo.photo import Categories

QUESTION = np.dtype(
    [("image", "<i4"), ("kind", "i1"), ("a", "<i2"), ("b", "<i2"), ("answer", "<i2")]
)
"""One question that can be asked of one image.

`image` is the row of the image, `kind` a place in `ROW_KINDS`. What `a`, `b` and `answer` hold
depends on the kind; what is not listed is -1. A reference is `object * FORMS + form`, the object
counted within the image:

dominant: answer: place in `supercategory_names`.
presence: a, b: categories; answer: 0 if only `a` is there, 1 if only `b` is.
largest: a: reference; answer: category.
size_class: a: reference; b: its possible answers, as bits; answer: place in `SIZE_CLASSES`.
horizontal, vertical, size: a, b: references; answer: 0 if `a` is the one further left, further up
    or smaller, else 1.
count_category: a: category; b: its possible answers, as bits; answer: the number.
locate: a: reference; answer: row of the cell times `GRID`, plus its column.
box: a: reference; answer: as of locate.
category_graph: nothing else.
"""

ROW_KINDS = (
    "dominant",
    "presence",
    "largest",
    "size_class",
    "horizontal",
    "vertical",
    "size",
    "count_category",
    "locate",
    "box",
    "category_graph",
)
ROW_KIND = {kind: place for place, kind in enumerate(ROW_KINDS)}

GROUP_OF: dict[str, TaskGroup] = {
    "dominant": "coarse",
    "presence": "coarse",
    "largest": "attribute",
    "size_class": "attribute",
    "horizontal": "relational",
    "vertical": "relational",
    "size": "relational",
    "count_category": "count",
    "locate": "locate",
    "box": "locate",
    "category_graph": "scene_graph",
}
"""The task group of each kind of row."""

PHOTO_GROUPS: tuple[TaskGroup, ...] = (*dict.fromkeys(GROUP_OF.values()), "caption")
"""The task groups of photographs; bit g of `carries` is for the group at place g."""

SIZE_CLASSES = ("small", "medium", "large")

FORMS = 4
PLAIN, LEFTMOST, RIGHTMOST, LARGEST = range(FORMS)
MAX_PLACE = np.iinfo(np.int16).max // FORMS
"""Objects that come later in an image have no references."""

_ARTICLES = ("the ", "the leftmost ", "the rightmost ", "the largest ")


@lru_cache(maxsize=8)
def spoken(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as questions and answers speak them: white space is a single space."""
    return tuple(" ".join(name.split()) for name in names)


def category_names(categories: Categories) -> tuple[str, ...]:
    """What each category is called."""
    return spoken(categories.names)


@lru_cache(maxsize=8)
def same_name(categories: Categories) -> tuple[int, ...]:
    """Of each category the first one with its name, which stands for all of them.

    Two categories of one name cannot be told apart in a question. -1 without any name.
    """
    names = category_names(categories)
    return tuple(names.index(name) if name else -1 for name in names)


@lru_cache(maxsize=8)
def supercategory_names(categories: Categories) -> tuple[str, ...]:
    """The distinct ones, in the order in which the categories have them."""
    return tuple(dict.fromkeys(spoken(categories.supercategories)))


def supercategories_of(categories: Categories) -> Int[np.ndarray, " categories"]:
    """Of each category the place of its supercategory in `supercategory_names`; -1 without one."""
    names = supercategory_names(categories)
    return np.array(
        [names.index(name) if name else -1 for name in spoken(categories.supercategories)],
        np.int64,
    )


def spoken_name(names: tuple[str, ...], category: int, form: int) -> str:
    """Such as `the leftmost dog`."""
    return _ARTICLES[form] + names[category]


@dataclass(frozen=True, slots=True)
class Rows:
    """Questions of one kind: columns as in `QUESTION`, and what their text says.

    Attributes:
        key: equal for questions whose text is the same up to the phrasing.
    """

    kind: str
    image: Int[np.ndarray, " rows"]
    a: Int[np.ndarray, " rows"]
    b: Int[np.ndarray, " rows"]
    answer: Int[np.ndarray, " rows"]
    key: Int[np.ndarray, " rows"]

    def chances(self) -> Float[np.ndarray, " rows"]:
        """A uniform number for each row."""
        return chances(self.image, ROW_KIND[self.kind], self.a, self.b)

    def where(self, chosen: Bool[np.ndarray, " rows"]) -> "Rows":
        """Some of the rows."""
        return Rows(
            self.kind,
            self.image[chosen],
            self.a[chosen],
            self.b[chosen],
            self.answer[chosen],
            self.key[chosen],
        )


def nothing(like: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """A column that holds nothing."""
    return np.full(len(like), -1)
