"""A prompt is the same tokens in training, in generation and from the model's own processor.

With templates and vocabularies of every shape that is published: line breaks before answers, blanks
that a tokenizer puts at the start of a text, ends that are none, thoughts.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES, SHAPES, build
from tiny_templates import INTERNVL_FIRST
from transformers import AutoProcessor

from mixlens.errors import CheckpointError
from mixlens.evaluation.generate import generate
from mixlens.models import load_adapter, load_vlm
from mixlens.models.family import BLANK
from mixlens.sources.example import NO_IMAGE, Example
from mixlens.tasks.turn import Turn
from mixlens.training.objective import answer_loss_sum

pytestmark = pytest.mark.case

STEPS = 60
TURNS = (
    ("what is it ?", "red"),
    ("How many are there?", "2"),
    ("Is it a square? Answer yes or no.", "Yes"),
    ("12 or 3 ?", "3 large circles, left of a Square."),
    ("a\nb ?", "Two\nlines"),
)


@pytest.fixture(scope="module", params=(*FAMILIES, *SHAPES))
def folder(request: pytest.FixtureRequest, tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("prompts") / "model"
    build(request.param, folder)
    return folder


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def example(*turns: tuple[str, str], image: np.ndarray) -> Example:
    made = tuple(Turn(asked, answer, "coarse", "k", 1, "p") for asked, answer in turns)
    return Example("a/0", "a", image, made, {})


def of_processor(processor: Any, question: str, image: np.ndarray | None) -> list[int]:
    """The tokens of a prompt as the model's own processor makes them in one piece."""
    shown = [] if image is None else [{"type": "image", "image": image}]
    content = [*shown, {"type": "text", "text": question}]
    given = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return list(given["input_ids"][0].tolist())


def trained(adapter: Any, examples: list[Example], begin: list[int]) -> list[tuple[list, list]]:
    """Of every turn of a training batch the tokens before its answer, and the answer's."""
    batch = adapter.training_batch(examples)
    found = []
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        first = 0
        for place in range(len(ids)):
            if labels[place] >= 0 and (place + 1 == len(ids) or labels[place + 1] < 0):
                here = range(first, place + 1)
                asked = [ids[i] for i in here if labels[i] < 0]
                told = [labels[i] for i in here if labels[i] >= 0]
                if asked[: len(begin)] == begin:
                    asked = asked[len(begin) :]
                found.append((asked, told))
                first = place + 1
    return found


@pytest.mark.parametrize("several", [False, True], ids=["alone", "several"])
def test_a_turn_is_learned_behind_the_tokens_that_ask_for_it(folder, several):
    adapter, processor = load_adapter(str(folder)), AutoProcessor.from_pretrained(folder)
    image = picture()
    begin = adapter.image_batch([image])["input_ids"][0].tolist()
    rows = [TURNS] if several else [(turn,) for turn in TURNS]
    found = trained(adapter, [example(*row, image=image) for row in rows], begin)
    special = {i for i, token in adapter.tokenizer.added_tokens_decoder.items() if token.special}
    for (question, answer), (asked, told) in zip(TURNS, found, strict=True):
        assert begin + asked == of_processor(processor, question, image)
        assert begin + adapter.question_tokens([question])[0] == begin + asked
        assert adapter.tokenizer.decode(told[:-1]).strip() == answer
        assert told[-1] == adapter.end_token_id
        assert special & {*told} == {told[-1]}
        assert told.count(told[-1]) == 1


def test_so_it_is_without_an_image(folder):
    adapter, processor = load_adapter(str(folder)), AutoProcessor.from_pretrained(folder)
    begin = adapter.image_batch([BLANK])["input_ids"][0].tolist()
    found = trained(adapter, [example(*TURNS, image=NO_IMAGE)], begin)
    for (question, answer), (asked, told) in zip(TURNS, found, strict=True):
        assert asked == of_processor(processor, question, None)
        assert adapter.tokenizer.decode(told[:-1]).strip() == answer
        assert told[-1] == adapter.end_token_id


def test_a_tokenizer_that_ends_every_text_is_refused(tmp_path):
    """In training and in our generation the end would stand behind the image."""
    build("llava", tmp_path)
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    end = next(token for token in tokenizer["added_tokens"] if token["content"] == "</s>")
    ends = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    tokenizer["post_processor"]["single"].append(ends)
    tokenizer["post_processor"]["special_tokens"]["</s>"] = {
        "id": "</s>", "ids": [end["id"]], "tokens": ["</s>"]
    }  # fmt: skip
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(
        CheckpointError,
        match=r"chat template and tokenizer make other tokens of "
        r"the prompt .* in generation, .*'<image>' '</s>'.*, than in its processor",
    ):
        load_adapter(str(tmp_path))  # fmt: skip


def test_answers_that_nothing_ends_are_refused(tmp_path):
    build("llava", tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"eos_token": None}))
    with pytest.raises(CheckpointError, match=r"of the answer 'red' behind .* the tokens 'Ġred', "
                       "which are not the answer and one token that ends it"):  # fmt: skip
        load_adapter(str(tmp_path))


def test_a_template_with_another_mark_of_an_image_is_refused_with_the_mark_that_it_needs(tmp_path):
    build("internvl", tmp_path)
    (tmp_path / "chat_template.jinja").write_text(INTERNVL_FIRST)
    with pytest.raises(CheckpointError) as error:
        load_adapter(str(tmp_path))
    assert "writes '<image>' for an image, but its processor looks for '<IMG_CONTEXT>'" in str(
        error.value
    )
    (tmp_path / "chat_template.jinja").write_text(
        INTERNVL_FIRST.replace("<image>", "<IMG_CONTEXT>")
    )
    load_adapter(str(tmp_path))  # as the message says
    (tmp_path / "chat_template.jinja").write_text(INTERNVL_FIRST.replace("<image>\n", ""))
    with pytest.raises(CheckpointError, match="its chat template shows no <IMG_CONTEXT>"):
        load_adapter(str(tmp_path))


def test_a_model_asked_behind_line_breaks_learns_what_it_is_asked(tmp_path):
    """Trained on four pictures it names them: by our own loop, and by the model's."""
    build("llava_next llama3", tmp_path)
    vlm = load_vlm(str(tmp_path))
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 255, (32, 32, 3), np.uint8) for _ in range(4)]
    names = ["red", "Blue", "2", "large"]
    examples = [
        example(("what is it ?", name), image=image)
        for name, image in zip(names, pictures, strict=True)
    ]
    optimizer = torch.optim.AdamW(vlm.model.parameters(), lr=3e-3)
    labels = (batch := vlm.adapter.training_batch(examples)).pop("labels")
    for _ in range(STEPS):
        logits = vlm.model(**vlm.adapter.model_inputs(batch)).logits
        loss = answer_loss_sum(logits[:, :-1], labels[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    said = generate(vlm, pictures, ["what is it ?"] * 4, range(4), [6] * 4)
    assert said == [(name, True) for name in names]
    asked = vlm.adapter.question_batch(pictures, ["what is it ?"] * 4)
    told = vlm.model.generate(**asked, do_sample=False, max_new_tokens=6)
    assert (
        vlm.processor.batch_decode(told[:, asked["input_ids"].shape[1] :], skip_special_tokens=True)
        == names
    )
