"""Relational questions: two or three named objects, one relation or a chain of two."""

from functools import partial
from math import inf

from mixlens.tasks.facts import (
    ATTEMPTS,
    DIRECTION_MARGIN,
    NEAREST_RATIO,
    SIZE_RATIO,
    Draft,
    Draw,
    Facts,
    two_of,
)
from mixlens.tasks.group import Group, Kind
from mixlens.tasks.naming import name
from mixlens.tasks.vocabulary import (
    ATTRIBUTES,
    COLOUR,
    SAME_DIFFERENT,
    SHAPE,
    SIZE,
    TEXTURE,
    YES_NO,
)

_SIZE_BIT = 1 << SIZE


def _ordered(
    facts: Facts, draw: Draw, low: int, high: int, answers: tuple[str, str], avoid: int
) -> Draft | None:
    """A question about two objects of which `low` has the smaller value.

    `answers` are the one where the smaller is named first and the one where it is named second,
    which are equally likely.
    """
    one, other = name(facts, low, draw, avoid), name(facts, high, draw, avoid)
    if one is None or other is None:
        return None
    falling = draw() < 0.5
    if falling:
        one, other = other, one
    return {"a": "the " + one, "b": "the " + other}, answers[falling], answers


def _direction(facts: Facts, draw: Draw, axis: str, answers: tuple[str, str]) -> Draft | None:
    if len(facts.seen) < 2:
        return None
    at = facts.x if axis == "x" else facts.y
    for _ in range(ATTEMPTS):
        i, j = two_of(facts.seen, draw)
        if at[i] > at[j]:
            i, j = j, i
        if at[j] - at[i] < DIRECTION_MARGIN or (axis, i, j) in facts.asked:
            continue
        draft = _ordered(facts, draw, i, j, answers, 0)
        if draft is not None:
            facts.ask_once(axis, i, j)
            return draft
    return None


left_of = partial(_direction, axis="x", answers=("yes", "no"))
right_of = partial(_direction, axis="x", answers=("no", "yes"))
left_or_right = partial(_direction, axis="x", answers=("left", "right"))
above = partial(_direction, axis="y", answers=("yes", "no"))
below = partial(_direction, axis="y", answers=("no", "yes"))
above_or_below = partial(_direction, axis="y", answers=("above", "below"))


def _comparison(facts: Facts, draw: Draw, answers: tuple[str, str]) -> Draft | None:
    """Names without a size; neither may a size be asked for, or used, elsewhere."""
    if len(facts.seen) < 2:
        return None
    for _ in range(ATTEMPTS):
        i, j = two_of(facts.seen, draw)
        if facts.diameter[i] > facts.diameter[j]:
            i, j = j, i
        told = facts.spoken[i] | facts.secret[i] | facts.spoken[j] | facts.secret[j]
        if facts.diameter[j] < SIZE_RATIO * facts.diameter[i] or told & _SIZE_BIT:
            continue
        draft = _ordered(facts, draw, i, j, answers, _SIZE_BIT)
        if draft is not None:
            facts.keep_secret(i, SIZE)
            facts.keep_secret(j, SIZE)
            return draft
    return None


smaller = partial(_comparison, answers=("yes", "no"))
larger = partial(_comparison, answers=("no", "yes"))
larger_or_smaller = partial(_comparison, answers=("smaller", "larger"))


def _distance(facts: Facts, i: int, j: int) -> float:
    across, down = facts.x[i] - facts.x[j], facts.y[i] - facts.y[j]
    return (across * across + down * down) ** 0.5


def nearest(facts: Facts, draw: Draw) -> Draft | None:
    """Which of two objects is nearer to a third, by their centres.

    Names have no size, because large objects keep others at a distance.
    """
    if len(facts.seen) < 3:
        return None
    for _ in range(ATTEMPTS):
        i, j = two_of(facts.seen, draw)
        k = facts.seen[int(draw() * len(facts.seen))]
        if k in (i, j) or ("nearest", k, *sorted((i, j))) in facts.asked:
            continue
        one, other = _distance(facts, i, k), _distance(facts, j, k)
        if max(one, other) < NEAREST_RATIO * min(one, other):
            continue
        names = [name(facts, thing, draw, _SIZE_BIT) for thing in (i, j, k)]
        a, b, c = names
        if a is None or b is None or c is None:
            continue
        facts.ask_once("nearest", k, *sorted((i, j)))
        fields = {"a": "the " + a, "b": "the " + b, "c": "the " + c}
        return fields, a if one < other else b, (a, b)
    return None


def _sameness(facts: Facts, draw: Draw, attribute: int) -> Draft | None:
    """Asked only where an equal and an unequal pair can be named, so that either is as likely."""
    if len(facts.space.words[attribute]) < 2:
        return None
    bit = 1 << attribute
    free = [i for i in facts.seen if not (facts.spoken[i] | facts.secret[i]) & bit]
    if len(free) < 3:
        return None
    words = facts.columns[attribute]
    by_word: dict[str, list[int]] = {}
    for i in free:
        by_word.setdefault(words[i], []).append(i)
    groups = [things for things in by_word.values() if len(things) > 1]
    if not groups or len(by_word) < 2:
        return None
    equal = two_of(groups[int(draw() * len(groups))], draw)
    unequal = equal
    while words[unequal[0]] == words[unequal[1]]:
        unequal = two_of(free, draw)
    same = draw() < 0.5
    names = {i: name(facts, i, draw, bit) for i in (*equal, *unequal)}
    if None in names.values():
        return None
    i, j = equal if same else unequal
    facts.keep_secret(i, attribute)
    facts.keep_secret(j, attribute)
    answer = "same" if same else "different"
    return {"a": f"the {names[i]}", "b": f"the {names[j]}"}, answer, SAME_DIFFERENT


