"""Names of objects: the fewest attributes that fit one object of a scene and no other."""

from itertools import combinations

from mixlens.tasks.facts import Draw, Facts
from mixlens.tasks.vocabulary import SHAPE

_ALL = 0b1111


def _levels(forbidden: int) -> tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]:
    """The orders in which sets of attributes other than `forbidden` (bits) are tried.

    A level for each number of attributes, and in it an order for each set that may be the first.
    """
    free = [attribute for attribute in range(4) if not forbidden >> attribute & 1]
    levels = [tuple(combinations(free, many)) for many in range(1, len(free) + 1)]
    return tuple(
        tuple(sets[first:] + sets[:first] for first in range(len(sets))) for sets in levels
    )


_LEVELS = tuple(_levels(forbidden) for forbidden in range(_ALL + 1))


def name(facts: Facts, i: int, draw: Draw, avoid: int = 0) -> str | None:
    """A name of object `i` such as `large red object`, or None if no name is its own.

    Args:
        facts: the scene.
        i: the object.
        draw: chance, for the choice among names with equally many words.
        avoid: attributes (bits) that the name must not use, because they would give the answer
            away; those that another turn asks for are avoided as well.
    """
    alike = facts.alike(i)
    for orders in _LEVELS[avoid | facts.secret[i] | facts.space.unspoken]:
        for attributes in orders[int(draw() * len(orders))]:
            fitting = -1
            for attribute in attributes:
                fitting &= alike[attribute]
            if fitting & (fitting - 1) == 0:  # a single bit
                words = [facts.columns[attribute][i] for attribute in attributes]
                for attribute in attributes:
                    facts.spoken[i] |= 1 << attribute
                return " ".join(words if attributes[-1] == SHAPE else [*words, "object"])
    return None


def description(facts: Facts, i: int) -> str:
    """All attributes of an object: `large red striped circle`, without a size if it has no word."""
    words = [column[i] for column in facts.columns]
    return " ".join(words if facts.space.sizes else words[1:])
