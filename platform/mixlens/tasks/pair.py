"""Two named objects at once, with rich answers: what a model is pretrained on to compare.

A yes or no about a relation says so little that a small model does not find out from it that it has
to look up both objects, and which is which. Their cells, and the step from one to the other, do.
"""

from mixlens.tasks.facts import ATTEMPTS, DIRECTION_MARGIN, Draft, Draw, Facts, two_of
from mixlens.tasks.group import Group, Kind
from mixlens.tasks.naming import name
from mixlens.tasks.vocabulary import cell_words


def _pair(facts: Facts, draw: Draw, kind: str) -> tuple[int, int, dict[str, str]] | None:
    """Two different objects that can be named, in either order, and their names."""
    if len(facts.seen) < 2:
        return None
    for _ in range(ATTEMPTS):
        i, j = two_of(facts.seen, draw)
        if (kind, i, j) in facts.asked:
            continue
        one, other = name(facts, i, draw), name(facts, j, draw)
        if one is not None and other is not None:
            facts.ask_once(kind, i, j)
            return i, j, {"a": "the " + one, "b": "the " + other}
    return None


def pair_find(facts: Facts, draw: Draw) -> Draft | None:
    """The cells of both, in the order of their names."""
    pair = _pair(facts, draw, "pair_find")
    if pair is None:
        return None
    i, j, names = pair
    cells = facts.cells()
    return names, f"{cell_words(*cells[i])} ; {cell_words(*cells[j])}", ()


def pair_offset(facts: Facts, draw: Draw) -> Draft | None:
    """How many columns and rows the first lies from the second, and to which sides."""
    pair = _pair(facts, draw, "pair_offset")
    if pair is None:
        return None
    i, j, names = pair
    across, down = facts.x[i] - facts.x[j], facts.y[i] - facts.y[j]
    if min(abs(across), abs(down)) < DIRECTION_MARGIN:
        return None
    cells = facts.cells()
    rows, columns = (abs(a - b) for a, b in zip(cells[i], cells[j], strict=True))
    side, height = "right" if across > 0 else "left", "below" if down > 0 else "above"
    return names, f"{side} {columns} {height} {rows}", ()


GROUP = Group(
    name="pair",
    label="pair",
    complexity=3,
    tier=None,
    place=5,
    kinds={
        "pair_find": Kind(pair_find),
        "pair_offset": Kind(pair_offset),
    },
    is_compared=False,
)