same_colour = partial(_sameness, attribute=COLOUR)
same_shape = partial(_sameness, attribute=SHAPE)
same_texture = partial(_sameness, attribute=TEXTURE)


def _next(things: list[int], at: list[float], k: int, sign: int) -> int | None:
    """The thing from which `k` lies on one side (`sign`), and which is next to it among those."""
    limit = sign * at[k] - DIRECTION_MARGIN
    found, best = None, -2.0
    for m in things:
        place = sign * at[m]
        if best < place <= limit:
            found, best = m, place
    return found


def _others(facts: Facts, known: tuple[int, int, int], right: int, lower: int) -> bool:
    """Whether any unknown object does not clearly fail to be on these sides of the first two."""
    i, j, _ = known
    x_limit = right * facts.x[i] - DIRECTION_MARGIN
    y_limit = lower * facts.y[j] - DIRECTION_MARGIN
    for m in range(facts.count):
        if right * facts.x[m] > x_limit and lower * facts.y[m] > y_limit and m not in known:
            return True
    return False


def chain_attribute(facts: Facts, draw: Draw) -> Draft | None:
    """An attribute of the only object left or right of one object and above or below another.

    Every other object must clearly fail one of the two relations: it lies the margin or more on
    the other side. The names avoid the attribute asked for.
    """
    if facts.count < 3 or len(facts.seen) < 3:
        return None
    attributes = [a for a in (COLOUR, TEXTURE, SHAPE) if len(facts.space.words[a]) > 1]
    if not attributes:
        return None
    x, y = facts.x, facts.y
    attribute = attributes[int(draw() * len(attributes))]
    bit = 1 << attribute
    for _ in range(ATTEMPTS):
        k = facts.seen[int(draw() * len(facts.seen))]
        word = facts.columns[attribute][k]
        if (facts.spoken[k] | facts.secret[k]) & bit or facts.given_away(attribute, word):
            continue
        right, lower = 1 if draw() < 0.5 else -1, 1 if draw() < 0.5 else -1
        # The next object on each side excludes the most others.
        i, j = _next(facts.seen, x, k, right), _next(facts.seen, y, k, lower)
        if i is None or j is None or i == j or _others(facts, (i, j, k), right, lower):
            continue
        one, other = name(facts, i, draw, bit), name(facts, j, draw, bit)
        if one is None or other is None:
            continue
        facts.keep_secret(k, attribute)
        fields = {
            "attribute": ATTRIBUTES[attribute],
            "horizontal": "right of" if right > 0 else "left of",
            "vertical": "below" if lower > 0 else "above",
            "a": "the " + one,
            "b": "the " + other,
        }
        return fields, word, facts.space.words[attribute]
    return None


def _nearest_to(facts: Facts, i: int) -> tuple[int, float, float]:
    """The object nearest to object `i`, and the distances of it and of the next."""
    x, y = facts.x[i], facts.y[i]
    squares = [
        (across := x - other_x) * across + (down := y - other_y) * down
        for other_x, other_y in zip(facts.x, facts.y, strict=True)
    ]
    squares[i] = inf
    least = min(squares)
    k = squares.index(least)
    squares[k] = inf
    return k, least**0.5, min(squares) ** 0.5


def chain_nearest(facts: Facts, draw: Draw) -> Draft | None:
    """Whether the object nearest to one object lies left, right, above or below of another."""
    if facts.count < 3 or len(facts.seen) < 3:
        return None
    for _ in range(ATTEMPTS):
        i, j = two_of(facts.seen, draw)
        k, least, next_least = _nearest_to(facts, i)
        vertical = draw() < 0.5
        at = facts.y if vertical else facts.x
        gap = at[k] - at[j]
        key = ("y" if vertical else "x", *((k, j) if gap < 0 else (j, k)))
        if (
            k == j
            or k not in facts.seen
            or next_least < NEAREST_RATIO * least
            or abs(gap) < DIRECTION_MARGIN
            or key in facts.asked
        ):
            continue
        one, other = name(facts, i, draw), name(facts, j, draw)
        if one is None or other is None:
            continue
        facts.asked.add(key)
        yes = draw() < 0.5
        after = (gap > 0) == yes
        relation = ("below" if after else "above") if vertical else _SIDES[after]
        fields = {"a": "the " + one, "b": "the " + other, "relation": relation}
        return fields, "yes" if yes else "no", YES_NO
    return None


_SIDES = ("left of", "right of")


GROUP = Group(
    name="relational",
    label="relational",
    complexity=3,
    tier="complex",
    place=3,
    kinds={
        "left_of": Kind(left_of),
        "right_of": Kind(right_of),
        "above": Kind(above),
        "below": Kind(below),
        "larger": Kind(larger),
        "smaller": Kind(smaller),
        "left_or_right": Kind(left_or_right),
        "above_or_below": Kind(above_or_below),
        "larger_or_smaller": Kind(larger_or_smaller),
        "nearest": Kind(nearest),
        "same_colour": Kind(same_colour, tickets=2),
        "same_shape": Kind(same_shape, tickets=2),
        "same_texture": Kind(same_texture, tickets=2),
        "chain_attribute": Kind(chain_attribute, tickets=2),
        "chain_nearest": Kind(chain_nearest),
    },
    asks_for=("crowding",),
)
