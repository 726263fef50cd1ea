"""Captured states against what transformers itself gives out."""

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mixlens.activations.capture import capture
from mixlens.activations.streams import PROMPT, visit
from mixlens.errors import CheckpointError
from mixlens.models import load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.tasks import vocabulary


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=1, size="test")
    return load_vlm(str(folder))


@pytest.fixture(scope="module")
def images():
    random = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (40, 40, 3), generator=random, dtype=torch.uint8).numpy()
        for _ in range(3)
    ]


def test_states_are_those_of_transformers(vlm, images):
    batch = vlm.adapter.question_batch(images, [PROMPT] * 3)
    seen = []
    with torch.inference_mode(), capture(vlm, lambda *state: seen.append(state)):
        output = vlm.model(**batch, output_hidden_states=True)
    expected = output.hidden_states
    assert [(stack, layer) for stack, layer, _ in seen] == [
        ("vision", -1),
        *(("language", layer) for layer in range(len(expected))),
    ]
    for (_, _, states), theirs in zip(seen[1:-1], expected[:-1], strict=True):
        assert torch.equal(states, theirs)
    with torch.inference_mode():  # their last one is normalised
        norm = vlm.model.model.language_model.norm
        assert torch.allclose(norm(seen[-1][2]), expected[-1], atol=1e-6)
        projected = vlm.adapter.projector(vlm.model)(seen[0][2])
    theirs = output.image_hidden_states  # a list, one tensor an image, from transformers 5.24 on
    theirs = torch.cat(list(theirs)) if isinstance(theirs, list) else theirs
    assert torch.allclose(projected, theirs.reshape(projected.shape))


def test_hooks_are_gone_afterwards_even_after_an_error(vlm, images):
    batch = vlm.adapter.question_batch(images, [PROMPT] * 3)
    calls = []

    def fail(*state):
        calls.append(state)
        raise ArithmeticError

    with pytest.raises(ArithmeticError), capture(vlm, fail):
        vlm.model(**batch)
    assert len(calls) == 1
    vlm.model(**batch)
    assert len(calls) == 1


def test_blocks_that_take_keywords_and_give_tuples():
    class Block(nn.Module):
        def forward(self, hidden_states, scale=2.0):
            return hidden_states * scale, "weights"

    blocks = [Block(), Block()]
    projector = nn.Identity()
    adapter = SimpleNamespace(
        blocks=lambda model: {"vision": [], "language": blocks},
        projector=lambda model: projector,
        cross_attention=lambda model: {},
    )
    seen = []
    with capture(SimpleNamespace(model=None, adapter=adapter), lambda *state: seen.append(state)):
        states = projector(torch.ones(1, 2, 3))
        for block in blocks:
            states, _ = block(hidden_states=states)
    assert [(stack, layer, float(x.mean())) for stack, layer, x in seen] == [
        ("vision", -1, 1.0),
        ("language", 0, 1.0),
        ("language", 1, 2.0),
        ("language", 2, 4.0),
    ]


