"""Scoring scene graphs: parse, match objects one to one, compare attributes and relations."""

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from mixlens.tasks.vocabulary import COLOURS, GRID, SHAPES, TEXTURES

GED_STEPS = 50_000
"""Work on the graph edit distance of one response: pairs of objects that may be tried."""

GED_SECONDS = 10.0
"""Time limit for the same, a guard: `GED_STEPS` take a tenth of a second."""

MAX_PARSED = 256
"""Objects and triplets of a response that are looked at; further ones count as wrong."""

_THING = re.compile(r"y([0-7]) x([0-7]) (\S(?:.*\S)?)", re.ASCII)
_OBJECT = re.compile(r"y(\d) x(\d)(?: ([a-z]+))? ([a-z]+) ([a-z]+) ([a-z]+)", re.ASCII)
_TRIPLET = re.compile(r"(\d{1,3}) (left|right|above|below) (\d{1,3})", re.ASCII)

Node = tuple[int, int, tuple[str, ...]]
Triplet = tuple[int, str, int]


@dataclass(slots=True)
class SceneGraph:
    """A parsed scene graph.

    Attributes:
        nodes: per object: row, column, attributes (size, empty if none; colour; texture; shape),
            or for a graph of categories the category alone.
        triplets: (object, "left" or "above", object), from 0; right and below are turned round.
        well_formed: whether the whole text follows the grammar in `prompts.yaml`.
        left_out: objects beyond `MAX_PARSED`.
    """

    nodes: list[Node] = field(default_factory=list)
    triplets: set[Triplet] = field(default_factory=set)
    well_formed: bool = True
    left_out: int = 0


def _node(piece: str) -> Node | None:
    match = _OBJECT.fullmatch(piece)
    if match is None:
        return None
    row, column, size, colour, texture, shape = match.groups()
    if colour not in COLOURS or texture not in TEXTURES or shape not in SHAPES:
        return None
    if int(row) >= GRID or int(column) >= GRID:
        return None
    return int(row), int(column), (size or "", colour, texture, shape)


def _thing(piece: str) -> Node | None:
    match = _THING.fullmatch(piece)
    return (int(match[1]), int(match[2]), (match[3],)) if match else None


def parse_graph(text: str, node: Callable[[str], Node | None] = _node) -> SceneGraph:
    """Read a scene graph; pieces that do not follow the grammar are left out.

    The order of the objects is not checked. `node` reads one object.
    """
    graph = SceneGraph()
    objects, bar, relations = text.partition(" | ")
    numbers: dict[int, int] = {}
    for number, piece in enumerate(objects.split(" ; "), 1):
        found = node(piece)
        if found is None:
            graph.well_formed = False
        elif len(graph.nodes) == MAX_PARSED:
            graph.left_out += 1
        else:
            numbers[number] = len(graph.nodes)
            graph.nodes.append(found)
    for piece in relations.split(" ; ")[:MAX_PARSED] if bar else ():
        match = _TRIPLET.fullmatch(piece)
        ends = (numbers.get(int(match[1])), numbers.get(int(match[3]))) if match else (None, None)
        if match is None or ends[0] is None or ends[1] is None or ends[0] == ends[1]:
            graph.well_formed = False
        else:
            graph.triplets.add(_turned(ends[0], match[2], ends[1]))
    return graph


def _turned(i: int, word: str, j: int) -> Triplet:
    if word in ("right", "below"):
        return j, "left" if word == "right" else "above", i
    return i, word, j


def score_graph(answer: str, response: str) -> dict[str, float]:
    """Compare two scene graphs; a malformed response scores low and never raises.

    Objects of the response are matched one to one with objects of the answer at most one cell
    away in each direction, by the assignment (Hungarian method) with the most pairs of equal
    shape and colour, then the most equal attributes, then the most equal cells.

    Returns:
        parsed: 1 if the whole response follows the grammar.
        object_precision, object_recall, object_f1: a match is right if shape and colour are.
        object_exact_f1: the same, but the cell must be equal too.
        attribute_precision, attribute_recall, attribute_f1: equal attributes (size, colour,
            texture, shape) of matched objects, over all attributes of the response, or answer.
        relation_precision, relation_recall, relation_f1: triplets whose objects are matched and
            stand in the same relation in the answer, over all triplets of the response, or
            answer; `1 left 2` and `2 right 1` are the same. A triplet of the response between
            consecutive objects for which the answer has none is about a near-tie: not counted.
        ged: graph edit distance over the cost of deleting one graph and inserting the other,
            0 (equal) to 1. Inserting or deleting an object or a triplet costs 1; substituting an
            object costs 1/5 for each of size, colour, texture, shape and cell (more than one
            cell off) that differs; another relation of the same direction
            (above for left) costs 1, one that points the other way 2.
        ged_exact: 1 if `ged` is the distance; 0 if it is an upper bound, the best of what
            `GED_STEPS` allowed to try. For an answer and a response of up to 7 objects, with
            triplets between neighbours in the answer, it is always exact.
        ged_in_time: 1, or 0 if `GED_SECONDS` cut the search off. Only then could `ged` and
            `ged_exact` be others on another machine.

        Precision without anything in the response, recall without anything in the answer, and F1
        without both, are not defined and left out.
    """
    truth, said = parse_graph(answer), parse_graph(response)
    pairs = _match(truth.nodes, said.nodes)
    equal = sum(_equal_attributes(truth.nodes[i], said.nodes[j]) for i, j in pairs)
    many = len(truth.nodes)
    scores = {"parsed": float(said.well_formed)} | _object_rates(truth, said, pairs)
    per_object = sum(1 for word in truth.nodes[0][2] if word) if many else 0
    said_words = sum(1 for node in said.nodes for word in node[2] if word)
    said_words += per_object * said.left_out
    scores.update(_rates("attribute", equal, said_words, per_object * many))

    scores.update(_relation_rates(truth, said, pairs))
    scores.update(_edit_distance(truth, said, pairs))
    return scores


