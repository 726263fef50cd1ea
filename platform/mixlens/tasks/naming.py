"""Names of objects: the fewest attributes that fit one object of a scene and no other."""

from itertools import combinations

from mixlens.tasks.facts import ATTRIBUTES_OF, Draw, Facts
from mixlens.tasks.vocabulary import SHAPE

_ALL = 0b1111


def _subsets(forbidden: int) -> tuple[tuple[int, ...], ...]:
    """Sets of attributes (bits) that avoid `forbidden`, grouped by how many they are."""
    free = [1 << attribute for attribute in range(4) if not forbidden >> attribute & 1]
    return tuple(
        tuple(sum(chosen) for chosen in combinations(free, many))
        for many in range(1, len(free) + 1)
    )


_SUBSETS = tuple(_subsets(forbidden) for forbidden in range(_ALL + 1))


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
    levels = _SUBSETS[avoid | facts.secret[i] | facts.space.unspoken]
    for masks in levels:
        many = len(masks)
        first = int(draw() * many)
        for step in range(many):
            mask = masks[(first + step) % many]
            if _fits_one(alike, mask):
                facts.spoken[i] |= mask
                words = [facts.columns[a][i] for a in ATTRIBUTES_OF[mask]]
                return " ".join(words if mask >> SHAPE & 1 else [*words, "object"])
    return None


def _fits_one(alike: list[int], mask: int) -> bool:
    """Whether a single object (bit) is in all of the sets that belong to attributes in `mask`."""
    fitting = -1
    for attribute in ATTRIBUTES_OF[mask]:
        fitting &= alike[attribute]
    return fitting & (fitting - 1) == 0


def description(facts: Facts, i: int) -> str:
    """All attributes of an object: `large red striped circle`, without a size if it has no word."""
    words = [column[i] for column in facts.columns]
    return " ".join(words if facts.space.sizes else words[1:])
