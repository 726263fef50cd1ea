"""Questions about a scene: so many turns of each task group, each with one right answer."""

from collections.abc import Callable, Mapping
from random import Random

from mixlens.scenes import Scene
from mixlens.spec import TaskGroup
from mixlens.tasks import attribute, caption, coarse, count, locate, pair, relational, scene_graph
from mixlens.tasks.facts import Draft, Draw, Facts
from mixlens.tasks.prompts import prompts
from mixlens.tasks.turn import Turn
from mixlens.tasks.vocabulary import AnswerSpace

Ask = Callable[[Facts, Draw], Draft | None]

KINDS: dict[TaskGroup, dict[str, Ask]] = {
    "coarse": {
        "main_shape": coarse.main_shape,
        "main_colour": coarse.main_colour,
        "shape_presence": coarse.shape_presence,
        "colour_presence": coarse.colour_presence,
    },
    "count": {
        "count_all": count.count_all,
        "count_colour": count.count_colour,
        "count_shape": count.count_shape,
    },
    "attribute": {
        "colour": attribute.colour,
        "texture": attribute.texture,
        "size": attribute.size,
        "shape": attribute.shape,
    },
    "relational": {
        "left_of": relational.left_of,
        "right_of": relational.right_of,
        "above": relational.above,
        "below": relational.below,
        "larger": relational.larger,
        "smaller": relational.smaller,
        "left_or_right": relational.left_or_right,
        "above_or_below": relational.above_or_below,
        "larger_or_smaller": relational.larger_or_smaller,
        "nearest": relational.nearest,
        "same_colour": relational.same_colour,
        "same_shape": relational.same_shape,
        "same_texture": relational.same_texture,
        "chain_attribute": relational.chain_attribute,
        "chain_nearest": relational.chain_nearest,
    },
    "locate": {"locate": locate.locate},
    "pair": {"pair_find": pair.pair_find, "pair_offset": pair.pair_offset},
    "scene_graph": {"scene_graph": scene_graph.scene_graph},
    "caption": {
        "caption_full": caption.caption_full,
        "caption_cell": caption.caption_cell,
        "caption_row": caption.caption_row,
        "caption_column": caption.caption_column,
        "caption_find": locate.find,
        "caption_find_all": caption.caption_find_all,
        "caption_colours": caption.caption_colours,
        "caption_shapes": caption.caption_shapes,
    },
}
"""Task group -> question type -> the function that asks it."""

COMPLEXITY: dict[TaskGroup, int] = {
    "coarse": 1,
    "attribute": 2,
    "count": 2,
    "locate": 2,
    "relational": 3,
    "pair": 3,
    "scene_graph": 4,
    "caption": 4,
}

EVERYTHING = AnswerSpace()

# When in an image a question type is asked; 3, with most others, if it is not listed.
_STAGES = {
    "count_all": 0,
    "shape_presence": 1,
    "colour_presence": 1,
    "count_colour": 2,
    "count_shape": 2,
    "main_shape": 2,
    "main_colour": 2,
    **dict.fromkeys(("scene_graph", *KINDS["caption"]), 4),
}

# Question types that many scenes cannot carry have more tickets in the draw.
_SCARCE = {
    "main_shape": 3,
    "main_colour": 3,
    "same_colour": 2,
    "same_shape": 2,
    "same_texture": 2,
    "chain_attribute": 2,
}
_TICKETS = {
    group: [kind for kind in kinds for _ in range(_SCARCE.get(kind, 1))]
    for group, kinds in KINDS.items()
}


def ask(
    scene: Scene,
    tasks: Mapping[TaskGroup, int],
    seed: int,
    index: int,
    space: AnswerSpace = EVERYTHING,
) -> tuple[Turn, ...]:
    """Questions about a scene; a pure function of its arguments.

    The question types of a group are drawn about evenly, as far as scenes can carry them. Nothing
    is asked twice, and no turn gives the answer of a later one away: the number of objects comes
    first, then presence, then the number of some and the largest object, then all others
    shuffled, and at the end the scene graph and the captions. What remains is that a name says
    something about the other objects: where "the star" has been named, no other is a star.

    Args:
        scene: what is asked about.
        tasks: turns of each task group. There are fewer when the scene cannot carry them.
        seed: seed of the component.
        index: index of the scene in the component.
        space: the words that scenes of this family can contain (`answer_space(spec)`).
    """
    draw = Random((seed << 72) + (index << 1) + 1).random
    facts = Facts(scene, space)
    stages: tuple[list[Turn], ...] = ([], [], [], [], [])
    for group in KINDS:
        turns = spare = tasks.get(group, 0)
        if not turns:
            continue
        # Each round goes through the types that were possible so far in a new random order.
        tickets = list(_TICKETS[group])
        tried: set[str] = set()
        possible: list[str] = []
        while turns and (tickets or possible):
            if not tickets:
                tickets, possible = possible, []
                tried.clear()
            kind = tickets.pop(int(draw() * len(tickets)))
            if kind in tried:
                continue
            tried.add(kind)
            spare -= 1
            if kind == "count_all" and spare < 0:
                # As a stand-in for what small scenes cannot carry it would favour small numbers.
                continue
            draft = KINDS[group][kind](facts, draw)
            if draft is not None:
                possible.append(kind)
                stages[_STAGES.get(kind, 3)].append(_turn(group, kind, draft, draw))
                turns -= 1
    for turns_of_stage in stages[1:4]:
        _shuffle(turns_of_stage, draw)
    return tuple([turn for turns_of_stage in stages for turn in turns_of_stage])


def _turn(group: TaskGroup, kind: str, draft: Draft, draw: Draw) -> Turn:
    fields, answer, choices = draft
    phrasings = _PROMPTS[kind]
    prompt, template = phrasings[int(draw() * len(phrasings))]
    return Turn(template % fields, answer, group, kind, COMPLEXITY[group], prompt, choices)


def _shuffle(items: list, draw: Draw) -> None:
    for i in range(len(items) - 1, 0, -1):
        j = int(draw() * (i + 1))
        items[i], items[j] = items[j], items[i]


_PROMPTS = prompts()
