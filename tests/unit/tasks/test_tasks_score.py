"""Scores against hand-made cases, closed forms, networkx without a limit, and all matchings."""

import itertools
import random
import time

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlens.scenes import make_scene
from mixlens.spec import SceneSpec
from mixlens.tasks import GROUPS, Turn, ask, score
from mixlens.tasks import graph_score as graphs

YES = Turn("is the star left of the ring ?", "yes", "relational", "left_of", 3, "p", ("yes", "no"))
COLOUR = Turn("?", "grey", "attribute", "colour", 2, "p", ("red", "grey", "black"))
SIZE = Turn("?", "big", "attribute", "size", 2, "p", ("big", "large"))
NEAREST = Turn("?", "circle", "relational", "nearest", 3, "p", ("circle", "red circle"))
COUNT = Turn("?", "3", "count", "count_all", 2, "p", tuple("12345"))
WHERE = Turn("?", "y3 x5", "locate", "locate", 2, "p")
GRAPH = (
    "y0 x4 medium yellow outlined pentagon ; y2 x5 large red striped square ; "
    "y3 x1 small green dotted star | 1 above 2 ; 2 right 3"
)


def graph_turn(answer: str = GRAPH) -> Turn:
    return Turn("?", answer, "scene_graph", "scene_graph", 4, "p")


@pytest.mark.parametrize(
    ("turn", "response", "exact", "relaxed"),
    [
        (YES, "yes", 1, 1),
        (YES, " yes\n", 1, 1),
        (YES, "Yes.", 0, 1),
        (YES, "Yes, the star is on that side.", 0, 1),
        (YES, "no", 0, 0),
        (YES, "yes and no", 0, 0),
        (YES, "", 0, 0),
        (YES, "yesterday", 0, 0),
        (COLOUR, "gray", 0, 1),
        (COLOUR, "The answer is grey!", 0, 1),
        (COLOUR, "grey or black", 0, 0),
        (COLOUR, "black", 0, 0),
        (SIZE, "big", 1, 1),
        (SIZE, "large", 0, 0),
        (NEAREST, "the circle", 0, 1),
        (NEAREST, "the red circle", 0, 0),
        (COUNT, "three", 0, 1),
        (COUNT, "There are 3 objects.", 0, 1),
        (COUNT, "3 or 4", 0, 0),
        (COUNT, "13", 0, 0),
        (WHERE, "y3 x5", 1, 1),
        (WHERE, "Y3, X5", 0, 1),
        (WHERE, "y4 x4", 0, 1),
        (WHERE, "y5 x5", 0, 0),
        (WHERE, "y33 x5", 0, 0),
        (WHERE, "x5 y3", 0, 0),
    ],
)
def test_exact_and_relaxed(turn, response, exact, relaxed):
    scores = score(turn, response)
    assert (scores["exact"], scores["relaxed"]) == (exact, relaxed)


def test_count_error_is_absolute_and_absent_without_a_number():
    assert score(COUNT, "about 10 objects")["count_error"] == 7
    assert score(COUNT, "zero")["count_error"] == 3
    assert "count_error" not in score(COUNT, "many")
    assert "count_error" not in score(YES, "3")


def test_location_error_is_the_distance_of_cells_as_a_fraction_of_the_side():
    assert score(WHERE, "y3 x5")["location_error"] == 0
    assert score(WHERE, "y7 x2")["location_error"] == 5 / 8
    assert "location_error" not in score(WHERE, "y8 x2")
    assert "location_error" not in score(WHERE, "somewhere")


def test_the_right_answer_of_every_kind_scores_full_marks():
    for index in range(60):
        for turn in ask(make_scene(SceneSpec(), 0, index), dict.fromkeys(GROUPS, 4), 0, index):
            scores = score(turn, turn.answer)
            errors = {key for key in scores if key.endswith("error") or key == "ged"}
            assert all(value == (0 if key in errors else 1) for key, value in scores.items())


def test_a_wrong_choice_never_counts():
    for index in range(60):
        for turn in ask(make_scene(SceneSpec(), 0, index), dict.fromkeys(GROUPS, 4), 0, index):
            for choice in set(turn.choices) - {turn.answer}:
                assert score(turn, choice)["relaxed"] == 0


def test_scene_graph_parts_by_hand():
    said = (
        "y1 x4 medium yellow solid pentagon ; y2 x5 large red striped circle ; "
        "y6 x1 small green dotted star | 2 below 1 ; 2 left 3"
    )
    scores = score(graph_turn(), said)
    # Pentagon: one cell off, right; square: wrong shape; star: too far off.
    assert scores["parsed"] == 1
    assert scores["object_precision"] == scores["object_recall"] == pytest.approx(1 / 3)
    assert scores["object_exact_f1"] == 0
    assert scores["attribute_f1"] == pytest.approx((3 + 3) / 12)
    assert scores["relation_precision"] == scores["relation_recall"] == 1 / 2
    # Two attributes and a place, each a fifth of an object, and a triplet that points the other
    # way, removed and added; of 6 objects and 4 triplets.
    assert scores["ged"] == pytest.approx((3 / 5 + 2) / 10)
    assert scores["relaxed"] == scores["exact"] == 0


