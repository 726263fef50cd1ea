"""Shared, batched answering against transformers' own generation, one question at a time."""

from dataclasses import replace

import pytest
import torch

from mixlens.evaluation import ANSWERS, answer, generate
from mixlens.evaluation.answers import SHORT_LIMIT, answer_timed
from mixlens.evaluation.generate import asked_tokens, next_position, say, spoken
from mixlens.evaluation.throughput import Effort, joined, read_throughput, write_throughput
from mixlens.models import VLM, load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.sources import open_source
from mixlens.spec import SceneComponent, SceneSpec
from mixlens.tasks import Turn, vocabulary

COMPONENT = SceneComponent(
    scene=SceneSpec(image_size=64, objects=(3, 5)),
    tasks={"coarse": 2, "relational": 2, "locate": 1, "scene_graph": 1},
)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory) -> VLM:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=0, size="test")
    loaded = load_vlm(str(folder))
    with torch.no_grad():  # larger weights: answers that depend on image and question
        for parameter in loaded.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return loaded


@pytest.fixture(scope="module")
def examples():
    source = open_source("scenes", COMPONENT)
    return [source.example(index) for index in range(5)]


@pytest.fixture(scope="module")
def asks(examples):
    """(place of the image, question) of every turn."""
    return [(i, turn.question) for i, example in enumerate(examples) for turn in example.turns]


@pytest.fixture(scope="module")
def reference(vlm, examples, asks) -> list[list[int]]:
    """The first six tokens of every answer, from transformers, one question at a time."""
    found = []
    for place, question in asks:
        batch = vlm.adapter.question_batch([examples[place].image], [question])
        with torch.inference_mode():
            ids = vlm.model.generate(**batch, max_new_tokens=6, do_sample=False)
        found.append(ids[0, batch["input_ids"].shape[1] :].tolist())
    return found


def text_of(vlm, tokens) -> str:
    return vlm.processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def generate_all(vlm, examples, asks, limits):
    images = [example.image for example in examples]
    return generate(vlm, images, [q for _, q in asks], [place for place, _ in asks], limits)


def test_answers_are_those_of_generate(vlm, examples, asks, reference):
    limits = [2 + i % 5 for i in range(len(asks))]
    expected = [text_of(vlm, ids[:n]) for ids, n in zip(reference, limits, strict=True)]
    assert [said for said, _ in generate_all(vlm, examples, asks, limits)] == expected
    assert len(set(expected)) > len(expected) / 3  # they differ, so mixing rows up would show


def test_answers_end_at_the_end_token(vlm, examples, asks, reference, monkeypatch):
    def holding(token):
        return sum(token in ids for ids in reference)

    # The token that most nearly half of the answers hold becomes the one that ends them.
    tokens = {token for ids in reference for token in ids}
    end = min(tokens, key=lambda token: abs(holding(token) - len(asks) / 2))
    assert 0 < holding(end) < len(asks)
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", end)
    found = generate_all(vlm, examples, asks, [6] * len(asks))
    for ids, (said, finished) in zip(reference, found, strict=True):
        assert finished == (end in ids)
        assert said == text_of(vlm, ids[: ids.index(end)] if end in ids else ids)


def test_what_a_row_says_after_its_answer_is_no_part_of_it(
    vlm, examples, asks, reference, monkeypatch
):
    # One answer is cut at a token or two; the rest goes on, and while it does that row says the
    # token that ends answers.
    def held(token):
        return sum(token in ids for ids in reference)

    row, cut, end = next(
        (row, cut, ids[cut])
        for row, ids in enumerate(reference)
        for cut in (1, 2)
        if ids[cut] not in ids[:cut] and held(ids[cut]) <= 0.1 * len(asks)
    )
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", end)
    limits = [cut if place == row else 6 for place in range(len(asks))]
    said, finished = generate_all(vlm, examples, asks, limits)[row]
    assert (said, finished) == (text_of(vlm, reference[row][:cut]), False)


def test_tokens_are_those_that_were_made_with_the_end_among_them(
    vlm, examples, asks, reference, monkeypatch
):
    end = reference[0][2]
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", end)
    images = [example.image for example in examples]
    said = say(vlm, images, [q for _, q in asks], [i for i, _ in asks], [6] * len(asks))
    expected = [ids[: ids.index(end) + 1] if end in ids else ids for ids in reference]
    assert said == expected


def test_the_time_of_generation_alone_is_told(vlm, examples, monkeypatch):
    now, told = [0.0], []

    def slowly(vlm, images, questions, image_of, limits):
        now[0] += 3.0
        told.append(len(questions))
        return [[5] * 4] * len(questions)

    def scored(turn, response):
        now[0] += 100.0
        return {"exact": 0.0, "relaxed": 0.0}

    monkeypatch.setattr("mixlens.evaluation.answers.say", slowly)
    monkeypatch.setattr("mixlens.evaluation.answers.score", scored)
    monkeypatch.setattr("mixlens.evaluation.answers.time.perf_counter", lambda: now[0])
    table, effort = answer_timed(vlm, examples, batch_size=7)
    assert len(told) > 2
    assert (effort.answers, effort.tokens) == (len(table), 4 * len(table))
    assert effort.seconds == 3.0 * len(told)
    assert effort.worker


