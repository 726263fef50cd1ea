"""The LLaVA adapter on the small built-in architecture with random weights."""

import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mixlens.models import VLM, load_vlm
from mixlens.models.families.llava import LlavaAdapter
from mixlens.models.places import patches, places
from mixlens.models.tiny import build_tiny_vlm
from mixlens.sources.example import Example
from mixlens.tasks.turn import Turn

WORDS = ["what", "colour", "is", "the", "circle", "?", "red", "blue", "large"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, WORDS, seed=3, size="test")
    return folder


@pytest.fixture(scope="module")
def vlm(folder: Path) -> VLM:
    return load_vlm(str(folder))


def example(*turns: tuple[str, str], seed: int = 0) -> Example:
    image = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)
    made = tuple(Turn(question, answer, "coarse", "k", 1, "p") for question, answer in turns)
    return Example("a/0", "a", image, made, {})


def parts_of(vlm: VLM, batch: dict[str, torch.Tensor]) -> list[tuple[int, slice]]:
    """Row and places of each example of a training batch, in order: an image begins each."""
    ids, present = batch["input_ids"], batch["attention_mask"]
    present = present.bool() if present.dim() == 2 else present.diagonal(dim1=-2, dim2=-1)[:, 0]
    found = []
    for row, tokens in enumerate(ids):
        visual = tokens == vlm.adapter.image_token_id
        starts = [
            place for place in range(len(tokens) - 1) if visual[place + 1] and not visual[place]
        ]
        ends = [*starts[1:], int(present[row].sum())]
        found += [(row, slice(*both)) for both in zip(starts, ends, strict=True)]
    return found


QUESTIONS = ["what colour is the circle ?", "is the circle large ?", "what ?"]


