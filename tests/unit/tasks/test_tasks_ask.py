"""What a sequence of turns promises, whatever the scene."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mixlens.errors import SpecError
from mixlens.scenes import make_scene
from mixlens.spec import SceneSpec, SizeRange
from mixlens.tasks import GROUPS, answer_space, ask, prompts_digest, vocabulary
from mixlens.tasks.prompts import prompts
from mixlens.tasks.scene_graph import MAX_LISTED
from mixlens.tasks.vocabulary import COLOURS, COLUMNS, ROWS, SHAPES, SIZES, TEXTURES

EVERYTHING = dict.fromkeys(GROUPS, 3)
SPEC = SceneSpec(shapes=("circle", "square", "heart", "hexagon", "star", "ring"))

DETAILS = {*SHAPES, *COLOURS, *TEXTURES, *SIZES, *ROWS, *COLUMNS}


def turns(index: int, tasks=EVERYTHING, spec=SPEC):
    return ask(make_scene(spec, 5, index), tasks, 5, index, answer_space(spec))


def test_the_same_arguments_give_the_same_turns_in_any_order():
    forth = [turns(i) for i in range(20)]
    back = [turns(i) for i in reversed(range(20))][::-1]
    assert forth == back
    assert len(set(forth)) == 20


# A change here is a change of every experiment, as with the pixels of a scene. Wording is left out.
RECORDED = {
    "few objects": (SPEC, "da26a3b512a002b7"),
    "few words": (
        SceneSpec(colours=("red", "blue"), textures=("solid",), objects=(2, 12)),
        "b6e85b4b926ea0fc",
    ),
    "many objects": (
        SceneSpec(objects=(150, 200), sizes=(SizeRange(name="tiny", diameter=(0.025, 0.04)),)),
        "d47ddd6c82874a7d",
    ),
    "hidden objects": (
        SceneSpec(placement="overlapping", visible_fraction=(0.1, 0.4)),
        "dd5d82a293e3b216",
    ),
}


@pytest.mark.parametrize("name", RECORDED)
def test_questions_and_answers_are_those_that_were_recorded(name):
    spec, recorded = RECORDED[name]
    asked = [
        [(turn.kind, turn.answer, turn.choices) for turn in turns(i, spec=spec)] for i in range(20)
    ]
    assert hashlib.sha256(repr(asked).encode()).hexdigest()[:16] == recorded


def test_another_process_gives_the_same_turns():
    code = (
        "from test_tasks_ask import turns; import hashlib;"
        "print(hashlib.sha256(repr([turns(i) for i in range(10)]).encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = hashlib.sha256(repr([turns(i) for i in range(10)]).encode()).hexdigest()
    assert there.stdout.strip() == here


def test_seed_and_index_matter():
    scene = make_scene(SPEC, 5, 0)
    asked = {ask(scene, EVERYTHING, seed, index) for seed in range(3) for index in range(3)}
    assert len(asked) == 9


def test_as_many_turns_as_asked_for_and_never_the_same_question_twice():
    for i in range(300):
        asked = turns(i)
        numbers = Counter(turn.group for turn in asked)
        assert all(number <= 3 for number in numbers.values())
        assert numbers["scene_graph"] == 1
        assert numbers["caption"] == 3
        assert len({turn.question for turn in asked}) == len(asked)
        # Nor the same question in other words; of a pair, either can be named first.
        details = [
            (turn.kind, *(words if turn.group == "pair" else sorted(words)))
            for turn in asked
            for words in [[word for word in turn.question.split() if word in DETAILS]]
        ]
        assert len(set(details)) == len(details)


def test_a_lone_object_has_no_relations():
    spec = SceneSpec(objects=1)
    for i in range(50):
        asked = turns(i, spec=spec)
        assert "relational" not in {turn.group for turn in asked}
        # The spec says how many there are, so that asking would need no image.
        assert "count_all" not in {turn.kind for turn in asked}
        graph = next(turn for turn in asked if turn.group == "scene_graph")
        assert "|" not in graph.answer


def test_what_could_help_later_turns_comes_late():
    stages = {"count_all": 0, "shape_presence": 1, "colour_presence": 1}
    stages |= dict.fromkeys(("count_colour", "count_shape", "main_colour", "main_shape"), 2)
    for i in range(200):
        order = [
            {"scene_graph": 4, "caption": 5}.get(turn.group, stages.get(turn.kind, 3))
            for turn in turns(i)
        ]
        assert order == sorted(order)


def test_no_turn_names_what_another_asks_for():
    """An object asked about by its shape is never named by its colour if that is asked too."""
    tasks = {"attribute": 6, "relational": 8}
    for i in range(300):
        scene = make_scene(SPEC, 5, i)
        named: dict[int, set[str]] = {}
        asked_for: dict[int, list[str]] = {}
        for turn in ask(scene, tasks, 5, i, answer_space(SPEC)):
            names = re.findall(
                r"the ((?:\w+ )*?(?:object|circle|square|heart|hexagon|star|ring))\b", turn.question
            )
            for words in (set(text.split()) - {"object"} for text in names):
                fits = [
                    k
                    for k, thing in enumerate(scene.objects)
                    if words <= {thing.size, thing.colour, thing.texture, thing.shape}
                ]
                if words and len(fits) == 1:
                    named.setdefault(fits[0], set()).update(words)
                    if turn.group == "attribute":
                        asked_for.setdefault(fits[0], []).append(turn.answer)
        for k, answers in asked_for.items():
            assert not named[k] & set(answers)
            assert len(set(answers)) == len(answers)


def test_kinds_are_drawn_about_evenly():
    spec = SceneSpec(objects=(3, 6))
    for group in ("coarse", "attribute", "relational"):
        drawn = Counter(turn.kind for i in range(400) for turn in turns(i, {group: 1}, spec))
        assert set(drawn) == set(GROUPS[group].kinds)
        assert max(drawn.values()) < 4 * min(drawn.values()), drawn


def test_every_word_is_in_the_vocabulary_and_answers_are_short():
    spec = SceneSpec(objects=(1, 12))
    words = vocabulary()
    longest = 0
    for i in range(300):
        for turn in turns(i, spec=spec):
            assert turn.complexity == GROUPS[turn.group].complexity
            text = f"{turn.question} {turn.answer}"
            assert text == text.lower() == " ".join(text.split())
            assert text.isascii()
            assert set(text.split()) <= words
            longest = max(longest, len(turn.answer.split()))
    assert MAX_LISTED == 12
    assert 100 < longest <= 127


def test_a_scene_graph_of_six_objects_has_at_most_75_words():
    spec = SceneSpec(objects=6)
    assert all(
        len(turn.answer.split()) <= 75
        for i in range(100)
        for turn in turns(i, {"scene_graph": 1}, spec)
    )


def test_every_kind_has_phrasings_and_uses_each():
    kinds = {kind for group in GROUPS.values() for kind in group.kinds}
    assert set(prompts()) == kinds
    assert all(len(phrasings) >= 3 for phrasings in prompts().values())
    used = {turn.prompt for i in range(400) for turn in turns(i)}
    assert used == {prompt for phrasings in prompts().values() for prompt, _ in phrasings}
    assert re.fullmatch("[0-9a-f]{16}", prompts_digest())


def test_words_that_never_vary_are_neither_asked_for_nor_used_as_names():
    spec = SceneSpec(textures=("solid",), colours=("red", "blue"))
    for i in range(200):
        for turn in turns(i, {"coarse": 4, "attribute": 4, "relational": 4, "locate": 2}, spec):
            assert "solid" not in f"{turn.question} {turn.answer}"
            assert turn.kind != "texture"
            if turn.kind == "colour_presence":
                assert {"red", "blue"} & set(turn.question.split())


@pytest.mark.parametrize(
    "changes",
    [
        {"ink": "fixed_size", "object_diameter": 0.1},
        {
            "sizes": (
                {"name": "small", "diameter": (0.08, 0.12)},
                {"name": "large", "diameter": (0.125, 0.2)},
            )
        },
    ],
)
def test_size_words_are_used_only_if_ranges_lie_apart(changes):
    spec = SceneSpec(**changes)
    assert answer_space(spec).sizes == ()
    for i in range(30):
        for turn in turns(i, spec=spec):
            assert not {"small", "medium", "large"} & set(f"{turn.question} {turn.answer}".split())


@pytest.mark.parametrize("name", ["Tiny", "very big", "red", "left", "y3", "largest"])
def test_a_size_that_is_no_free_word_is_refused(name):
    spec = SceneSpec(sizes=({"name": name, "diameter": 0.1},))
    with pytest.raises(SpecError, match=re.escape(repr(name))):
        answer_space(spec)


def test_choices_hold_the_answer_once():
    for i in range(200):
        for turn in turns(i):
            if turn.choices:
                assert turn.choices.count(turn.answer) == 1
                assert len(set(turn.choices)) == len(turn.choices) >= 2
