"""A guesser that reads the question and never sees the image gains nothing."""

from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from mixlens.design import SweepSpec
from mixlens.scenes import make_scene
from mixlens.spec import SceneSpec, load_spec
from mixlens.tasks import Turn, answer_space, ask

SWEEP = Path(__file__).resolve().parents[3] / "sweeps" / "quickstart.yaml"
SPECS = {
    "default": SceneSpec(),
    "few": SceneSpec(objects=(1, 4)),
    "total ink": SceneSpec(objects=(2, 3), ink="fixed_total", total_ink=0.04),
    "poor": SceneSpec(objects=(2, 6), colours=("red", "blue", "grey"), shapes=("star", "ring")),
    "quickstart": load_spec(SweepSpec, SWEEP).components["held_out"].scene,
    "overlapping": SceneSpec(placement="overlapping", objects=(2, 8)),
}
TASKS = {"coarse": 3, "count": 2, "attribute": 3, "relational": 4, "locate": 1}
FIRST = ("yes", "same", "first", "left", "above", "larger")  # of two answers the one
UNKNOWN = "?"  # the guess for a rare kind of which nothing was learned
IMAGES = 800  # to learn from, and as many again to be tested on

GAIN = 0.04
"""Most that reading the question may gain over chance: about 3 standard errors of the test."""

GAIN_IN_DIALOGUE = 0.08
"""The same when all turns before can be read, with their answers."""

LOCATE_CHANCE = 1 / 36
"""Centres of objects keep away from the border, so that some cells are more likely than others."""


@cache
def asked(name: str) -> tuple[list[tuple[Turn, str]], list[tuple[Turn, str]]]:
    """Turns with the text before them, of other scenes for learning than for testing."""
    spec = SPECS[name]
    space = answer_space(spec)
    halves: tuple[list, list] = ([], [])
    for i in range(2 * IMAGES):
        before = ""
        for turn in ask(make_scene(spec, 11, i), TASKS, 11, i, space):
            halves[i % 2].append((turn, before))
            before += "".join(f" before:{w}" for w in f"{turn.question} {turn.answer}".split())
    return halves


def target(turn: Turn) -> str:
    """The answer, or for a choice between two names the one that the question says first."""
    if turn.kind != "nearest":
        return turn.answer
    other = next(choice for choice in turn.choices if choice != turn.answer)
    at = {name: f" {turn.question} ".index(f" the {name} ") for name in (turn.answer, other)}
    return "first" if at[turn.answer] < at[other] else "second"


def most_frequent(learn: list[Turn], test: list[Turn]) -> float:
    """The answer that was right most often for these very words, or else for this kind."""
    seen: dict[str, Counter] = defaultdict(lambda: Counter({UNKNOWN: 0}))
    for turn in learn:
        seen[turn.question][target(turn)] += 1
        seen[turn.kind][target(turn)] += 1
    return np.mean(
        [
            seen.get(turn.question, seen[turn.kind]).most_common(1)[0][0] == target(turn)
            for turn in test
        ]
    )


def most_frequent_of_kind(learn: list[Turn], test: list[Turn]) -> float:
    seen: dict[str, Counter] = defaultdict(lambda: Counter({UNKNOWN: 0}))
    for turn in learn:
        seen[turn.kind][target(turn)] += 1
    return np.mean([seen[turn.kind].most_common(1)[0][0] == target(turn) for turn in test])


def naive_bayes(learn: list[str], answers: list[str], test: list[str], truth: list[str]) -> float:
    words = CountVectorizer(token_pattern=r"\S+", lowercase=False)
    model = MultinomialNB().fit(words.fit_transform(learn), answers)
    return np.mean(model.predict(words.transform(test)) == np.array(truth))


@pytest.mark.parametrize("name", SPECS)
def test_the_best_guess_from_text_alone_is_near_chance(name):
    learn, test = asked(name)
    for group in TASKS:
        known = [(turn, before) for turn, before in learn if turn.group == group]
        new = [(turn, before) for turn, before in test if turn.group == group]
        turns = [turn for turn, _ in known], [turn for turn, _ in new]
        truths = [target(turn) for turn in turns[0]], [target(turn) for turn in turns[1]]
        chance = (
            LOCATE_CHANCE
            if group == "locate"
            else np.mean([1 / len(turn.choices) for turn in turns[1]])
        )
        questions = (
            [f"{t.kind} {t.question}" for t in turns[0]],
            [f"{t.kind} {t.question}" for t in turns[1]],
        )
        best = max(
            most_frequent(*turns),
            most_frequent_of_kind(*turns),
            naive_bayes(questions[0], truths[0], questions[1], truths[1]),
        )
        assert best <= chance + GAIN, (group, best, chance)
        dialogues = [
            [text + before for text, (_, before) in zip(questions[side], part, strict=True)]
            for side, part in enumerate((known, new))
        ]
        best = naive_bayes(dialogues[0], truths[0], dialogues[1], truths[1])
        assert best <= chance + GAIN_IN_DIALOGUE, (group, best, chance)


@pytest.mark.parametrize("name", ["default", "few"])
def test_either_answer_is_as_likely_for_each_kind(name):
    """Yes and no, left and right, the first and the second name ...: 3 standard errors."""
    answers: dict[str, list[bool]] = defaultdict(list)
    for part in asked(name):
        for turn, _ in part:
            if len(turn.choices) == 2 and turn.group != "count":
                answers[turn.kind].append(target(turn) in FIRST)
    assert len(answers) == 16
    for kind, values in answers.items():
        assert abs(np.mean(values) - 0.5) <= 1.5 / len(values) ** 0.5 + 0.005, kind
