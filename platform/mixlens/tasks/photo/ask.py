"""Questions about one photograph, drawn from those that its data set's index has accepted."""

from collections.abc import Callable, Mapping
from functools import partial
from random import Random

import numpy as np
from jaxtyping import Bool

from mixlens.spec import TaskGroup
from mixlens.tasks.ask import GROUPS
from mixlens.tasks.facts import Draft, Draw
from mixlens.tasks.photo.listing import box_words, graph_words
from mixlens.tasks.photo.photo import Categories, Photo
from mixlens.tasks.photo.rows import FORMS, PHOTO_GROUPS, SIZE_CLASSES, spoken, supercategory_names
from mixlens.tasks.photo.state import PhotoState
from mixlens.tasks.prompts import photo_prompts
from mixlens.tasks.turn import Turn
from mixlens.tasks.vocabulary import GRID, YES_NO, cell_words


def _dominant(photo: PhotoState, draw: Draw) -> Draft | None:
    row = photo.row("dominant", draw)
    if row is None:
        return None
    choices = photo.choices(spoken(photo.categories.supercategories), 1)
    return {}, supercategory_names(photo.categories)[row[4]], choices


def _presence(photo: PhotoState, draw: Draw) -> Draft | None:
    """Of a category that is there and one that is not, either is as likely."""
    row = photo.row("presence", draw)
    while row is not None and photo.asked_for & {row[2], row[3]}:
        row = photo.row("presence", draw)
    if row is None:
        return None
    second = draw() < 0.5
    category = row[2 + second]
    photo.asked_for.add(category)
    return {"word": photo.names[category]}, YES_NO[second != row[4]], YES_NO


def _largest(photo: PhotoState, draw: Draw) -> Draft | None:
    row = photo.row("largest", draw)
    return ({}, photo.names[row[4]], photo.choices(photo.names, 0)) if row else None


def _size_class(photo: PhotoState, draw: Draw) -> Draft | None:
    row = photo.row("size_class", draw, "size")
    if row is None:
        return None
    choices = tuple(word for bit, word in enumerate(SIZE_CLASSES) if row[3] >> bit & 1)
    return {"a": photo.name(row[2])}, SIZE_CLASSES[row[4]], choices


def _relation(photo: PhotoState, draw: Draw, kind: str, answers: tuple[str, str]) -> Draft | None:
    """`answers`: if the one further left, further up or smaller is named first, and if second."""
    row = photo.row(kind, draw, kind)
    if row is None:
        return None
    one, other = photo.name(row[2]), photo.name(row[3])
    if row[4]:
        one, other = other, one
    falling = draw() < 0.5
    if falling:
        one, other = other, one
    return {"a": one, "b": other}, answers[falling], answers


def _count(photo: PhotoState, draw: Draw) -> Draft | None:
    row = photo.row("count_category", draw)
    if row is None:
        return None
    choices = tuple(str(number) for number in range(16) if row[3] >> number & 1)
    return {"word": photo.names[row[2]]}, str(row[4]), choices


def _locate(photo: PhotoState, draw: Draw) -> Draft | None:
    row = photo.row("locate", draw, "place")
    return ({"a": photo.name(row[2])}, cell_words(*divmod(row[4], GRID)), ()) if row else None