def score_category_graph(answer: str, response: str) -> dict[str, float]:
    """Compare two graphs of categories; a malformed response scores low and never raises.

    Objects are matched as in `score_graph`, with the category in place of shape and colour.

    Returns:
        parsed, object_precision, object_recall, object_f1, object_exact_f1, relation_precision,
        relation_recall and relation_f1, as of `score_graph`.
    """
    truth, said = parse_graph(answer, _thing), parse_graph(response, _thing)
    pairs = _match(truth.nodes, said.nodes)
    return (
        {"parsed": float(said.well_formed)}
        | _object_rates(truth, said, pairs)
        | _relation_rates(truth, said, pairs)
    )


def _object_rates(
    truth: SceneGraph, said: SceneGraph, pairs: list[tuple[int, int]]
) -> dict[str, float]:
    many, said_many = len(truth.nodes), len(said.nodes) + said.left_out
    right = [(i, j) for i, j in pairs if _same_kind(truth.nodes[i], said.nodes[j])]
    exact = [(i, j) for i, j in right if truth.nodes[i][:2] == said.nodes[j][:2]]
    exact_rates = _rates("object_exact", len(exact), said_many, many)
    return _rates("object", len(right), said_many, many) | {
        key: rate for key, rate in exact_rates.items() if key.endswith("f1")
    }


def _relation_rates(
    truth: SceneGraph, said: SceneGraph, pairs: list[tuple[int, int]]
) -> dict[str, float]:
    partner = {j: i for i, j in pairs}
    stated = {(i, j) for i, _, j in truth.triplets}
    correct = counted = 0
    for first, word, second in said.triplets:
        i, j = partner.get(first), partner.get(second)
        if i is not None and j is not None:
            if abs(i - j) == 1 and (i, j) not in stated and (j, i) not in stated:
                continue
            correct += (i, word, j) in truth.triplets
        counted += 1
    return _rates("relation", correct, counted, len(truth.triplets))


def _rates(part: str, right: int, said: int, there: int) -> dict[str, float]:
    rates = {}
    if said:
        rates[f"{part}_precision"] = right / said
    if there:
        rates[f"{part}_recall"] = right / there
    if said + there:
        rates[f"{part}_f1"] = 2 * right / (said + there)
    return rates


def _close(one: Node, other: Node) -> bool:
    return abs(one[0] - other[0]) <= 1 and abs(one[1] - other[1]) <= 1


def _same_kind(one: Node, other: Node) -> bool:
    if len(one[2]) == 1:
        return one[2] == other[2]
    return one[2][1] == other[2][1] and one[2][3] == other[2][3]


def _equal_attributes(one: Node, other: Node) -> int:
    return sum(a == b != "" for a, b in zip(one[2], other[2], strict=True))


