"""Annotations of photographs that nobody took, with the habits of real ones."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixlens.tasks.photo import (
    Categories,
    Coverage,
    Photo,
    Questions,
    ask_photo,
    complete_everywhere,
    find_questions,
)

# Category, supercategory, how often, usual height in the picture (0 top), usual length of a side.
HABITS = (
    ("person", "person", 6.0, 0.45, 0.28),
    ("dog", "animal", 2.0, 0.65, 0.18),
    ("cat", "animal", 1.5, 0.60, 0.15),
    ("skateboard", "sports", 1.0, 0.80, 0.09),
    ("kite", "sports", 0.7, 0.20, 0.06),
    ("chair", "furniture", 3.0, 0.65, 0.16),
    ("couch", "furniture", 1.0, 0.62, 0.33),
    ("dining table", "furniture", 1.5, 0.68, 0.33),
    ("cup", "kitchen", 2.0, 0.58, 0.06),
    ("bowl", "kitchen", 1.0, 0.62, 0.08),
    ("car", "vehicle", 2.0, 0.55, 0.16),
    ("bus", "vehicle", 0.7, 0.48, 0.38),
)
CATEGORIES = Categories(tuple(h[0] for h in HABITS), tuple(h[1] for h in HABITS))


@dataclass(frozen=True)
class PhotoSet:
    """Columns as `find_questions` takes them."""

    first: np.ndarray
    width: np.ndarray
    height: np.ndarray
    category: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    captions: np.ndarray
    categories: Categories = CATEGORIES

    @cached_property
    def questions(self) -> Questions:
        columns = {name: getattr(self, name) for name in self.__annotations__}
        return find_questions(**columns, coverage=self.coverage)

    @property
    def coverage(self) -> Coverage:
        return complete_everywhere(len(self), len(self.categories.names))

    @cached_property
    def asked(self) -> np.ndarray:
        """Of each image its first question; then their number."""
        return np.searchsorted(self.questions.rows["image"], np.arange(len(self.width) + 1))

    def __len__(self) -> int:
        return len(self.width)

    def photo(self, i: int) -> Photo:
        here = slice(self.first[i], self.first[i + 1])
        return Photo(
            int(self.width[i]),
            int(self.height[i]),
            self.category[here],
            self.boxes[here],
            self.area[here],
            self.crowd[here],
            self.questions.rows[self.asked[i] : self.asked[i + 1]],
            tuple(f"caption {k} of image {i} ." for k in range(self.captions[i])),
        )

    def ask(self, i: int, tasks: dict, seed: int = 0, index: int | None = None):
        index = i if index is None else index
        photo, possible = self.photo(i), self.questions.possible
        return ask_photo(photo, self.categories, possible, tasks, seed, index)


def make_photos(images: int, seed: int = 0) -> PhotoSet:
    """Persons above skateboards, mostly one dog, small cups, and most things in the middle."""
    draw = np.random.default_rng(seed)
    often, level, side = (np.array([h[k] for h in HABITS]) for k in (2, 3, 4))
    many = np.minimum(draw.geometric(0.17, images), 25) * (draw.random(images) > 0.02)
    first = np.concatenate(([0], np.cumsum(many)))
    image = np.repeat(np.arange(images), many)
    total = len(image)
    upright = draw.random(images) < 0.3
    width, height = np.where(upright, 480, 640), np.where(upright, 640, 480)
    # Each image shows a few categories, the first of them most.
    few = draw.choice(len(HABITS), (images, 4), p=often / often.sum())
    category = few[image, np.minimum(draw.geometric(0.45, total) - 1, 3)]
    length = side[category] * np.exp(draw.normal(0, 0.6, total))
    w, h = (np.minimum(length * np.exp(draw.normal(0, 0.3, total)), 0.98) for _ in range(2))
    x = np.clip(draw.normal(0.5, 0.22, total), w / 2, 1 - w / 2)
    y = np.clip(draw.normal(level[category], 0.15), h / 2, 1 - h / 2)
    sides = np.stack((width, height, width, height), 1)[image]
    # In whole pixels, so that no rounding of another machine can matter.
    boxes = np.round(np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1) * sides)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    full = np.prod(boxes[:, 2:] - boxes[:, :2], 1)
    area = np.maximum(np.round(full * draw.uniform(0.4, 0.8, total)), 1)
    return PhotoSet(
        first,
        width.astype(np.int32),
        height.astype(np.int32),
        category.astype(np.int16),
        boxes.astype(np.float32),
        area.astype(np.float32),
        draw.random(total) < 0.015,
        draw.integers(0, 4, images),
    )


def one_photo(
    things: list[tuple], categories: Categories = CATEGORIES, size: tuple[int, int] = (1000, 1000)
) -> PhotoSet:
    """An image of (category, x0, y0, x1, y1) or (..., area) or (..., area, crowd); percent."""
    width, height = size
    scale = np.array((width, height, width, height)) / 100
    boxes = np.array([thing[1:5] for thing in things], np.float64).reshape(-1, 4) * scale
    full = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    area = [
        thing[5] / 100 * width * height if len(thing) > 5 else own
        for thing, own in zip(things, full, strict=True)
    ]
    names = [thing[0] for thing in things]
    return PhotoSet(
        np.array([0, len(things)]),
        np.array([width], np.int32),
        np.array([height], np.int32),
        np.array([categories.names.index(name) for name in names], np.int16),
        boxes.astype(np.float32),
        np.array(area, np.float32),
        np.array([len(thing) > 6 and thing[6] for thing in things], bool),
        np.array([0]),
        categories,
    )


def photos_of(coco) -> PhotoSet:
    """The images of an annotation file that pycocotools has read."""
    categories = [coco.cats[i] for i in sorted(coco.cats)]
    place = {category["id"]: k for k, category in enumerate(categories)}
    images = [coco.imgs[i] for i in sorted(coco.imgs)]
    own = [coco.imgToAnns[image["id"]] for image in images]
    things = [thing for some in own for thing in some]
    corners = np.array([thing["bbox"] for thing in things], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return PhotoSet(
        np.concatenate(([0], np.cumsum([len(some) for some in own]))),
        np.array([image["width"] for image in images], np.int32),
        np.array([image["height"] for image in images], np.int32),
        np.array([place[thing["category_id"]] for thing in things], np.int16),
        corners.astype(np.float32),
        np.array([thing["area"] for thing in things], np.float32),
        np.array([thing["iscrowd"] for thing in things], bool),
        np.zeros(len(images), np.int64),
        Categories(
            tuple(category["name"] for category in categories),
            tuple(category["supercategory"] for category in categories),
        ),
    )
