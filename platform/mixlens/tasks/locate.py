"""Locating: the grid cell that holds the centre of a named object."""

from functools import partial

from mixlens.tasks.facts import ATTEMPTS, Draft, Draw, Facts
from mixlens.tasks.group import Group, Kind
from mixlens.tasks.naming import name
from mixlens.tasks.vocabulary import SIZE, cell_words


def find(facts: Facts, draw: Draw, avoid: int = 0) -> Draft | None:
    """The cell of a named object; `avoid` are attributes (bits) that its name must not use."""
    many = len(facts.seen)
    first = int(draw() * many)
    for step in range(min(many, ATTEMPTS)):
        i = facts.seen[(first + step) % many]
        if ("cell", i) in facts.asked:
            continue
        named = name(facts, i, draw, avoid)
        if named is not None:
            facts.ask_once("cell", i)
            return {"a": "the " + named}, cell_words(*facts.cells()[i]), ()
    return None


# Named without its size, because large objects lie nearer the middle.
locate = partial(find, avoid=1 << SIZE)


GROUP = Group(
    name="locate",
    label="localisation",
    complexity=2,
    tier=None,
    place=4,
    kinds={
        "locate": Kind(locate),
    },
    scores=("exact", "relaxed", "location_error", "iou"),
    headline="relaxed",
    asks_for=("crowding",),
)