@pytest.mark.parametrize("values_first", [False, True])
def test_blocks_that_read_beside_the_sequence_give_what_they_read(values_first):
    """Keys and values of two parts an image, of 2 heads, and what the projector made them from."""

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.k_norm, self.v_proj = nn.Identity(), nn.Identity()

        def forward(self, states, beside):
            def keys():
                self.k_norm(beside.view(2, 6, 2, 2).transpose(1, 2) * 10)

            if not values_first:
                keys()
            self.v_proj(-beside)  # still in parts: [4, 3, width]
            if values_first:
                keys()
            return states + 1

    blocks = [nn.Identity(), Reader(), nn.Identity(), Reader()]
    projector = nn.Linear(4, 4, bias=False)
    adapter = SimpleNamespace(
        blocks=lambda model: {"vision": [], "language": blocks},
        projector=lambda model: projector,
        cross_attention=lambda model: {i: (blocks[i].k_norm, blocks[i].v_proj) for i in (1, 3)},
    )
    seen = []
    with capture(SimpleNamespace(model=None, adapter=adapter), lambda *state: seen.append(state)):
        encoded = torch.arange(48.0).view(4, 3, 4)
        beside = projector(encoded)
        states = torch.zeros(2, 5, 7)
        for block in blocks:
            states = block(states, beside) if isinstance(block, Reader) else block(states)
    assert [(name, layer) for name, layer, _ in seen] == [
        ("vision", -1), ("keys_values", 0), ("language", 0), ("language", 1),
        ("keys_values", 2), ("language", 2), ("language", 3), ("keys_values", 4), ("language", 4),
    ]  # fmt: skip
    found = {(name, layer): tensor for name, layer, tensor in seen}
    assert torch.equal(found["vision", -1], encoded)
    assert torch.equal(found["keys_values", 0], beside)
    per_image = beside.view(2, 6, 4)  # two parts of three tokens
    for layer in (2, 4):
        joined = found["keys_values", layer]
        assert torch.equal(joined, torch.cat([per_image * 10, -per_image], -1))
    assert not any(tensor.requires_grad for tensor in found.values())


def test_streams_hold_the_tokens_they_name(vlm, images):
    batch = vlm.adapter.question_batch(images, [PROMPT] * 3)
    with torch.inference_mode():
        output = vlm.model(**batch, output_hidden_states=True)
    seen = {}
    visit(vlm, images, lambda place, tokens, exists: seen.update({place: (tokens, exists)}))

    visual = batch["input_ids"] == vlm.model.config.image_token_id
    after = batch["input_ids"][0].tolist()[int(visual[0].nonzero().max()) + 1 :]
    words = vlm.processor.tokenizer(f" {PROMPT}", add_special_tokens=False).input_ids
    assert after[: len(words)] == words  # the prompt stands behind the image
    for layer in (0, 1):
        states = output.hidden_states[layer]
        tokens, exists = seen["visual", layer]
        assert exists.all()
        assert torch.equal(tokens, states[visual].reshape(3, 64, -1))
        first = int(visual[0].nonzero().max()) + 1
        assert torch.equal(seen["text", layer][0], states[:, first : first + len(words)])
    for found, image in zip(seen["pixels", -1][0], images, strict=True):
        # 8 x 8 patches of 4 x 4 pixels, each channel by channel.
        scaled = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC))
        cells = scaled.reshape(8, 4, 8, 4, 3).transpose(0, 2, 4, 1, 3).reshape(64, -1)
        torch.testing.assert_close(found, torch.from_numpy(cells).float() / 255)
    for stream in ("pixels", "vision"):
        tokens, exists = seen[stream, -1]
        assert tokens.shape[:2] == (3, 64)
        assert exists.shape == (3, 64)
        assert exists.all()
    with torch.inference_mode():
        projected = vlm.adapter.projector(vlm.model)(seen["vision", -1][0])
    torch.testing.assert_close(projected, seen["visual", 0][0])


def test_one_layer_is_alive_at_a_time(vlm, images):
    alive = []

    def take(place, tokens, exists):
        # The patches are the caller's input, not a layer of the model.
        assert [p for p, r in alive if r() is not None and p[0] != "pixels"] in (
            [],
            [("visual", place[1])],
        )
        alive.append((place, weakref.ref(tokens)))

    visit(vlm, images, take)
    assert len(alive) == 2 + 2 * 3


def test_a_model_that_sees_nothing_is_refused(vlm, images, monkeypatch):
    spans = vlm.adapter.spans

    def blind(*args):
        found = spans(*args)
        return SimpleNamespace(visual=found.visual & False, text=found.text)

    monkeypatch.setattr(vlm.adapter, "spans", blind)
    with pytest.raises(CheckpointError, match="no visual token"):
        visit(vlm, images, lambda *_: None)
