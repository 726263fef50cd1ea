"""Every family through the one contract, on tiny models of its real classes.

A new family is one more name in `tiny_families.FAMILIES`: all that is here then holds for it. What
needs an optimiser is in `test_training_families.py`.
"""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from here import token_tables
from tiny_families import FAMILIES, build

from mixlens.activations.extended import extended_values
from mixlens.activations.streams import visit
from mixlens.errors import CheckpointError
from mixlens.evaluation.generate import asked_tokens, generate, respond
from mixlens.models import VLM, LookingAdapter, ShrinkingAdapter, load_vlm
from mixlens.models.capture import keep
from mixlens.models.family import SEQUENCES
from mixlens.models.places import places
from mixlens.models.turns import IMAGE_OF_TOKEN
from mixlens.probing.deletion import delete
from mixlens.probing.prefill import look, prefill
from mixlens.sources.example import NO_IMAGE, Example
from mixlens.spec import ExtendedMetric
from mixlens.spec.measure import DeletionSpec
from mixlens.tasks.turn import Turn

pytestmark = pytest.mark.slow

SIZES = ((48, 48), (100, 60), (24, 64))  # a square, a tall and a wide image


@pytest.fixture(scope="module", params=FAMILIES)
def vlm(request: pytest.FixtureRequest, tmp_path_factory) -> VLM:
    folder: Path = tmp_path_factory.mktemp("families") / request.param
    build(request.param, folder)
    return load_vlm(str(folder))


