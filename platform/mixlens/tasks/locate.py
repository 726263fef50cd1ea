"""Locating: the grid cell that holds the centre of a named object."""

from mixlens.tasks.facts import ATTEMPTS, Draft, Draw, Facts
from mixlens.tasks.naming import name
from mixlens.tasks.vocabulary import SIZE, cell_words


def locate(facts: Facts, draw: Draw) -> Draft | None:
    """Where an object is; named without its size, because large objects lie nearer the middle."""
    many = len(facts.seen)
    first = int(draw() * many)
    for step in range(min(many, ATTEMPTS)):
        i = facts.seen[(first + step) % many]
        if ("cell", i) in facts.asked:
            continue
        named = name(facts, i, draw, 1 << SIZE)
        if named is not None:
            facts.ask_once("cell", i)
            return {"a": "the " + named}, cell_words(*facts.cells()[i]), ()
    return None