def test_the_order_of_objects_does_not_matter():
    said = (
        "y3 x1 small green dotted star ; y0 x4 medium yellow outlined pentagon ; "
        "y2 x5 large red striped square | 3 below 2 ; 1 left 3"
    )
    scores = score(graph_turn(), said)
    assert scores["relaxed"] == 1
    assert scores["exact"] == scores["ged"] == 0


def test_a_missing_object_and_an_invented_one():
    one, two = GRAPH.split(" | ")[0].split(" ; ")[:2]
    scores = score(graph_turn(), f"{one} ; {two} | 1 above 2")
    assert (scores["object_precision"], scores["object_recall"]) == (1, pytest.approx(2 / 3))
    assert scores["relation_recall"] == 1 / 2
    assert scores["ged"] == pytest.approx(2 / (5 + 3))
    scores = score(graph_turn(f"{one} ; {two}"), GRAPH.split(" | ")[0])
    assert (scores["object_precision"], scores["object_recall"]) == (pytest.approx(2 / 3), 1)


def test_a_triplet_about_a_near_tie_is_not_counted():
    objects, relations = GRAPH.split(" | ")
    answer = f"{objects} | {relations.split(' ; ')[0]}"
    assert score(graph_turn(answer), GRAPH)["relation_f1"] == 1
    # A triplet between objects that do not follow each other is simply wrong.
    assert score(graph_turn(answer), GRAPH + " ; 1 right 3")["relation_precision"] == 1 / 2


@pytest.mark.parametrize(
    "said",
    [
        GRAPH.replace("pentagon", "octagon"),
        GRAPH.replace("y0", "y8"),
        GRAPH.replace("2 right 3", "2 right 4"),
        GRAPH.replace("2 right 3", "2 right 2"),
        GRAPH.replace("2 right 3", "right"),
        GRAPH + " ;",
        GRAPH.replace(" ; ", ", "),
        "",
    ],
)
def test_what_breaks_the_grammar_is_not_parsed(said):
    assert score(graph_turn(), said)["parsed"] == 0


def test_endless_responses_are_scored_quickly_and_low():
    endless = " ; ".join(["y0 x4 medium yellow outlined pentagon"] * 4000)
    scores = score(graph_turn(), endless)
    assert scores["object_precision"] == 1 / 4000
    assert scores["ged"] > 0.99
    assert score(COUNT, "9" * 10_000)["relaxed"] == 0


def _random_graph(rng: random.Random, size: int, chain: bool = True) -> str:
    objects = " ; ".join(
        f"y{rng.randrange(8)} x{rng.randrange(8)} {rng.choice(('small', 'large'))} "
        f"{rng.choice(('red', 'blue'))} {rng.choice(('solid', 'dotted'))} "
        f"{rng.choice(('star', 'ring'))}"
        for _ in range(size)
    )
    ends = list(itertools.pairwise(range(1, size + 1)))
    if not chain:
        ends = [
            pair for pair in itertools.permutations(range(1, size + 1), 2) if rng.random() < 0.4
        ]
    pairs = [f"{i} {rng.choice(('left', 'above'))} {j}" for i, j in ends]
    return f"{objects} | {' ; '.join(pairs)}" if pairs else objects


def _as_networkx(text: str) -> nx.DiGraph:
    graph = nx.DiGraph()
    objects, _, triplets = text.partition(" | ")
    for k, words in enumerate(objects.split(" ; "), 1):
        row, column, *attributes = words.split()
        graph.add_node(k, cell=(int(row[1]), int(column[1])), attributes=attributes)
    for first, word, second in (t.split() for t in triplets.split(" ; ") if t):
        graph.add_edge(int(first), int(second), word=word)
    return graph


def _node_cost(a: dict, b: dict) -> float:
    """The cost of substituting an object, written anew."""
    off = max(abs(a["cell"][0] - b["cell"][0]), abs(a["cell"][1] - b["cell"][1])) > 1
    differ = sum(p != q for p, q in zip(a["attributes"], b["attributes"], strict=True))
    return (differ + off) / 5


def _least_of_all_matchings(one: nx.DiGraph, other: nx.DiGraph) -> float:
    """The edit distance by trying every partner, or none, for every object."""
    nothing = one.size() + one.order() + other.size() + other.order()
    free = [None] * one.order()
    least = nothing
    for partners in set(itertools.permutations([*other, *free], one.order())):
        partner = dict(zip(one, partners, strict=True))
        cost = nothing
        for i, j in partner.items():
            cost -= 0 if j is None else 2 - _node_cost(one.nodes[i], other.nodes[j])
        for i, j, data in one.edges(data=True):
            if other.has_edge(partner[i], partner[j]):
                cost -= 2 - (other.edges[partner[i], partner[j]]["word"] != data["word"])
        least = min(least, cost)
    return least / nothing