def _match(truth: list[Node], said: list[Node]) -> list[tuple[int, int]]:
    """Pairs (object of the answer, object of the response), one to one, one cell apart at most."""
    worth = np.zeros((len(truth), len(said)))
    for i, one in enumerate(truth):
        for j, other in enumerate(said):
            if _close(one, other):
                # More than all lesser merits of a whole matching could outweigh.
                worth[i, j] = (
                    1e6 * _same_kind(one, other)
                    + 1e3 * _equal_attributes(one, other)
                    + (one[:2] == other[:2])
                    + 0.1
                )
    rows, columns = linear_sum_assignment(worth, maximize=True)
    return [(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if worth[i, j] > 0]


def _edit_distance(
    truth: SceneGraph, said: SceneGraph, pairs: list[tuple[int, int]]
) -> dict[str, float]:
    """The three scores of `score_graph` that begin with ged; `pairs` is a first matching."""
    ends = len(truth.nodes) + len(truth.triplets), len(said.nodes) + len(said.triplets)
    whole = sum(ends) + said.left_out
    scores = {"ged": 0.0, "ged_exact": 1.0, "ged_in_time": 1.0}
    if not whole:
        return scores
    saved, exact, in_time = _most_saved(truth, said, pairs)
    scores["ged"] = (whole - saved / _UNIT) / whole
    scores["ged_exact"], scores["ged_in_time"] = float(exact and not said.left_out), float(in_time)
    return scores


_UNIT = 5  # what an insertion or deletion costs: costs are counted in fifths, in whole numbers


def _most_saved(
    truth: SceneGraph, said: SceneGraph, pairs: list[tuple[int, int]]
) -> tuple[int, bool, bool]:
    """The most that a matching of objects saves over deleting one graph and inserting the other.

    Objects of the answer get a partner or none, one after the other. Partial matchings that have
    used the same objects, and gave the same partners to those of which triplets are still to come,
    go on in the same ways, so that only the best of them is kept (Held and Karp, 1962): in an
    answer each object has triplets with its neighbours only, and few are left. Those that cannot
    come to save more than the best matching known are dropped, and beyond what `GED_STEPS` allows,
    those that have saved least.

    Returns:
        What is saved, fifths; whether nothing saves more; whether it ended before `GED_SECONDS`.
    """
    many, others = len(truth.nodes), len(said.nodes)
    worth = np.array([[_kept(one, other) for other in said.nodes] for one in truth.nodes])
    worth = worth.reshape(many, others)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    by_worth = list(zip(rows.tolist(), columns.tolist(), strict=True))
    words = {(i, j): word for i, word, j in said.triplets}

    def saved_by(word: str, first: int, second: int) -> int:
        """By keeping a triplet of the answer between these partners, or turning its word."""
        there = words.get((first, second))
        return 0 if there is None else 2 * _UNIT - _UNIT * (there != word)

    def saved(matching: list[tuple[int, int]]) -> int:
        partner = dict(matching)
        return sum(int(worth[pair]) for pair in matching) + sum(
            saved_by(word, partner.get(i, -1), partner.get(j, -1)) for i, word, j in truth.triplets
        )

    best = max(saved(pairs), saved(by_worth))
    # Triplets by their later object, and the last object each one is needed for.
    closing: list[list[Triplet]] = [[] for _ in range(many)]
    needed = list(range(many))
    for triplet in sorted(truth.triplets):
        early, late = sorted((triplet[0], triplet[2]))
        closing[late].append(triplet)
        needed[early] = max(needed[early], late)
    # The most that can still be saved from each object on: by objects alone, and by triplets alone.
    rest = [0] * (many + 1)
    to_come: Counter[str] = Counter()
    for i in reversed(range(many)):
        to_come.update(word for _, word, _ in closing[i])
        by_objects = worth[i:][linear_sum_assignment(worth[i:], maximize=True)].sum()
        equal, any_word = (to_come & Counter(words.values())).total(), len(words)
        by_triplets = _UNIT * (equal + min(to_come.total(), any_word))
        rest[i] = int(by_objects) + by_triplets

    width = max(1, GED_STEPS // (max(1, many) * (others + 1)))
    stop = time.monotonic() + GED_SECONDS
    worths, dropped = worth.tolist(), 0  # the most that what was dropped could have come to save
    states: dict[tuple[int, ...], int] = {(0,): 0}  # used objects as bits, partners -> saved
    held: list[int] = []  # the objects whose partners the states hold
    for i in range(many):
        if time.monotonic() > stop:
            return best, False, False
        if len(states) > width:
            ordered = sorted(states.items(), key=lambda state: (-state[1], state[0]))
            states = dict(ordered[:width])
            dropped = max(dropped, ordered[width][1] + rest[i])
        place = {k: at for at, k in enumerate([*held, i], 1)}
        stay = [place[k] for k in place if needed[k] > i]
        held = [k for k in place if needed[k] > i]
        triplets = [(place[first], word, place[second]) for first, word, second in closing[i]]
        following: dict[tuple[int, ...], int] = {}
        for state, before in states.items():
            used = state[0]
            for j in range(-1, others):
                if j >= 0 and used >> j & 1:
                    continue
                partners = (*state, j)
                now = before + (worths[i][j] if j >= 0 else 0)
                for first, word, second in triplets:
                    now += saved_by(word, partners[first], partners[second])
                if now + rest[i + 1] <= best:
                    continue
                key = (used | 1 << j if j >= 0 else used, *[partners[at] for at in stay])
                if now > following.get(key, -1):
                    following[key] = now
        states = following
    best = max(best, *states.values(), 0)
    return best, dropped <= best, True


def _kept(one: Node, other: Node) -> int:
    """Fifths that substituting an object saves over deleting it and inserting the other."""
    differ = sum(a != b for a, b in zip(one[2], other[2], strict=True))
    return 2 * _UNIT - differ - (not _close(one, other))
