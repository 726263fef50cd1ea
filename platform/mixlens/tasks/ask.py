"""Questions about a scene: so many turns of each task group, each with one right answer."""

from collections.abc import Mapping
from importlib import import_module
from random import Random
from typing import get_args

from mixlens.scenes import Scene
from mixlens.spec import TaskGroup
from mixlens.tasks.facts import Draft, Draw, Facts
from mixlens.tasks.group import Group
from mixlens.tasks.prompts import prompts
from mixlens.tasks.turn import Turn
from mixlens.tasks.vocabulary import AnswerSpace

GROUPS: dict[str, Group] = {
    name: import_module(f"mixlens.tasks.{name}").GROUP for name in get_args(TaskGroup)
}
"""The task groups by name, in the order in which people read them."""

EVERYTHING = AnswerSpace()

_DRAWN = sorted(GROUPS.values(), key=lambda group: group.place)
_TICKETS = {
    group.name: [name for name, kind in group.kinds.items() for _ in range(kind.tickets)]
    for group in _DRAWN
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
    for group in _DRAWN:
        turns = spare = tasks.get(group.name, 0)
        if not turns:
            continue
        # Each round goes through the types that were possible so far in a new random order.
        tickets = list(_TICKETS[group.name])
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
            draft = group.kinds[kind].ask(facts, draw)
            if draft is not None:
                possible.append(kind)
                stages[group.kinds[kind].stage].append(_turn(group, kind, draft, draw))
                turns -= 1
    for turns_of_stage in stages[1:4]:
        _shuffle(turns_of_stage, draw)
    return tuple([turn for turns_of_stage in stages for turn in turns_of_stage])


def _turn(group: Group, kind: str, draft: Draft, draw: Draw) -> Turn:
    fields, answer, choices = draft
    phrasings = _PROMPTS[kind]
    prompt, template = phrasings[int(draw() * len(phrasings))]
    return Turn(template % fields, answer, group.name, kind, group.complexity, prompt, choices)


def _shuffle(items: list, draw: Draw) -> None:
    for i in range(len(items) - 1, 0, -1):
        j = int(draw() * (i + 1))
        items[i], items[j] = items[j], items[i]


_PROMPTS = prompts()
