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

from mixlens.models import Vllm, load_vllm
from mixlens.models.llava import LlavaAdapter
from mixlens.models.tiny import build_tiny_vllm
from mixlens.sources.example import Example
from mixlens.tasks.turn import Turn

WORDS = ["what", "colour", "is", "the", "circle", "?", "red", "blue", "large"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vllm(folder, WORDS, seed=3, size="test")
    return folder


@pytest.fixture(scope="module")
def vllm(folder: Path) -> Vllm:
    return load_vllm(str(folder))


def example(*turns: tuple[str, str], seed: int = 0) -> Example:
    image = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), np.uint8)
    made = tuple(Turn(question, answer, "coarse", "k", 1, "p") for question, answer in turns)
    return Example("a/0", "a", image, made, {})


def test_labels_are_the_answers_and_what_ends_them(vllm: Vllm):
    one = example(("what colour is the circle ?", "red"), ("is the circle large ?", "zebra !"))
    batch = vllm.adapter.training_batch([one, example(("what ?", "blue"))])
    told = [vllm.processor.tokenizer.decode(row[row >= 0]) for row in batch["labels"]]
    assert told == [" red<|end|> zebra !<|end|>", " blue<|end|>"]
    # A label stands where its token stands: the model shifts them itself.
    labelled = batch["labels"] >= 0
    assert torch.equal(batch["labels"][labelled], batch["input_ids"][labelled])


def test_every_turn_gets_the_logits_that_it_would_get_alone(vllm: Vllm):
    questions = ["what colour is the circle ?", "is the circle large ?", "what ?"]
    first = example(*[(asked, "red blue") for asked in questions], seed=1)
    second = example(("what ?", "blue"), seed=2)  # shorter, so padded
    batch = vllm.adapter.training_batch([first, second])
    labels = batch.pop("labels")
    with torch.no_grad():
        together = vllm.model(**batch).logits
        for image, row, asked in ((first, 0, questions), (second, 1, ["what ?"])):
            answered = labels[row] >= 0
            starts = (answered[1:] & ~answered[:-1]).nonzero().flatten()
            assert len(starts) == len(asked)
            for start, text in zip(starts, asked, strict=True):
                alone = vllm.adapter.question_batch([image.image], [text])
                expected = vllm.model(**alone).logits[0, -1]
                torch.testing.assert_close(together[row, start], expected, rtol=1e-4, atol=1e-5)


def test_a_question_and_its_answer_follow_the_image_as_when_asked(vllm: Vllm):
    one = example(("what ?", "blue"), ("what colour is the circle ?", "red"))
    asked = vllm.adapter.question_batch([one.image], ["what colour is the circle ?"])
    trained = vllm.adapter.training_batch([one])
    length = asked["input_ids"].shape[1]
    answer = int((trained["labels"][0] >= 0).nonzero()[-2])  # "red", before "<|end|>"
    behind = asked["input_ids"][0, 65:]  # <|user|> and 64 visual tokens are shared
    assert torch.equal(trained["input_ids"][0, answer - len(behind) : answer], behind)
    assert trained["position_ids"][0, answer] == length


def test_words_of_the_vocabulary_are_one_token_and_others_survive(vllm: Vllm):
    tokenizer = vllm.processor.tokenizer
    assert len(tokenizer(" what colour is the circle ?")["input_ids"]) == 6
    text = " Zürich, naïve: 42 % & <b>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_spans_divide_all_but_the_padding(vllm: Vllm):
    images = [example().image] * 2
    batch = vllm.adapter.question_batch(images, ["what ?", "what colour is the circle ?"])
    spans = vllm.adapter.spans(batch["input_ids"], batch["attention_mask"])
    together = spans.visual.int() + spans.text.int() + spans.special.int()
    assert torch.equal(together, batch["attention_mask"].int())
    assert spans.visual.sum(1).tolist() == [64, 64]
    assert spans.text.sum(1).tolist() == [2, 6]
    assert spans.special.sum(1).tolist() == [2, 2]
    assert batch["attention_mask"][0, 0] == 0  # padding stands left, for generation


def test_padding_changes_no_answer(vllm: Vllm):
    images = [example(seed=seed).image for seed in (1, 2)]
    questions = ["what ?", "what colour is the circle ?"]
    both = vllm.adapter.question_batch(images, questions)
    alone = vllm.adapter.question_batch(images[:1], questions[:1])
    with torch.no_grad():
        together = vllm.model(**both).logits[0, -1]
        single = vllm.model(**alone).logits[0, -1]
    torch.testing.assert_close(together, single, rtol=1e-4, atol=1e-5)


def test_patches_are_the_pixels_of_the_image_in_token_order(vllm: Vllm):
    image = np.zeros((32, 32, 3), np.uint8)
    image[4:8, 8:12] = (255, 128, 0)  # patch row 1, column 2 of the 8 x 8 grid
    pixels = vllm.adapter.question_batch([image], ["what ?"])["pixel_values"]
    patches = vllm.adapter.patches(pixels)
    assert patches.shape == (1, 64, 3 * 4 * 4)
    lit = patches[0].abs().sum(-1) > 1e-4
    assert lit.nonzero().flatten().tolist() == [1 * 8 + 2]
    expected = torch.tensor([255, 128, 0]).repeat_interleave(16) / 255
    torch.testing.assert_close(patches[0, 10], expected, atol=1e-6, rtol=0)