def test_the_edit_distance_is_that_of_networkx():
    rng = random.Random(0)
    for sizes in itertools.product((1, 2, 3, 4), repeat=2):
        texts = [_random_graph(rng, size) for size in sizes]
        one, other = map(_as_networkx, texts)
        distance = nx.graph_edit_distance(
            one,
            other,
            node_subst_cost=_node_cost,
            edge_subst_cost=lambda a, b: a["word"] != b["word"],
        )
        whole = one.size() + one.order() + other.size() + other.order()
        scores = graphs.score_graph(*texts)
        assert scores["ged"] == pytest.approx(distance / whole)
        assert scores["ged_exact"] == scores["ged_in_time"] == 1


@pytest.mark.parametrize("chain", [True, False])
def test_the_edit_distance_is_the_least_of_all_matchings(chain):
    rng = random.Random(1)
    for sizes in [(3, 5), (5, 3), (4, 4), (1, 6), (5, 4)] * 3:
        texts = [_random_graph(rng, size, chain) for size in sizes]
        scores = graphs.score_graph(*texts)
        assert scores["ged"] == pytest.approx(_least_of_all_matchings(*map(_as_networkx, texts)))
        assert scores["ged_exact"] == 1


def test_answers_of_up_to_seven_objects_get_their_exact_distance():
    rng = random.Random(2)
    for size in range(1, 8):
        texts = _random_graph(rng, 7), _random_graph(rng, size)
        for answer, said in (texts, texts[::-1]):
            scores = graphs.score_graph(answer, said)
            assert scores["ged_exact"] == scores["ged_in_time"] == 1
            # The distance of two graphs is symmetric; the search is not.
            assert scores["ged"] == pytest.approx(graphs.score_graph(said, answer)["ged"])


def test_with_less_work_the_edit_distance_is_an_upper_bound_that_says_so(monkeypatch):
    rng = random.Random(3)
    pairs = [(_random_graph(rng, 6), _random_graph(rng, 6)) for _ in range(20)]
    exact = [graphs.score_graph(*pair)["ged"] for pair in pairs]
    monkeypatch.setattr(graphs, "GED_STEPS", 200)
    found = [graphs.score_graph(*pair) for pair in pairs]
    higher = [s["ged"] > e + 1e-9 for s, e in zip(found, exact, strict=True)]
    assert all(e - 1e-9 <= s["ged"] <= 1 for s, e in zip(found, exact, strict=True))
    assert any(higher)
    assert not any(s["ged_exact"] for s, above in zip(found, higher, strict=True) if above)
    assert all(s["ged_in_time"] for s in found)


def test_a_search_that_the_time_limit_cuts_off_says_so(monkeypatch):
    rng = random.Random(4)
    one, other = _random_graph(rng, 6), _random_graph(rng, 6)
    exact = graphs.score_graph(one, other)
    monkeypatch.setattr(graphs, "GED_SECONDS", -1.0)
    cut = graphs.score_graph(one, other)
    assert (cut["ged_in_time"], cut["ged_exact"]) == (0, 0)
    assert exact["ged"] <= cut["ged"] <= 1


def test_the_largest_graphs_end_by_their_work_long_before_the_time_limit():
    rng = random.Random(5)
    texts = _random_graph(rng, graphs.MAX_PARSED), _random_graph(rng, graphs.MAX_PARSED)
    for answer, said in ((_random_graph(rng, 12), texts[0]), texts):
        started = time.process_time()
        scores = graphs.score_graph(answer, said)
        assert time.process_time() - started < graphs.GED_SECONDS / 4
        assert (scores["ged_in_time"], scores["ged_exact"]) == (1, 0)


TURNS = [
    turn
    for index in range(8)
    for turn in ask(make_scene(SceneSpec(), 0, index), dict.fromkeys(GROUPS, 3), 0, index)
]
PIECES = st.sampled_from(
    [*(" ", " ; ", " | ", "y3 x5", "y9", "x", "large red striped circle", "red", "1 left 2"),
     *("0 above 999", "yes", "no", "three", "-1", "²", "٣", "Y3 X5", "the", "\n", "9" * 30)]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(TURNS),
    st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=30).map(" ".join)),
)
def test_no_response_raises(turn, response):
    scores = score(turn, response)
    assert {"exact", "relaxed"} <= set(scores)
    assert all(isinstance(value, float) and value >= 0 for value in scores.values())
    assert all(
        value <= 1 for key, value in scores.items() if key not in ("count_error", "location_error")
    )
