"""Scoring scene graphs: parse, match objects one to one, compare attributes and relations."""

import re
from dataclasses import dataclass, field

import networkx as nx
import numpy as np
from scipy.optimize import linear_sum_assignment

from mixlens.tasks.vocabulary import COLOURS, GRID, SHAPES, TEXTURES

GED_SECONDS = 0.02
"""Time for improving the graph edit distance of one response."""

MAX_PARSED = 256
"""Objects and triplets of a response that are looked at; further ones count as wrong."""

_OBJECT = re.compile(r"y(\d) x(\d)(?: ([a-z]+))? ([a-z]+) ([a-z]+) ([a-z]+)", re.ASCII)
_TRIPLET = re.compile(r"(\d{1,3}) (left|right|above|below) (\d{1,3})", re.ASCII)

Node = tuple[int, int, tuple[str, ...]]
Triplet = tuple[int, str, int]


@dataclass(slots=True)
class SceneGraph:
    """A parsed scene graph.

    Attributes:
        nodes: per object: row, column, attributes (size, empty if none; colour; texture; shape).
        triplets: (object, "left" or "above", object), from 0; right and below are turned round.
        well_formed: whether the whole text follows the grammar in `prompts.yaml`.
        left_out: objects beyond `MAX_PARSED`.
    """

    nodes: list[Node] = field(default_factory=list)
    triplets: set[Triplet] = field(default_factory=set)
    well_formed: bool = True
    left_out: int = 0


def parse_graph(text: str) -> SceneGraph:
    """Read a scene graph; pieces that do not follow the grammar are left out.

    The order of the objects is not checked.
    """
    graph = SceneGraph()
    objects, bar, relations = text.partition(" | ")
    numbers: dict[int, int] = {}
    for number, piece in enumerate(objects.split(" ; "), 1):
        node = _node(piece)
        if node is None:
            graph.well_formed = False
        elif len(graph.nodes) == MAX_PARSED:
            graph.left_out += 1
        else:
            numbers[number] = len(graph.nodes)
            graph.nodes.append(node)
    for piece in relations.split(" ; ")[:MAX_PARSED] if bar else ():
        match = _TRIPLET.fullmatch(piece)
        ends = (numbers.get(int(match[1])), numbers.get(int(match[3]))) if match else (None, None)
        if match is None or ends[0] is None or ends[1] is None or ends[0] == ends[1]:
            graph.well_formed = False
        else:
            graph.triplets.add(_turned(ends[0], match[2], ends[1]))
    return graph


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
            (above for left) costs 1, one that points the other way 2. It is an upper bound:
            the lower cost of two matchings (the one above, and the cheapest one of the objects
            alone), improved by the depth-first search of networkx (Abu-Aisheh et al., 2015)
            until it is exact or `GED_SECONDS` have passed.

        Precision without anything in the response, recall without anything in the answer, and F1
        without both, are not defined and left out.
    """
    truth, said = parse_graph(answer), parse_graph(response)
    pairs = _match(truth.nodes, said.nodes)
    right = [(i, j) for i, j in pairs if _same_kind(truth.nodes[i], said.nodes[j])]
    exact = [(i, j) for i, j in right if truth.nodes[i][:2] == said.nodes[j][:2]]
    equal = sum(_equal_attributes(truth.nodes[i], said.nodes[j]) for i, j in pairs)
    many, said_many = len(truth.nodes), len(said.nodes) + said.left_out
    scores = {"parsed": float(said.well_formed)}
    scores.update(_rates("object", len(right), said_many, many))
    exact_rates = _rates("object_exact", len(exact), said_many, many)
    scores.update({key: rate for key, rate in exact_rates.items() if key.endswith("f1")})
    per_object = sum(1 for word in truth.nodes[0][2] if word) if many else 0
    said_words = sum(1 for node in said.nodes for word in node[2] if word)
    said_words += per_object * said.left_out
    scores.update(_rates("attribute", equal, said_words, per_object * many))

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
    scores.update(_rates("relation", correct, counted, len(truth.triplets)))
    scores["ged"] = _edit_distance(truth, said, pairs)
    return scores


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


def _substitution(one: Node, other: Node) -> float:
    differ = sum(a != b for a, b in zip(one[2], other[2], strict=True))
    return (differ + (not _close(one, other))) / 5


def _edit_distance(truth: SceneGraph, said: SceneGraph, pairs: list[tuple[int, int]]) -> float:
    one, other = _as_networkx(truth), _as_networkx(said)
    whole = one.size() + one.order() + other.size() + other.order() + said.left_out
    if not whole:
        return 0.0
    # Substituting two objects is never dearer than removing one and adding the other.
    costs = np.array([[_substitution(a, b) for b in said.nodes] for a in truth.nodes])
    rows, columns = linear_sum_assignment(costs.reshape(len(truth.nodes), len(said.nodes)))
    by_cost = list(zip(rows.tolist(), columns.tolist(), strict=True))
    cost = min(_path_cost(one, other, matching) for matching in (pairs, by_cost))
    if cost:
        better = nx.graph_edit_distance(
            one,
            other,
            node_subst_cost=lambda a, b: _substitution(a["node"], b["node"]),
            edge_subst_cost=lambda a, b: float(a["word"] != b["word"]),
            upper_bound=cost,
            timeout=GED_SECONDS,
        )
        cost = cost if better is None else min(cost, better)
    return float(cost + said.left_out) / whole


def _path_cost(
    one: "nx.DiGraph[int]", other: "nx.DiGraph[int]", matching: list[tuple[int, int]]
) -> float:
    """The cost of the edits that turn one graph into the other along a matching of objects."""
    cost = one.order() + other.order() - 2.0 * len(matching)
    cost += sum(_substitution(one.nodes[i]["node"], other.nodes[j]["node"]) for i, j in matching)
    partner = dict(matching)
    kept = 0
    for i, j, data in one.edges(data=True):
        ends = partner.get(i), partner.get(j)
        if None not in ends and other.has_edge(*ends):
            kept += 1
            cost += other.edges[ends]["word"] != data["word"]
    return cost + one.size() + other.size() - 2 * kept


def _as_networkx(graph: SceneGraph) -> "nx.DiGraph[int]":
    made: nx.DiGraph[int] = nx.DiGraph()
    for i, node in enumerate(graph.nodes):
        made.add_node(i, node=node)
    for i, word, j in sorted(graph.triplets):
        made.add_edge(i, j, word=word)
    return made