def test_encoded_and_raw_images_are_the_same_input(vllm: Vllm):
    image = example().image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    raw, encoded = (
        vllm.adapter.question_batch([given], ["what ?"])["pixel_values"]
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


def pixels_of(vllm: Vllm, image_processor: CLIPImageProcessorPil, images: list) -> torch.Tensor:
    """What the adapter makes of images with this image processor."""
    parts = copy.copy(vllm.processor)
    parts.image_processor = image_processor
    return LlavaAdapter(parts).question_batch(images, ["what ?"] * len(images))["pixel_values"]


@pytest.mark.parametrize("side", [20, 32, 224])
def test_square_images_are_what_the_processor_makes_of_them(vllm, processor, side):
    random = np.random.default_rng(side)
    squares = [random.integers(0, 256, (side, side, 3), np.uint8) for _ in range(3)]
    expected = processor(squares, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels_of(vllm, processor, squares), expected)
    # A photograph in the same batch changes nothing of them.
    photograph = random.integers(0, 256, (30, 50, 3), np.uint8)
    mixed = pixels_of(vllm, processor, [squares[0], photograph, *squares[1:]])
    assert torch.equal(mixed[[0, 2, 3]], expected)
    assert torch.equal(mixed[1:2], pixels_of(vllm, processor, [photograph]))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (96, 64), (33, 32), (480, 640), (8, 400)])
def test_all_of_a_photograph_reaches_the_encoder(vllm, processor, height, width):
    """Places in fractions of its sides stay where they are: at edges, corners and inside."""
    down, right = np.mgrid[:height, :width]
    ramp = np.stack([(down + 0.5) / height, (right + 0.5) / width, np.zeros_like(down)], -1)
    image = (ramp * 255).round().astype(np.uint8)
    pixels = pixels_of(vllm, processor, [image])
    assert pixels.shape == (1, 3, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    seen = (pixels[0] * std + mean)[:2]
    place = (torch.arange(32) + 0.5) / 32
    expected = torch.stack([place[:, None].expand(32, 32), place.expand(32, 32)])
    assert (seen - expected).abs().max() < 0.035  # a pixel is 0.031 wide


def test_a_photograph_s_file_is_the_photograph(vllm: Vllm):
    """Upright and in RGB, with as many tokens as any image."""
    random = np.random.default_rng(0)
    picture = Image.fromarray(random.integers(0, 256, (30, 50, 3), np.uint8))
    exif = Image.Exif()
    exif[274] = 6  # stored as it is, shown turned to the right
    file = io.BytesIO()
    picture.save(file, "PNG", exif=exif)
    upright = np.rot90(np.asarray(picture), -1)
    from_file, from_array = (
        vllm.adapter.question_batch([given], ["what ?"]) for given in (file.getvalue(), upright)
    )
    assert torch.equal(from_file["pixel_values"], from_array["pixel_values"])
    visual = vllm.adapter.spans(from_file["input_ids"], from_file["attention_mask"]).visual
    assert visual.sum() == 64
    photograph = Example("p/0", "p", file.getvalue(), example(("what ?", "red")).turns, {})
    batch = vllm.adapter.training_batch([photograph, example(("what ?", "blue"))])
    assert torch.equal(batch["pixel_values"][:1], from_array["pixel_values"])


def test_towers_hold_every_parameter_once(vllm: Vllm):
    towers = vllm.adapter.towers(vllm.model)
    held = [
        id(parameter)
        for modules in towers.values()
        for parameter in {id(p): p for m in modules for p in m.parameters()}.values()
    ]
    assert sorted(held) == sorted({id(parameter) for parameter in vllm.model.parameters()})


def test_blocks_put_out_the_hidden_states_that_transformers_reports(vllm: Vllm):
    batch = vllm.adapter.question_batch([example().image], ["what colour ?"])
    seen: list[torch.Tensor] = []
    blocks = vllm.adapter.blocks(vllm.model)["language"]
    handles = [
        block.register_forward_hook(
            lambda _m, _i, out: seen.append(out[0] if isinstance(out, tuple) else out)
        )
        for block in blocks
    ]
    with torch.no_grad():
        states = vllm.model(**batch, output_hidden_states=True).hidden_states
    for handle in handles:
        handle.remove()
    # The last reported state stands after the final norm, so it is left out.
    for ours, theirs in zip(seen[:-1], states[1:-1], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_folder_is_an_ordinary_checkpoint(folder: Path, vllm: Vllm):
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what colour ?"}]}
    ]
    image = example().image
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=[image], text=[text], return_tensors="pt", add_special_tokens=False)
    ours = vllm.adapter.question_batch([image], ["what colour ?"])
    assert torch.equal(inputs["input_ids"], ours["input_ids"])
    with torch.no_grad():
        theirs = model(**{name: inputs[name] for name in ours}).logits
        torch.testing.assert_close(theirs, vllm.model(**ours).logits, rtol=1e-4, atol=1e-5)


def test_equal_seeds_make_equal_weights(tmp_path: Path, folder: Path):
    build_tiny_vllm(tmp_path / "same", WORDS, seed=3, size="test")
    build_tiny_vllm(tmp_path / "other", WORDS, seed=4, size="test")
    name = "model.safetensors"
    assert (tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes()
    assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()
