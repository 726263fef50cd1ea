"""Scores of answers about photographs: boxes, graphs of categories, and names of any kind."""

import random

import numpy as np
import pytest
from made_photos import CATEGORIES, make_photos
from pycocotools import mask as coco_mask

from mixlens.tasks import Turn, score
from mixlens.tasks.photo import PHOTO_KINDS

PHOTOS = make_photos(300, 6)


def turn(kind, answer, choices=(), group="locate"):
    return Turn("?", answer, group, kind, 2, f"{kind}.0", choices)


def test_a_right_answer_has_full_marks_whatever_its_kind():
    seen = set()
    for i in range(len(PHOTOS)):
        for one in PHOTOS.ask(i, dict.fromkeys(PHOTO_KINDS, 4)):
            seen.add(one.kind)
            scores = score(one, f" {one.answer}\n")
            assert scores["exact"] == scores["relaxed"] == 1
            assert scores.get("iou", 1) == scores.get("object_f1", 1) == 1
            assert scores.get("relation_f1", 1) == scores.get("parsed", 1) == 1
            assert scores.get("count_error", 0) == scores.get("location_error", 0) == 0
            assert ("count_error" in scores) == (one.group == "count")
    assert len(seen) == sum(len(kinds) for kinds in PHOTO_KINDS.values())


def test_overlap_of_boxes_is_that_of_pycocotools():
    draw = np.random.default_rng(0)
    for _ in range(300):
        corners = draw.integers(0, 101, (2, 2, 2))
        low, high = corners.min(1), corners.max(1) + 1
        one, other = (np.concatenate((low[k], high[k])) for k in range(2))
        wide = [[*box[:2], *(box[2:] - box[:2])] for box in (one, other)]
        wanted = coco_mask.iou(np.array([wide[0]], float), np.array([wide[1]], float), [0])[0, 0]
        said = "the box is [{}, {}, {}, {}]".format(*other)
        scores = score(turn("box", " ".join(map(str, one))), said)
        assert scores["iou"] == pytest.approx(wanted)
        assert scores["relaxed"] == (wanted >= 0.5)
        assert scores["exact"] == 0


@pytest.mark.parametrize(
    ("said", "iou"),
    [
        ("10 10 30 30", 1),
        ("(10.0, 10.0) to (30.0, 20.0)", 0.5),
        ("30 30 10 10", 0),  # no box: its corners are the wrong way round
        ("10 10 30", 0),
        ("", 0),
        ("left", 0),
        ("10 10 30 30 50 60", 1),
        ("30 10 50 30", 0),
        ("9999999999999999999999 1 2 3", 0),
        ("1e400 nan inf -inf", 0),
    ],
)
def test_malformed_boxes_score_low(said, iou):
    assert score(turn("box", "10 10 30 30"), said)["iou"] == iou


GRAPH = "y1 x1 dog ; y1 x5 traffic light ; y6 x2 dog | 1 left 2 ; 2 above 3"


@pytest.mark.parametrize(
    ("said", "objects", "relations", "parsed"),
    [
        (GRAPH, 1, 1, 1),
        # Any order, one cell off, the same relation said the other way round.
        ("y5 x2 dog ; y1 x6 traffic light ; y1 x1 dog | 2 right 3 ; 1 below 2", 1, 1, 1),
        ("y1 x1 cat ; y1 x5 traffic light ; y6 x2 dog | 1 left 2 ; 2 above 3", 2 / 3, 1, 1),
        ("y1 x1 dog ; y1 x5 traffic light ; y6 x2 dog", 1, 0, 1),
        ("y1 x1 dog ; y1 x5 traffic light ; y6 x2 dog | 2 left 1 ; 2 above 3", 1, 0.5, 1),
        ("y1 x1 dog", 0.5, 0, 1),
        ("y1 x4 dog ; y1 x5 traffic light ; y6 x2 dog | 1 left 2 ; 2 above 3", 2 / 3, 0.5, 1),
        ("dogs and lights", 0, 0, 0),
        ("", 0, 0, 0),
        ("y8 x1 dog", 0, 0, 0),
        (GRAPH + " | 1 left 2", 1, 2 / 3, 0),
    ],
)
def test_graphs_of_categories(said, objects, relations, parsed):
    scores = score(turn("category_graph", GRAPH, (), "scene_graph"), said)
    assert scores["object_f1"] == pytest.approx(objects)
    assert scores["relation_f1"] == pytest.approx(relations)
    assert scores["parsed"] == parsed
    assert scores["relaxed"] == (objects == relations == 1)
    assert "ged" not in scores
    assert "attribute_f1" not in scores


def test_no_response_raises():
    draw = random.Random(0)
    pieces = [*"yx 0123456789;|.,()[]-\n\t\0", "left", "dog", " ; ", " | ", "y1 x1 dog", "é", "٣"]
    kinds = [("box", "10 10 30 30"), ("category_graph", GRAPH), ("count_category", "3"),
             ("largest", "dog"), ("photo_caption", "A dog ."), ("locate", "y1 x2")]  # fmt: skip
    for _ in range(1500):
        said = "".join(draw.choice(pieces) for _ in range(draw.randrange(40)))
        for kind, answer in kinds:
            group = next(g for g, own in PHOTO_KINDS.items() if kind in own)
            choices = CATEGORIES.names if kind == "largest" else ()
            for value in score(turn(kind, answer, choices, group), said).values():
                assert np.isfinite(value)


@pytest.mark.parametrize(
    ("answer", "said", "relaxed"),
    [
        ("dining table", "The largest object is a dining table.", 1),
        ("hot dog", "it is the hot dog", 1),
        ("dog", "it is the hot dog", 0),
        ("dog", "a dog or a cup", 0),
        ("café", "the café", 1),
        ("café", "the caf", 0),
        ("狗", "是 狗", 1),
        ("狗", "猫", 0),
        ("7", "seven", 1),
        ("?!", "?!", 1),
        ("dog", "?!", 0),
        ("dog", "", 0),
    ],
)
def test_names_of_categories_in_sentences(answer, said, relaxed):
    names = ("dining table", "hot dog", "dog", "cup", "café", "caf", "狗", "猫", "7", "?!")
    scores = score(turn("largest", answer, names, "attribute"), said)
    assert scores["relaxed"] == relaxed
    assert "count_error" not in scores


def test_counts_of_categories_are_counts():
    scores = score(turn("count_category", "3", ("1", "2", "3"), "count"), "there are five")
    assert scores == {"exact": 0, "relaxed": 0, "count_error": 2}
