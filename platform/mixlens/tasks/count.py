"""Counting: all objects, or those of one colour or shape."""

from functools import partial

from mixlens.tasks.facts import Draft, Draw, Facts
from mixlens.tasks.group import FIRST, Group, Kind
from mixlens.tasks.vocabulary import COLOUR, SHAPE


def count_all(facts: Facts, draw: Draw) -> Draft | None:
    """How many objects there are; not asked where the scene spec fixes the number."""
    choices = facts.space.count_words
    answer = str(facts.count)
    if len(choices) < 2 or answer not in choices or not facts.all_seen:
        return None
    return ({}, answer, choices) if facts.ask_once("count") else None


def _count(facts: Facts, draw: Draw, attribute: int) -> Draft | None:
    """How many objects have one word.

    First the number is drawn, evenly from those that occur in this scene (the choices), then a
    word with this number: small numbers are far more frequent, and would be a good guess.
    """
    if not facts.all_seen:
        return None
    present = facts.columns[attribute]
    by_number: dict[int, list[str]] = {}
    for word in facts.space.words[attribute]:
        if word not in facts.mentioned:
            by_number.setdefault(present.count(word), []).append(word)
    if len(by_number) < 2:
        return None
    numbers = sorted(by_number)
    number = numbers[int(draw() * len(numbers))]
    candidates = by_number[number]
    word = candidates[int(draw() * len(candidates))]
    facts.mentioned.add(word)
    if number:
        facts.affirmed.add(word)
    return {"word": word}, str(number), tuple([str(n) for n in numbers])


count_colour = partial(_count, attribute=COLOUR)
count_shape = partial(_count, attribute=SHAPE)


GROUP = Group(
    name="count",
    label="counting",
    complexity=2,
    tier=None,
    place=1,
    kinds={
        "count_all": Kind(count_all, stage=FIRST),
        "count_colour": Kind(count_colour, stage=2),
        "count_shape": Kind(count_shape, stage=2),
    },
    scores=("exact", "relaxed", "count_error"),
    asks_for=("object_count",),
)