def _box(photo: PhotoState, draw: Draw) -> Draft | None:
    row = photo.row("box", draw, "place")
    if row is None:
        return None
    return {"a": photo.name(row[2])}, box_words(photo.photo, row[2] // FORMS), ()


def _graph(photo: PhotoState, draw: Draw) -> Draft | None:
    row = photo.row("category_graph", draw)
    return ({}, graph_words(photo.photo, photo.names), ()) if row else None


def _caption(photo: PhotoState, draw: Draw) -> Draft | None:
    captions = photo.photo.captions
    return ({}, captions[int(draw() * len(captions))], ()) if captions else None


Ask = Callable[[PhotoState, Draw], Draft | None]

_ASK: dict[TaskGroup, dict[str, Ask]] = {
    "coarse": {"dominant": _dominant, "presence": _presence},
    "attribute": {"size_class": _size_class, "largest": _largest},
    "relational": {
        "left_of": partial(_relation, kind="horizontal", answers=("yes", "no")),
        "right_of": partial(_relation, kind="horizontal", answers=("no", "yes")),
        "above": partial(_relation, kind="vertical", answers=("yes", "no")),
        "below": partial(_relation, kind="vertical", answers=("no", "yes")),
        "smaller": partial(_relation, kind="size", answers=("yes", "no")),
        "larger": partial(_relation, kind="size", answers=("no", "yes")),
        "left_or_right": partial(_relation, kind="horizontal", answers=("left", "right")),
        "above_or_below": partial(_relation, kind="vertical", answers=("above", "below")),
        "larger_or_smaller": partial(_relation, kind="size", answers=("smaller", "larger")),
    },
    "count": {"count_category": _count},
    "locate": {"locate": _locate, "box": _box},
    "scene_graph": {"category_graph": _graph},
    "caption": {"photo_caption": _caption},
}

PHOTO_KINDS: dict[TaskGroup, tuple[str, ...]] = {
    group: tuple(kinds) for group, kinds in _ASK.items()
}
"""Task group -> the types of its questions about photographs."""

# When in an image a type is asked; 3 if it is not listed.
_STAGES = {
    "dominant": 0,
    "largest": 0,
    "presence": 1,
    "count_category": 2,
    "locate": 4,
    "box": 4,
    "category_graph": 5,
    "photo_caption": 6,
}

# Asked once; any other type as long as there are rows.
_ONCE = ("photo_caption",)


def ask_photo(
    photo: Photo,
    categories: Categories,
    possible: Bool[np.ndarray, "2 categories"],
    tasks: Mapping[TaskGroup, int],
    seed: int,
    index: int,
) -> tuple[Turn, ...]:
    """Questions about a photograph; a pure function of its arguments.

    The types of a group are drawn about evenly, as far as the photograph can carry them. Nothing
    is asked twice, and no turn gives the answer of a later one away: the supercategory that covers
    most or the largest object come first (an image is never asked both), then presence, then
    counts, then sizes and relations shuffled, then places, and at the end the graph and a caption.
    No object is compared twice in one respect, since three comparisons of three objects would tell
    each other.

    Args:
        photo: what is asked about, with the questions that its index has accepted.
        categories: of its data set.
        possible: of its data set, from `find_questions`.
        tasks: turns of each task group. There are fewer when the photograph cannot carry them.
        seed: seed of the component.
        index: index of the example in the component.
    """
    draw = Random((seed << 72) + (index << 1) + 1).random
    state = PhotoState(photo, categories, possible)
    stages: list[list[Turn]] = [[] for _ in range(7)]
    for group in PHOTO_GROUPS:
        turns = tasks.get(group, 0)
        tickets = list(_ASK[group]) if turns else []
        again: list[str] = []
        # Each round goes through the types that were possible so far in a new random order.
        while turns and (tickets or again):
            if not tickets:
                tickets, again = again, []
            kind = tickets.pop(int(draw() * len(tickets)))
            draft = _ASK[group][kind](state, draw)
            if draft is not None:
                if kind not in _ONCE:
                    again.append(kind)
                stages[_STAGES.get(kind, 3)].append(_turn(group, kind, draft, draw))
                turns -= 1
    for stage in stages:
        for i in range(len(stage) - 1, 0, -1):
            j = int(draw() * (i + 1))
            stage[i], stage[j] = stage[j], stage[i]
    return tuple(turn for stage in stages for turn in stage)


def _turn(group: TaskGroup, kind: str, draft: Draft, draw: Draw) -> Turn:
    fields, answer, choices = draft
    phrasings = _PROMPTS[kind]
    prompt, template = phrasings[int(draw() * len(phrasings))]
    return Turn(template % fields, answer, group, kind, GROUPS[group].complexity, prompt, choices)


_PROMPTS = photo_prompts()
