"""What is true of a photograph, by plain Python over its objects, to hold questions against."""

import re
from collections import Counter
from fractions import Fraction
from itertools import combinations, pairwise

from mixlens.tasks import Turn
from mixlens.tasks.photo import Categories, Photo
from mixlens.tasks.prompts import photo_prompts

DIRECTIONS = {
    "left_of": (0, "yes", "no"),
    "right_of": (0, "no", "yes"),
    "left_or_right": (0, "left", "right"),
    "above": (1, "yes", "no"),
    "below": (1, "no", "yes"),
    "above_or_below": (1, "above", "below"),
}
SIZES = {
    "smaller": ("yes", "no"),
    "larger": ("no", "yes"),
    "larger_or_smaller": ("smaller", "larger"),
}


class Thing:
    """One object; places are shares of width and height."""

    def __init__(self, photo: Photo, categories: Categories, i: int) -> None:
        self.i = i
        self.category = " ".join(categories.names[photo.category[i]].split())
        self.group = " ".join(categories.supercategories[photo.category[i]].split())
        x0, y0, x1, y1 = (float(value) for value in photo.boxes[i])
        self.low, self.high = (
            (x0 / photo.width, y0 / photo.height),
            (x1 / photo.width, y1 / photo.height),
        )
        self.box = (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
        self.mask = float(photo.area[i]) / (photo.width * photo.height)
        self.crowd = bool(photo.crowd[i])
        self.seen = not self.crowd and self.mask >= 0.001

    def centre(self, axis: int) -> float:
        return (self.low[axis] + self.high[axis]) / 2

    def clearly_larger(self, other: "Thing") -> bool:
        return self.box >= 1.44 * other.box and self.mask >= 1.44 * other.mask

    def clearly_before(self, other: "Thing", axis: int) -> bool:
        shared = min(self.high[axis], other.high[axis]) - max(self.low[axis], other.low[axis])
        narrower = min(t.high[axis] - t.low[axis] for t in (self, other))
        apart = other.centre(axis) - self.centre(axis) >= 0.08
        return apart and shared <= 0.5 * narrower


def things_of(photo: Photo, categories: Categories) -> list[Thing]:
    return [Thing(photo, categories, i) for i in range(len(photo.category))]


def forms(thing: Thing, things: list[Thing]) -> set[str]:
    """`plain`, `leftmost`, `rightmost`, `largest`: the names that mean this object alone."""
    rivals = [t for t in things if t.category == thing.category and t is not thing]
    if not thing.seen or not thing.category or any(rival.crowd for rival in rivals):
        return set()
    if not rivals:
        return {"plain"}
    found = set()
    if all(rival.centre(0) - thing.centre(0) >= 0.08 for rival in rivals):
        found.add("leftmost")
    if all(thing.centre(0) - rival.centre(0) >= 0.08 for rival in rivals):
        found.add("rightmost")
    if all(thing.clearly_larger(rival) for rival in rivals):
        found.add("largest")
    return found


def meant(name: str, things: list[Thing]) -> tuple[Thing, str]:
    """The only object that a name fits, and the form of the name."""
    found = re.fullmatch(r"the (?:(leftmost|rightmost|largest) )?(.+)", name)
    assert found, name
    form, category = found[1] or "plain", found[2]
    fitting = [t for t in things if t.category == category and form in forms(t, things)]
    assert len(fitting) == 1, (name, [t.category for t in things])
    return fitting[0], form


def fields(turn: Turn) -> dict[str, str]:
    """What the phrasing of a question was filled with."""
    template = dict(photo_prompts()[turn.prompt.rpartition(".")[0]])[turn.prompt]
    pattern = re.sub(r"%\\\((\w+)\\\)s", r"(?P<\1>.+)", re.escape(template))
    found = re.fullmatch(pattern, turn.question)
    assert found, (template, turn.question)
    return found.groupdict()


def true_answer(turn: Turn, photo: Photo, categories: Categories) -> str | None:
    """The answer by the geometry; None where there is not exactly one that is clear."""
    things, said = things_of(photo, categories), fields(turn)
    if turn.kind in DIRECTIONS:
        axis, first, second = DIRECTIONS[turn.kind]
        (a, form_a), (b, form_b) = (meant(said[key], things) for key in "ab")
        if axis == 0:
            assert {form_a, form_b} <= {"plain", "largest"}
        if a.clearly_before(b, axis):
            return first
        return second if b.clearly_before(a, axis) else None
    if turn.kind in SIZES:
        (a, form_a), (b, form_b) = (meant(said[key], things) for key in "ab")
        assert "largest" not in (form_a, form_b)
        if b.clearly_larger(a):
            return SIZES[turn.kind][0]
        return SIZES[turn.kind][1] if a.clearly_larger(b) else None
    if turn.kind == "size_class":
        thing, form = meant(said["a"], things)
        assert form != "largest"
        ranges = {"small": (0, 0.01), "medium": (0.02, 0.08), "large": (0.16, 2)}
        fitting = [word for word, (low, high) in ranges.items() if low <= thing.mask <= high]
        return fitting[0] if fitting else None
    if turn.kind == "count_category":
        return true_counts(things).get(said["word"])
    if turn.kind == "presence":
        there = [thing for thing in things if thing.category == said["word"]]
        if any(thing.seen or thing.crowd for thing in there):
            return "yes"
        return None if there else "no"
    if turn.kind == "largest":
        return true_largest(things)
    if turn.kind == "dominant":
        return true_dominant(things)
    if turn.kind in ("locate", "box"):
        thing, form = meant(said["a"], things)
        assert form in ("plain", "largest")
        if turn.kind == "locate":
            return f"y{min(int(thing.centre(1) * 8), 7)} x{min(int(thing.centre(0) * 8), 7)}"
        sides = (photo.width, photo.height) * 2
        corners = zip(photo.boxes[thing.i].tolist(), sides, strict=True)
        return " ".join(str(round(100 * Fraction(value) / side)) for value, side in corners)
    if turn.kind == "category_graph":
        return true_graph(things)
    raise AssertionError(turn.kind)


def true_counts(things: list[Thing]) -> dict[str, str]:
    many = Counter(thing.category for thing in things)
    blurred = {thing.category for thing in things if not thing.seen or not thing.category}
    return {c: str(n) for c, n in many.items() if c not in blurred and n <= 10}


def true_largest(things: list[Thing]) -> str | None:
    if len(things) < 2 or any(thing.crowd for thing in things):
        return None
    for thing in things:
        if thing.seen and all(t is thing or thing.clearly_larger(t) for t in things):
            return thing.category or None
    return None


def true_dominant(things: list[Thing]) -> str | None:
    covered: Counter = Counter()
    for thing in things:
        if not thing.group:
            return None
        covered[thing.group] += thing.mask
    ranked = [*covered.most_common(2), ("", 0.0), ("", 0.0)]
    (most, area), (_, second) = ranked[:2]
    return most if area >= 0.001 and area >= 1.2 * second else None


def true_graph(things: list[Thing]) -> str | None:
    fine = all(t.seen and t.category and not {";", "|"} & set(t.category) for t in things)
    if not fine or not 2 <= len(things) <= 12:
        return None
    cell = {t: tuple(min(int(t.centre(axis) * 8), 7) for axis in (1, 0)) for t in things}
    order = sorted(things, key=lambda t: (*cell[t], t.centre(0), t.centre(1)))
    text = " ; ".join(f"y{cell[t][0]} x{cell[t][1]} {t.category}" for t in order)
    triplets = []
    for n, (one, other) in enumerate(pairwise(order), 1):
        gaps = [other.centre(axis) - one.centre(axis) for axis in (0, 1)]
        longer, shorter = sorted((abs(gap) for gap in gaps), reverse=True)
        if longer >= 0.08 and longer - shorter >= 0.04:
            axis = 0 if abs(gaps[0]) == longer else 1
            words = (("left", "right"), ("above", "below"))[axis]
            triplets.append(f"{n} {words[gaps[axis] < 0]} {n + 1}")
    return f"{text} | {' ; '.join(triplets)}" if triplets else text


def true_pairs(things: list[Thing], kind: str) -> set[tuple[int, int]]:
    """Pairs that can be compared, the one further left, further up or smaller first."""
    banned = {"horizontal": {"leftmost", "rightmost"}, "size": {"largest"}}.get(kind, set())
    named = [thing for thing in things if forms(thing, things) - banned]
    found = set()
    for a, b in combinations(named, 2):
        for one, other in ((a, b), (b, a)):
            if kind == "size":
                holds = other.clearly_larger(one)
            else:
                holds = one.clearly_before(other, int(kind == "vertical"))
            if holds:
                found.add((one.i, other.i))
    return found