@pytest.fixture(params=[1, 2], ids=["rows of their own", "one row"])
def each(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many of two examples share a row, whatever would be least to compute."""
    monkeypatch.setattr("mixlens.models.family.items_a_row", lambda lengths, width: request.param)
    return request.param


def test_examples_share_a_row_where_that_is_less_to_compute(vlm: VLM):
    short = example(("what ?", "blue"), seed=1)
    long = example(*[(QUESTIONS[0], "red blue")] * 14, seed=2)
    for examples, rows in (([short, long], 1), ([short, short], 2), ([long, long], 2)):
        batch = vlm.adapter.training_batch(examples)
        assert len(batch["labels"]) == rows
        assert len(batch["pixel_values"]) == len(parts_of(vlm, batch)) == 2


def test_labels_are_the_answers_and_what_ends_them(vlm: VLM, each: int):
    one = example(("what colour is the circle ?", "red"), ("is the circle large ?", "zebra !"))
    batch = vlm.adapter.training_batch([one, example(("what ?", "blue"))])
    assert len(batch["labels"]) == 2 // each
    parts = [batch["labels"][row][where] for row, where in parts_of(vlm, batch)]
    told = [vlm.processor.tokenizer.decode(part[part >= 0]) for part in parts]
    assert told == [" red<|end|> zebra !<|end|>", " blue<|end|>"]
    # A label stands where its token stands: the model shifts them itself.
    labelled = batch["labels"] >= 0
    assert torch.equal(batch["labels"][labelled], batch["input_ids"][labelled])


def test_every_turn_gets_the_logits_that_it_would_get_alone(vlm: VLM, each: int):
    first = example(*[(asked, "red blue") for asked in QUESTIONS], seed=1)
    second = example(("what ?", "blue"), seed=2)  # shorter, so padded in a row of its own
    batch = vlm.adapter.training_batch([first, second])
    assert len(batch["input_ids"]) == 2 // each
    assert bool((batch["input_ids"] == 0).any()) == (each == 1)
    parts, labels = parts_of(vlm, batch), batch.pop("labels")
    assert len(parts) == 2
    asks = (QUESTIONS, ["what ?"])
    with torch.no_grad():
        together = vlm.model(**batch).logits
        for image, asked, (row, where) in zip((first, second), asks, parts, strict=True):
            answered = labels[row][where] >= 0
            starts = (answered[1:] & ~answered[:-1]).nonzero().flatten()
            assert len(starts) == len(asked)
            for start, text in zip(starts, asked, strict=True):
                alone = vlm.adapter.question_batch([image.image], [text])
                expected = vlm.model(**alone).logits[0, -1]
                found = together[row][where][start]
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_without_masks_every_turn_has_a_row_of_its_own(vlm: VLM):
    first = example(*[(asked, "red blue") for asked in QUESTIONS], seed=1)
    second = example(("what ?", "blue"), seed=2)
    batch = vlm.adapter.training_batch([first, second], unmasked=True)
    labels = batch.pop("labels")
    assert batch["attention_mask"].shape == labels.shape == batch["position_ids"].shape
    assert batch["pixel_values"].shape[0] == len(labels) == 4
    asks = [(first, asked) for asked in QUESTIONS] + [(second, "what ?")]
    with torch.no_grad():
        together = vlm.model(**batch).logits
        for row, (image, text) in enumerate(asks):
            start = int((labels[row] >= 0).nonzero()[0]) - 1
            alone = vlm.adapter.question_batch([image.image], [text])
            expected = vlm.model(**alone).logits[0, -1]
            torch.testing.assert_close(together[row, start], expected, rtol=1e-4, atol=1e-5)
            told = vlm.processor.tokenizer.decode(labels[row][labels[row] >= 0])
            assert told == (" red blue<|end|>" if image is first else " blue<|end|>")


def test_a_question_and_its_answer_follow_the_image_as_when_asked(vlm: VLM, each: int):
    one = example(("what ?", "blue"), (QUESTIONS[0], "red"), seed=2)
    asked = vlm.adapter.question_batch([one.image], [QUESTIONS[0]])
    trained = vlm.adapter.training_batch([example(("what ?", "red"), seed=1), one])
    assert len(trained["input_ids"]) == 2 // each
    row, where = parts_of(vlm, trained)[1]
    ids, labels, positions = (
        trained[name][row][where] for name in ("input_ids", "labels", "position_ids")
    )
    length = asked["input_ids"].shape[1]
    answer = int((labels >= 0).nonzero()[-2])  # "red", before "<|end|>"
    behind = asked["input_ids"][0, 65:]  # <|user|> and 64 visual tokens are shared
    assert torch.equal(ids[:65], asked["input_ids"][0, :65])
    assert torch.equal(ids[answer - len(behind) : answer], behind)
    assert positions[answer] == length
    assert positions[answer - len(behind)] == 65


def test_what_is_asked_is_an_image_and_the_question_s_own_tokens(vlm: VLM):
    image = example(seed=3).image
    begun = vlm.adapter.image_batch([image, image])
    assert begun["input_ids"].shape == (2, 65)
    assert torch.equal(vlm.adapter.positions(begun), torch.arange(65).expand(2, 65))
    for question, behind in zip(QUESTIONS, vlm.adapter.question_tokens(QUESTIONS), strict=True):
        asked = vlm.adapter.question_batch([image], [question])["input_ids"][0].tolist()
        assert begun["input_ids"][0].tolist() + behind == asked


def test_words_of_the_vocabulary_are_one_token_and_others_survive(vlm: VLM):
    tokenizer = vlm.processor.tokenizer
    assert len(tokenizer(" what colour is the circle ?")["input_ids"]) == 6
    text = " Zürich, naïve: 42 % & <b>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_spans_divide_all_but_the_padding(vlm: VLM):
    images = [example().image] * 2
    batch = vlm.adapter.question_batch(images, ["what ?", "what colour is the circle ?"])
    spans = vlm.adapter.spans(batch["input_ids"], batch["attention_mask"])
    together = spans.visual.int() + spans.text.int() + spans.special.int()
    assert torch.equal(together, batch["attention_mask"].int())
    assert spans.visual.sum(1).tolist() == [64, 64]
    assert spans.text.sum(1).tolist() == [2, 6]
    assert spans.special.sum(1).tolist() == [2, 2]
    assert batch["attention_mask"][0, 0] == 0  # padding stands left, for generation


def test_padding_changes_no_answer(vlm: VLM):
    images = [example(seed=seed).image for seed in (1, 2)]
    questions = ["what ?", "what colour is the circle ?"]
    both = vlm.adapter.question_batch(images, questions)
    alone = vlm.adapter.question_batch(images[:1], questions[:1])
    with torch.no_grad():
        together = vlm.model(**both).logits[0, -1]
        single = vlm.model(**alone).logits[0, -1]
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_patches_are_the_pixels_of_the_image_in_token_order(vlm: VLM):
    image = np.zeros((32, 32, 3), np.uint8)
    image[4:8, 8:12] = (255, 128, 0)  # patch row 1, column 2 of the 8 x 8 grid
    batch = vlm.adapter.question_batch([image], ["what ?"])
    (views,) = vlm.adapter.views(batch, [(32, 32)])
    found, exist = patches(image, views, vlm.adapter.cell_side())
    assert found.shape == (64, 3 * 4 * 4)
    assert exist.all()
    lit = found.abs().sum(-1) > 1e-4
    assert lit.nonzero().flatten().tolist() == [1 * 8 + 2]
    where = places(views)
    assert (int(where.row[10]), int(where.column[10])) == (1, 2)
    expected = torch.tensor([255, 128, 0]).repeat_interleave(16) / 255
    torch.testing.assert_close(found[10], expected, atol=1e-6, rtol=0)
    # They are what the encoder is given, but for its normalisation.
    raw = batch["pixel_values"][0] * 0.5 + 1
    given = raw.unfold(1, 4, 4).unfold(2, 4, 4).permute(1, 2, 0, 3, 4).reshape(64, -1)
    torch.testing.assert_close(found, given, atol=1e-6, rtol=0)


def test_encoded_and_raw_images_are_the_same_input(vlm: VLM):
    image = example().image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    raw, encoded = (
        vlm.adapter.question_batch([given], ["what ?"])["pixel_values"]
        for given in (image, file.getvalue())
    )
    assert torch.equal(raw, encoded)


SQUARES = {
    "no crop": {"size": {"height": 32, "width": 32}, "do_center_crop": False},
    "as in CLIP": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
    "of a larger one": {"size": {"shortest_edge": 48}, "crop_size": {"height": 32, "width": 32}},
}


@pytest.fixture(params=SQUARES)
def processor(request: pytest.FixtureRequest) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(**SQUARES[request.param])


def pixels_of(vlm: VLM, image_processor: CLIPImageProcessorPil, images: list) -> torch.Tensor:
    """What the adapter makes of images with this image processor."""
    parts = copy.copy(vlm.processor)
    parts.image_processor = image_processor
    adapter = LlavaAdapter(parts, vlm.model.config)
    return adapter.question_batch(images, ["what ?"] * len(images))["pixel_values"]


@pytest.mark.parametrize("side", [20, 32, 224])
def test_square_images_are_what_the_processor_makes_of_them(vlm, processor, side):
    random = np.random.default_rng(side)
    squares = [random.integers(0, 256, (side, side, 3), np.uint8) for _ in range(3)]
    expected = processor(squares, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels_of(vlm, processor, squares), expected)
    # A photograph in the same batch changes nothing of them.
    photograph = random.integers(0, 256, (30, 50, 3), np.uint8)
    mixed = pixels_of(vlm, processor, [squares[0], photograph, *squares[1:]])
    assert torch.equal(mixed[[0, 2, 3]], expected)
    assert torch.equal(mixed[1:2], pixels_of(vlm, processor, [photograph]))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (33, 32), (480, 640), (8, 400)])
def test_all_of_a_photograph_reaches_the_encoder(vlm, processor, height, width):
    """Places in fractions of its sides stay where they are: at edges, corners and inside."""
    down, right = np.mgrid[:height, :width]
    ramp = np.stack([(down + 0.5) / height, (right + 0.5) / width, np.zeros_like(down)], -1)
    image = (ramp * 255).round().astype(np.uint8)
    pixels = pixels_of(vlm, processor, [image])
    assert pixels.shape == (1, 3, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    seen = (pixels[0] * std + mean)[:2]
    place = (torch.arange(32) + 0.5) / 32
    expected = torch.stack([place[:, None].expand(32, 32), place.expand(32, 32)])
    assert (seen - expected).abs().max() < 0.035  # a pixel is 0.031 wide


def test_a_photograph_s_file_is_the_photograph(vlm: VLM):
    """Upright and in RGB, with as many tokens as any image."""
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (30, 50, 3), np.uint8))
    exif = Image.Exif()
    exif[274] = 6  # stored as it is, shown turned to the right
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    upright = np.rot90(np.asarray(picture), -1)
    from_file, from_array = (
        vlm.adapter.question_batch([given], ["what ?"]) for given in (file.getvalue(), upright)
    )
    assert torch.equal(from_file["pixel_values"], from_array["pixel_values"])
    visual = vlm.adapter.spans(from_file["input_ids"], from_file["attention_mask"]).visual
    assert visual.sum() == 64
    photograph = Example("p/0", "p", file.getvalue(), example(("what ?", "red")).turns, {})
    batch = vlm.adapter.training_batch([photograph, example(("what ?", "blue"))])
    assert torch.equal(batch["pixel_values"][:1], from_array["pixel_values"])


def test_towers_hold_every_parameter_once(vlm: VLM):
    towers = vlm.adapter.towers(vlm.model)
    held = [
        id(parameter)
        for modules in towers.values()
        for parameter in {id(p): p for m in modules for p in m.parameters()}.values()
    ]
    assert sorted(held) == sorted({id(parameter) for parameter in vlm.model.parameters()})


def test_blocks_put_out_the_hidden_states_that_transformers_reports(vlm: VLM):
    batch = vlm.adapter.question_batch([example().image], ["what colour ?"])
    seen: list[torch.Tensor] = []
    blocks = vlm.adapter.blocks(vlm.model)["language"]
    handles = [
        block.register_forward_hook(
            lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        for block in blocks
    ]
    with torch.no_grad():
        states = vlm.model(**batch, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    # The last reported state stands after the final norm, so it is left out.
    for ours, theirs in zip(seen[:-1], states[1:-1], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_folder_is_an_ordinary_checkpoint(folder: Path, vlm: VLM):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what colour ?"}]}
    ]
    image = example().image
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=[image], text=[text], return_tensors="pt", add_special_tokens=False)
    ours = vlm.adapter.question_batch([image], ["what colour ?"])
    assert torch.equal(inputs["input_ids"], ours["input_ids"])
    with torch.no_grad():
        theirs = model(**{name: inputs[name] for name in ours}).logits
        torch.testing.assert_close(theirs, vlm.model(**ours).logits, rtol=1e-4, atol=1e-5)


def test_equal_seeds_make_equal_weights(tmp_path: Path, folder: Path):
    build_tiny_vlm(tmp_path / "same", WORDS, seed=3, size="test")
    build_tiny_vlm(tmp_path / "other", WORDS, seed=4, size="test")
    name = "model.safetensors"
    assert (tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()