def test_workers_answer_side_by_side(tmp_path):
    parts = [Effort(4, 40, 2.0, "a"), Effort(6, 20, 1.0, "a"), Effort(10, 60, 2.5, "b")]
    whole = joined(parts)
    assert (whole.answers, whole.tokens, whole.seconds) == (20, 120, 3.0)
    write_throughput(tmp_path, "transformers", whole)
    assert read_throughput(tmp_path) == {
        "answers_per_s": pytest.approx(20 / 3), "tokens_per_s": pytest.approx(40)
    }  # fmt: skip
    assert read_throughput(tmp_path / "nothing") == {}


def test_the_table_has_a_row_a_turn_in_order_with_its_scores(vlm, examples):
    table = answer(vlm, examples, batch_size=7, max_new_tokens=20)
    assert table.schema == ANSWERS
    rows = table.to_pylist()
    turns = [(example, turn) for example in examples for turn in example.turns]
    assert len(rows) == len(turns)
    for row, (example, turn) in zip(rows, turns, strict=True):
        assert row["example_id"] == example.example_id
        assert (row["question"], row["answer"]) == (turn.question, turn.answer)
        assert row["choices"] == len(turn.choices)
        assert row["exact"] == float(row["response"] == turn.answer)
        for key in ("ged", "ged_exact", "ged_in_time"):
            assert (row[key] is not None) == (turn.group == "scene_graph")


def test_batch_size_changes_no_answer(vlm, examples):
    small = answer(vlm, examples, batch_size=3, max_new_tokens=16)
    large = answer(vlm, examples, batch_size=256, max_new_tokens=16)
    assert small["response"].to_pylist() == large["response"].to_pylist()


def test_a_right_answer_scores_one(vlm, examples, monkeypatch):
    def knows(vlm, images, questions, image_of, limits):
        by_question = {
            (id(example.image), turn.question): turn.answer
            for example in examples
            for turn in example.turns
        }
        end = vlm.processor.tokenizer.eos_token_id
        return [
            [
                *vlm.processor.tokenizer(f" {by_question[id(images[i]), question]}").input_ids,
                end,
            ]
            for question, i in zip(questions, image_of, strict=True)
        ]

    monkeypatch.setattr("mixlens.evaluation.answers.say", knows)
    rows = answer(vlm, examples, batch_size=4).to_pylist()
    assert all(row["exact"] == row["relaxed"] == row["finished"] == 1 for row in rows)
    assert {row["object_f1"] for row in rows if row["group"] == "scene_graph"} == {1}


def test_short_answers_get_few_tokens_but_enough_for_every_choice(vlm, examples, monkeypatch):
    seen = {}

    def spy(vlm, images, questions, image_of, limits):
        seen.update(zip(questions, limits, strict=True))
        return [[]] * len(questions)

    monkeypatch.setattr("mixlens.evaluation.answers.say", spy)
    long = "xyzzy " * 6
    turn = Turn("which spell ?", "no", "coarse", "spell", 1, "spell.0", choices=("no", long))
    example = replace(examples[0], turns=(*examples[0].turns, turn))
    rows = answer(vlm, [example], max_new_tokens=77).to_pylist()
    tokens = len(vlm.processor.tokenizer(f" {long}", add_special_tokens=False).input_ids)
    assert tokens > SHORT_LIMIT
    for turn in examples[0].turns:
        assert seen[turn.question] == (77 if turn.group == "scene_graph" else SHORT_LIMIT)
    assert seen["which spell ?"] == tokens + 2
    assert {row["finished"] for row in rows} == {0}


def test_text_goes_on_from_the_largest_position_of_an_image():
    one_axis = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 3]])
    assert next_position(one_axis).tolist() == [3, 4]
    # Height and width run within an image, so that the last position need not be the largest.
    three = torch.tensor([[[0, 1, 1, 1]] * 2, [[0, 1, 4, 1], [0, 1, 2, 3]], [[0, 1, 2, 2]] * 2])
    assert next_position(three).tolist() == [5, 4]


def test_questions_are_padded_on_the_left(vlm):
    questions = ["what colour is the circle ?", "what ?"]
    asked = asked_tokens(vlm, questions)
    for ids, present, question in zip(asked.ids, asked.present, questions, strict=True):
        assert vlm.processor.tokenizer.decode(ids[present.bool()]) == f" {question}<|assistant|>"
    assert asked.present.sum(-1).tolist() == [7, 3]
    assert asked.present[:, -3:].all()


def test_what_is_said_ends_at_its_first_end(vlm, monkeypatch):
    tokens = vlm.processor.tokenizer(" a red circle").input_ids
    red = tokens[1]
    end = vlm.processor.tokenizer.eos_token_id
    assert spoken(vlm, tokens) == ("a red circle", False)
    assert spoken(vlm, [*tokens, end]) == ("a red circle", True)
    assert spoken(vlm, [*tokens, end, *tokens, end]) == ("a red circle", True)
    assert spoken(vlm, []) == ("", False)
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", [end, red])
    assert spoken(vlm, tokens) == ("a", True)  # any of several ends
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", None)
    assert spoken(vlm, [*tokens, end]) == ("a red circle", True)  # the tokenizer's