def image(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def example(size: tuple[int, int] | None, seed: int, *turns: tuple[str, str]) -> Example:
    made = tuple(Turn(asked, answer, "coarse", "k", 1, "p") for asked, answer in turns)
    picture = image(*size, seed) if size else NO_IMAGE
    return Example(f"a/{seed}", "a", picture, made, {"object_count": seed})


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return [
        example(SIZES[0], 1, ("what colour is it ?", "red"), ("how many are there ?", "2 or 3")),
        example(SIZES[1], 2, ("what is it ?", "a large circle left of a square")),
        example(SIZES[2], 3, ("what is it ?", "blue"), ("which ?", "no"), ("is it red ?", "yes")),
    ]


def logits_of_turns(vlm: VLM, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """What predicts the first token of each answer, in the order of rows and turns."""
    labels = batch.pop("labels")
    given = vlm.model(**vlm.adapter.model_inputs(batch)).logits
    answered = labels >= 0
    begins = answered[:, 1:] & ~answered[:, :-1]
    return list(given[:, :-1][begins])


@torch.no_grad()
def alone(vlm: VLM, examples: list[Example]) -> list[torch.Tensor]:
    """What the model itself, fed by its own processor, says first of every question."""
    return [
        vlm.model(**vlm.adapter.question_batch([one.image], [turn.question])).logits[0, -1]
        for one in examples
        for turn in one.turns
    ]


def test_inputs_are_those_of_the_model_s_own_processor(vlm: VLM, examples):
    for one in examples:
        shown, asked = (
            {"type": "image", "image": one.image},
            {"type": "text", "text": "what is it ?"},
        )
        theirs = vlm.processor.apply_chat_template(
            [{"role": "user", "content": [shown, asked]}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        ours = vlm.adapter.question_batch([one.image], ["what is it ?"])
        assert ours.keys() == theirs.keys()
        if vlm.model.config.model_type == "llava":  # squeezed, where theirs is cropped
            theirs = {**theirs, "pixel_values": ours["pixel_values"]}
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, msg=name)


def test_a_question_is_its_image_and_then_its_own_tokens(vlm: VLM, examples):
    questions = [one.turns[0].question for one in examples]
    behind = vlm.adapter.question_tokens(questions)
    for one, question, told in zip(examples, questions, behind, strict=True):
        begun = vlm.adapter.image_batch([one.image])["input_ids"][0].tolist()
        whole = vlm.adapter.question_batch([one.image], [question])["input_ids"][0].tolist()
        assert begun + told == whole


def test_spans_are_the_processor_s_own_counts(vlm: VLM, examples):
    images = [one.image for one in examples]
    batch = vlm.adapter.question_batch(images, ["what is it ?", "which ?", "is it red ?"])
    spans = vlm.adapter.spans(batch["input_ids"], batch["attention_mask"])
    together = spans.visual.int() + spans.text.int() + spans.special.int()
    assert torch.equal(together, batch["attention_mask"].int())
    if hasattr(vlm.processor, "_get_num_multimodal_tokens") and spans.visual.any():
        counted = vlm.processor._get_num_multimodal_tokens(
            image_sizes=[list(one.shape[:2]) for one in images]
        )["num_image_tokens"]
        # Some count what marks rows and crops with them: all but the text before the image.
        begun = vlm.adapter.image_batch(images)["attention_mask"].sum(-1)
        before = {int(tokens) - count for tokens, count in zip(begun, counted, strict=True)}
        assert spans.visual.sum(-1).tolist() == list(counted) or len(before) == 1
    encoded = vlm.adapter.encode(vlm.model, vlm.adapter.image_batch(images))
    if spans.visual.any():
        assert torch.equal(encoded.exists.sum(-1), spans.visual.sum(-1))
    text = [vlm.processor.tokenizer.decode(row[here]) for row, here in
            zip(batch["input_ids"], spans.text, strict=True)]  # fmt: skip
    assert all(
        asked in told.replace("\n", " ")
        for asked, told in zip(["what is it ?", "which ?", "is it red ?"], text, strict=True)
    )


def test_every_visual_token_has_its_place(vlm: VLM, examples):
    images = [one.image for one in examples]
    batch = vlm.adapter.image_batch(images)
    views = vlm.adapter.views(batch, [one.shape[:2] for one in images])
    encoded = vlm.adapter.encode(vlm.model, batch)
    for of_image, exists in zip(views, encoded.exists, strict=True):
        found = places(of_image)
        assert len(found.view) == int(exists.sum())
        inside = found.row >= 0
        cells = torch.stack([found.view, found.row, found.column], 1)[inside]
        assert len(cells.unique(dim=0)) == len(cells)  # no cell twice
        for number, view in enumerate(of_image):
            assert int((cells[:, 0] == number).sum()) == view.rows * view.columns


def test_what_is_under_a_token_moves_that_token_most(vlm: VLM):
    """A bright spot in one place of an image changes the token whose cell holds that place."""
    height, width = 64, 96
    rows, columns = torch.tensor([0.2, 0.5, 0.8]), torch.tensor([0.15, 0.5, 0.85])
    plain = np.full((height, width, 3), 90, np.uint8)
    batch = vlm.adapter.image_batch([plain])
    (views,) = vlm.adapter.views(batch, [(height, width)])
    before = vlm.adapter.encode(vlm.model, batch)
    found, hits = places(views), []
    for down in rows:
        for right in columns:
            spotted = plain.copy()
            y, x = int(down * height), int(right * width)
            spotted[y - 3 : y + 3, x - 3 : x + 3] = (255, 0, 255)
            after = vlm.adapter.encode(vlm.model, vlm.adapter.image_batch([spotted]))
            moved = (after.tokens - before.tokens).norm(dim=-1)[before.exists]
            for number, view in enumerate(views):
                top, left, bottom, right_edge = view.box
                there = ((found.view == number) & (found.row >= 0)).nonzero()[:, 0]
                at = (down - top) / (bottom - top), (right - left) / (right_edge - left)
                if not all(0.05 < value < 0.95 for value in at):
                    continue
                cell = int(at[0] * view.rows) * view.columns + int(at[1] * view.columns)
                # A spot on a border belongs to two cells: the right one is among the most moved.
                hits.append(bool(moved[there][cell] >= moved[there].topk(4).values[-1]))
    assert np.mean(hits) > 0.8, np.mean(hits)


def test_every_turn_gets_the_logits_that_it_would_get_alone(vlm: VLM, examples):
    expected = alone(vlm, examples)
    with torch.no_grad():
        for unmasked in (False, True):
            if unmasked and vlm.adapter.sees_both_ways:
                with pytest.raises(CheckpointError, match="takes no masks"):
                    vlm.adapter.training_batch(examples, unmasked)
                continue
            found = logits_of_turns(vlm, vlm.adapter.training_batch(examples, unmasked))
            assert len(found) == len(expected) == 6
            torch.testing.assert_close(
                torch.stack(found), torch.stack(expected), rtol=1e-4, atol=1e-4
            )
    assert (expected[1] - expected[2]).abs().max() > 0.01  # the image and the question matter


def test_labels_are_the_answers_and_one_end(vlm: VLM, examples):
    each = [replace(one, turns=(turn,)) for one in examples for turn in one.turns]
    rows = [vlm.adapter.training_batch([one])["labels"] for one in each]
    tokenizer = vlm.processor.tokenizer
    ends = vlm.model.generation_config.eos_token_id or tokenizer.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends)
    answers = [turn.answer for one in examples for turn in one.turns]
    for (row,), answer in zip(rows, answers, strict=True):
        told = row[row >= 0].tolist()
        assert tokenizer.decode(told[:-1]).strip() == answer
        assert tokenizer.added_tokens_decoder[told[-1]].special
    assert told[-1] in ends or tokenizer.decode([told[-1]]) in (
        "<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<end_of_utterance>", "<|endoftext|>"
    )  # fmt: skip


def test_answers_are_those_of_the_model_s_own_generation(vlm: VLM, examples):
    questions, owner = ["what is it ?", "which ?", "how many are there ?", "which ?"], [0, 1, 1, 2]
    images = [one.image for one in examples]
    ours = generate(vlm, images, questions, owner, [6] * 4)
    for (said, _), asked, place in zip(ours, questions, owner, strict=True):
        batch = vlm.adapter.question_batch([images[place]], [asked])
        theirs = vlm.model.generate(**batch, do_sample=False, max_new_tokens=6)
        told = theirs[0, batch["input_ids"].shape[1] :]
        assert said == vlm.processor.tokenizer.decode(told, skip_special_tokens=True).strip()


def test_both_streams_are_extracted_and_their_metrics_are_finite(vlm: VLM, examples):
    seen: dict[tuple[str, int], torch.Tensor] = {}

    def take(place, tokens, exists):
        assert tokens.shape[:2] == exists.shape
        assert tokens[exists].isfinite().all()
        seen[place] = exists.sum(-1)

    visit(vlm, [one.image for one in examples], take)
    blocks = len(vlm.adapter.blocks(vlm.model)["language"])
    reads = vlm.adapter.cross_attention(vlm.model)
    assert {layer for stream, layer in seen if stream == "text"} == set(range(blocks + 1))
    layers = {0, *(block + 1 for block in reads)} if reads else set(range(blocks + 1))
    assert {layer for stream, layer in seen if stream == "visual"} == layers
    encoded = vlm.adapter.encode(
        vlm.model, vlm.adapter.image_batch([one.image for one in examples])
    )
    for layer in layers:
        assert torch.equal(seen["visual", layer], encoded.exists.sum(-1))
    image_metrics, pooled_metrics = token_tables(vlm, examples)
    pooled = {
        (row["stream"], row["layer"]): row["value"]
        for row in pooled_metrics.to_pylist()
        if row["metric"] == "redundancy_score"
    }
    for layer in layers:
        assert np.isfinite(pooled["visual", layer])
    first = min(reads, default=0) + 1  # the first state of the text that an image has touched
    assert all(np.isfinite(pooled["text", layer]) for layer in range(first, blocks + 1))
    values = image_metrics.to_pandas()
    mine = values[values.stream.isin(["visual", "text"]) & (values.metric == "effective_rank")]
    assert len(mine) == 3 * (len(layers) + blocks + 1)
    assert np.isfinite(mine.value).all()


def test_extended_metrics_of_an_image_do_not_know_of_other_images(vlm: VLM, examples):
    names = get_args(ExtendedMetric)
    images = [one.image for one in examples]
    together = extended_values(vlm, images, names)
    assert {metric for _, _, metric in together} == set(names)
    few = ("cknna_previous", "mutual_information")  # some images have no more than a few tokens
    for (stream, layer, metric), value in together.items():
        assert stream == "text" or metric in few or np.isfinite(value).any(), (layer, metric)
    for number, picture in enumerate(images):
        alone = extended_values(vlm, [picture], names)
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            np.testing.assert_allclose(value[0], together[key][number], rtol=1e-3, err_msg=str(key))


@torch.no_grad()
def test_nothing_deleted_is_the_model_itself(vlm: VLM, examples):
    """At every place of deletion, with images of different sizes in one batch."""
    images = [one.image for one in examples]
    seen = look(vlm, vlm.adapter.image_batch(images))
    whole = vlm.model(**seen.batch, position_ids=seen.positions, use_cache=True)
    blocks = len(vlm.adapter.blocks(vlm.model)["language"])
    for layer in (-1, *range(max(1, vlm.adapter.whole_until(vlm.model)), blocks)):
        read = prefill(vlm, seen, seen.encoded.exists, layer)
        for place, (ours, theirs) in enumerate(
            zip(read.prefix.cache.layers, whole.past_key_values.layers, strict=True)
        ):
            if place not in vlm.adapter.cross_attention(vlm.model):  # those leave empty tiles out
                torch.testing.assert_close(ours.keys, theirs.keys, rtol=1e-4, atol=1e-4)
        questions = ["which ?", "is it red ?", "which ?"]
        asked = asked_tokens(vlm, questions)
        said = respond(vlm, read.prefix, asked, [0, 1, 2], [4] * 3, read.passes)
        assert said == generate(vlm, images, questions, [0, 1, 2], [4] * 3)


@torch.no_grad()
def test_half_the_tokens_gone_are_physically_gone(vlm: VLM, examples):
    images = [one.image for one in examples]
    seen = look(vlm, vlm.adapter.image_batch(images))
    counts = seen.encoded.exists.sum(-1)
    stays = seen.encoded.exists & (torch.arange(seen.encoded.exists.shape[1]) % 2 == 0)
    blocks = len(vlm.adapter.blocks(vlm.model)["language"])
    reads = vlm.adapter.cross_attention(vlm.model)
    for layer in (-1, blocks - 1):
        read = prefill(vlm, seen, stays, layer)
        held = [part.keys.shape[2] for part in read.prefix.cache.layers]
        late = [block for block in reads or range(blocks) if block >= layer]
        whole = prefill(vlm, seen, seen.encoded.exists, layer)
        for block in late:
            window = getattr(read.prefix.cache.layers[block], "sliding_window", None)
            if window is None:
                before = whole.prefix.cache.layers[block].keys.shape[2]
                gone = int(counts.max()) - int(stays.sum(-1).max())
                # Empty tiles stay, so that images with fewer tiles hold more than their own.
                assert 0 < before - held[block] <= gone
                assert reads or before - held[block] == gone
        assert read.cost.peak_bytes < whole.cost.peak_bytes


def test_answers_without_tokens_are_well_formed(vlm: VLM, examples):
    policies = ["random", "norm", "leverage", "unique", "saliency", "attention"]
    blocks = len(vlm.adapter.blocks(vlm.model)["language"])
    places_of = [blocks - 1, *([-1] if isinstance(vlm.adapter, LookingAdapter) else [])]
    spec = DeletionSpec(
        layers=places_of, policies=policies, shares=[0.5], seeds=[0],
        downsampling=isinstance(vlm.adapter, ShrinkingAdapter),
    )  # fmt: skip
    found = delete(vlm, examples, spec).to_pandas()
    assert set(found.policy) == {*policies, *(["downsampling"] if spec.downsampling else [])}
    fewer = found[found.share == 0.5]
    exact = fewer[~fewer.policy.isin(["saliency", "downsampling"])]
    assert (exact.tokens_kept - exact.tokens / 2).abs().max() <= 0.5
    assert (fewer.tokens_kept < fewer.tokens).all()
    assert found.exact.isin([0.0, 1.0]).all()
    everything = found[found.share == 0.0]
    assert (everything.tokens_kept == everything.tokens).all()


def test_examples_without_an_image_are_conversations_of_their_own(vlm: VLM, examples):
    text = example(None, 9, ("what colour is a red circle ?", "red"))
    with torch.no_grad():
        only = vlm.adapter.training_batch([text])
        tokens = (*SEQUENCES, "labels", "position_ids", IMAGE_OF_TOKEN)
        assert any(name not in tokens for name in only)
        assert (only[IMAGE_OF_TOKEN] == -1).all()  # the blank image is nobody's
        (among_none,) = logits_of_turns(vlm, only)
        mixed = logits_of_turns(vlm, vlm.adapter.training_batch([*examples, text]))
        torch.testing.assert_close(
            torch.stack(mixed[:-1]), torch.stack(alone(vlm, examples)), rtol=1e-4, atol=1e-4
        )
        chat = [{"role": "user", "content": [{"type": "text", "text": text.turns[0].question}]}]
        ids = vlm.processor.apply_chat_template(
            chat,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )["input_ids"]
        if vlm.adapter.cross_attention(vlm.model):
            return  # in a batch with images, text alone still passes its cross-attention layers
        expected = vlm.model(input_ids=ids).logits[0, -1]
    torch.testing.assert_close(among_none, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed[-1], expected, rtol=1e-4, atol=1e-4)


def test_several_examples_in_a_row_get_the_logits_that_they_would_get_alone(
    vlm: VLM, examples, monkeypatch
):
    """Whatever the width of the decoder makes of it: here all share a row that can."""
    monkeypatch.setattr("mixlens.models.family.items_a_row", lambda lengths, width: len(lengths))
    with torch.no_grad():
        batch = vlm.adapter.training_batch(examples)
        assert len(batch["input_ids"]) == (1 if vlm.adapter.shares_rows else len(examples))
        found = logits_of_turns(vlm, batch)
        torch.testing.assert_close(
            torch.stack(found), torch.stack(alone(vlm, examples)), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("rows", ["own", "shared", "unmasked"])
def test_visual_tokens_know_their_image(vlm: VLM, examples, monkeypatch, rows):
    """At every layer, what is said to be of an image is what the model makes of it alone."""
    if rows == "unmasked" and vlm.adapter.sees_both_ways:
        return
    each = len if rows == "shared" else lambda lengths: 1
    monkeypatch.setattr("mixlens.models.family.items_a_row", lambda lengths, width: each(lengths))
    text = example(None, 9, ("what colour is a red circle ?", "red"))
    mixed = [examples[0], text, *examples[1:]]
    batch = vlm.adapter.training_batch(mixed, unmasked=rows == "unmasked")
    of = batch[IMAGE_OF_TOKEN]
    assert set(of.unique().tolist()) == {-1, 0, 2, 3}
    states = "keys_values" if vlm.adapter.cross_attention(vlm.model) else "language"
    for number in (0, 2, 3):
        expected = {}
        visit(
            vlm, [mixed[number].image],
            lambda place, tokens, exists, into=expected: into.update({place: tokens[exists]}),
        )  # fmt: skip
        layers = [layer for stream, layer in expected if stream == "visual"]
        with torch.no_grad(), keep(vlm, [(states, layer) for layer in layers]) as kept:
            vlm.model(**vlm.adapter.model_inputs(batch), use_cache=False)
        for layer in layers:
            tokens = kept[states, layer]
            found = tokens.reshape(*of.shape, tokens.shape[-1])[of == number]
            shown = len(mixed[number].turns) if rows == "unmasked" else 1
            torch.testing.assert_close(
                found, expected["visual", layer].repeat(shown, 1), rtol=1e-4, atol=1e-4
            )


def test_towers_hold_every_parameter(vlm: VLM):
    held = set()
    for tower, parts in vlm.adapter.towers(vlm.model).items():
        own = [
            id(weight)
            for part in parts
            for weight in ([part] if isinstance(part, torch.nn.Parameter) else part.parameters())
        ]
        assert own, tower
        held |= set(own)
    assert held == {id(weight) for weight in vlm.model.parameters()}
    assert ("cross_attention" in vlm.adapter.towers(vlm.model)) == bool(
        vlm.adapter.cross_attention(vlm.model)
    )


def test_captured_states_are_those_that_transformers_reports(vlm: VLM, examples):
    batch = vlm.adapter.question_batch([examples[0].image], ["what colour ?"])
    count = len(vlm.adapter.blocks(vlm.model)["language"])
    with keep(vlm, [("language", layer) for layer in range(count + 1)]) as seen:
        states = vlm.model(**batch, output_hidden_states=True).hidden_states
    # The last reported state stands after the final norm; a deep stack adds behind its blocks.
    for (_, layer), ours in list(seen.items())[:-1]:
        if layer == 0 or layer > vlm.adapter.whole_until(vlm.model):
            torch.testing.assert_close(ours, states[layer])
    vision = vlm.adapter.blocks(vlm.model)["vision"]
    assert len(vision) >= 2
    encoder = vlm.adapter.towers(vlm.model)["vision"][0]
    inside = {id(module) for module in encoder.modules()}
    assert all(id(block) in inside for block in vision)


def test_gradients_reach_the_encoder_from_every_captured_layer(vlm: VLM, examples):
    batch = vlm.adapter.training_batch(examples)
    del batch["labels"]
    readers = vlm.adapter.cross_attention(vlm.model)
    states = "keys_values" if readers else "language"
    layers = [0, *(i + 1 for i in readers or range(len(vlm.adapter.blocks(vlm.model)["language"])))]
    first = vlm.adapter.blocks(vlm.model)["vision"][0]
    weight = max(first.parameters(), key=torch.Tensor.numel)
    for layer in layers:
        with keep(vlm, [(states, layer)]) as kept:
            vlm.model(**vlm.adapter.model_inputs(batch), use_cache=False)
        (gradient,) = torch.autograd.grad(kept[states, layer].square().mean(), weight)
        assert gradient.abs().max() > 0, layer
