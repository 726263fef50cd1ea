"""Scoring a response against the one right answer, strictly and leniently."""

import re

from mixlens.tasks.turn import Turn
from mixlens.tasks.vocabulary import GRID

RIGHT_BOX = 0.5
"""A box with this intersection over union or more is right, as in RefCOCO's evaluation."""

SYNONYMS = {
    "gray": "grey",
    "violet": "purple",
    "disc": "circle",
    "disk": "circle",
    "donut": "ring",
    "plus": "cross",
    "rhombus": "diamond",
    "filled": "solid",
    "plain": "solid",
    "stripes": "striped",
    "stripy": "striped",
    "dots": "dotted",
    "spotted": "dotted",
    "checkered": "checked",
    "chequered": "checked",
    "hollow": "outlined",
    "outline": "outlined",
    "big": "large",
    "little": "small",
    "identical": "same",
    "yeah": "yes",
    "true": "yes",
    "false": "no",
    "none": "0",
}

_NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty
"""
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS.split())}

_FILLER = {"a", "an", "the", "is", "are", "it", "there", "they", "answer", "its", "have", "has"}
_TOKEN = re.compile(r"[^\W\d_]+(?![^\W\d_]*\d)|[xy]?\d+")
_NUMBER = re.compile(r"\d{1,4}(?:\.\d{1,4})?", re.ASCII)
_CELL = re.compile(r"y\s*(\d)(?!\d)[\s,]*x\s*(\d)(?!\d)")


def score(turn: Turn, response: str) -> dict[str, float]:
    """How right a response is; a malformed one scores low and never raises.

    Args:
        turn: the question with its answer.
        response: what a model said.

    Returns:
        exact: 1 if the response is the answer, up to white space at the ends.
        relaxed: 1 if it means the answer. Case, punctuation, articles and fillers ("the answer
            is", "there are") are ignored, and synonyms (`SYNONYMS`) and number words up to twenty
            are understood. Where the turn has choices, a sentence is right if the answer is the
            only choice it mentions (a negation such as "not red" is not understood). A location
            may be one cell off in each direction; a box needs an IoU of 0.5. Photographs have
            captions so that a model keeps its language: that one of them is met word by word, by
            either score, means little.
        count_error: counts: absolute error of the first number in the response.
        location_error: questions with one cell as the answer: distance between the centres of
            the two cells, as a fraction of the side, 0 to 1.24.
        iou: boxes: intersection over union with the first four numbers of the response; 0 if
            these are no box.
        parsed, object_precision and so on: scene graphs, graphs of categories and full captions,
            see `score_graph` and `score_category_graph` in `mixlens.tasks.graph_score`; relaxed
            is 1 if all F1 scores are 1.

        A score that is not defined is left out, such as the count error of a response without
        a number.
    """
    answer, said = turn.answer, response.strip()
    scores = {"exact": float(said == answer), "relaxed": 0.0}
    if turn.kind == "box":
        scores["iou"] = _overlap(answer, said)
        scores["relaxed"] = float(scores["iou"] >= RIGHT_BOX)
        return scores
    if turn.kind in ("scene_graph", "caption_full", "category_graph"):
        # Here, because the many processes that only render would import scipy too.
        from mixlens.tasks.graph_score import score_category_graph, score_graph

        compare = score_category_graph if turn.kind == "category_graph" else score_graph
        scores.update(compare(answer, said))
        f1 = [scores.get(f"{part}_f1", 1.0) for part in ("object", "attribute", "relation")]
        scores["relaxed"] = float(min(f1) == 1.0)
        return scores
    wanted = _CELL.fullmatch(answer)
    if wanted:
        found = _CELL.search(said.lower())
        if found:
            down, across = (int(found[i]) - int(wanted[i]) for i in (1, 2))
            if max(int(found[1]), int(found[2])) < GRID:
                scores["location_error"] = (down * down + across * across) ** 0.5 / GRID
                scores["relaxed"] = float(max(abs(down), abs(across)) <= 1)
        return scores
    known = frozenset(word for choice in (*turn.choices, answer) for word in choice.split())
    words = _normalise(said, known)
    if answer.isdecimal() and turn.group == "count":
        numbers = [word for word in words if word.isdecimal()]
        if numbers:
            scores["count_error"] = float(abs(_whole(numbers[0]) - int(answer)))
        scores["relaxed"] = float({_whole(number) for number in numbers} == {int(answer)})
    elif turn.choices:
        choices = [(choice, _normalise(choice, known)) for choice in turn.choices]
        scores["relaxed"] = float(_mentioned(words, choices) == {answer} or said == answer)
    else:
        scores["relaxed"] = float(words == _normalise(answer, known))
    return scores


def _normalise(text: str, known: frozenset[str]) -> list[str]:
    """Words of a text without filler and synonyms; words in `known` stay as they are."""
    words = []
    for word in _TOKEN.findall(text.lower()):
        if word not in known:
            word = NUMBER_WORDS.get(word) or SYNONYMS.get(word, word)
            if word in _FILLER:
                continue
        words.append(word)
    return words


def _overlap(answer: str, response: str) -> float:
    """Intersection over union of two boxes `x0 y0 x1 y1`."""
    boxes = [[float(number) for number in _NUMBER.findall(text)[:4]] for text in (answer, response)]
    if len(boxes[1]) < 4:
        return 0.0
    low = [max(pair) for pair in zip(*(box[:2] for box in boxes), strict=True)]
    high = [min(pair) for pair in zip(*(box[2:] for box in boxes), strict=True)]
    sizes = [max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in boxes]
    shared = max(0.0, high[0] - low[0]) * max(0.0, high[1] - low[1])
    return shared / (sum(sizes) - shared) if shared else 0.0


def _whole(digits: str) -> int:
    """The number that digits stand for; absurdly long ones are cut, as `int` would refuse them."""
    return int(digits[:18])


def _mentioned(words: list[str], choices: list[tuple[str, list[str]]]) -> set[str]:
    """The choices that occur in a text; the longest where one is part of another."""
    found = set()
    free = list(words)
    for choice, parts in sorted(choices, key=lambda choice: -len(choice[1])):
        if not parts:
            continue
        for start in range(len(free) - len(parts) + 1):
            if free[start : start + len(parts)] == parts:
                found.add(choice)
                free[start : start + len(parts)] = [""] * len(parts)
    return found
