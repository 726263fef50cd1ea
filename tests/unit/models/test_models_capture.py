"""Captured states against what transformers itself gives out, in value and in gradient."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mixlens.models import load_vlm
from mixlens.models.capture import capture, keep
from mixlens.models.tiny import build_tiny_vlm
from mixlens.tasks import vocabulary

QUESTION = "what colour is it ?"


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
    batch = vlm.adapter.question_batch(images, [QUESTION] * 3)
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
    batch = vlm.adapter.question_batch(images, [QUESTION] * 3)
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
    # Two readers of one image add up what they want of it.
    (gradient,) = torch.autograd.grad(
        found["keys_values", 2].sum() + found["keys_values", 4].sum(), beside
    )
    assert torch.equal(gradient, torch.full_like(beside, 2 * (10 - 1)))


def gradients(vlm, loss):
    vlm.model.zero_grad()
    loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in vlm.model.named_parameters()
        if weight.grad is not None
    }


@pytest.mark.parametrize("recomputes", [False, True])
def test_gradients_are_those_of_the_states_that_transformers_reports(vlm, images, recomputes):
    """Of a penalty on states in the middle, with activation checkpointing too."""
    batch = vlm.adapter.question_batch(images, [QUESTION] * 3)
    states = vlm.model(**batch, output_hidden_states=True).hidden_states
    expected = gradients(vlm, states[0].square().mean() + states[1].pow(4).mean())
    vlm.model.train()
    if recomputes:
        vlm.model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        with keep(vlm, [("language", 0), ("language", 1)]) as kept:
            vlm.model(**batch, use_cache=False)
        assert kept.keys() == {("language", 0), ("language", 1)}
        loss = kept["language", 0].square().mean() + kept["language", 1].pow(4).mean()
        found = gradients(vlm, loss)
    finally:
        vlm.model.gradient_checkpointing_disable()
        vlm.model.eval()
    assert found.keys() == expected.keys()
    assert any("vision_tower" in name for name in found)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_without_places_a_pass_has_no_hooks(vlm, images):
    batch = vlm.adapter.question_batch(images, [QUESTION] * 3)

    def hooks():
        modules = list(vlm.model.modules())
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)

    before = hooks()  # transformers keeps some of its own
    with keep(vlm, ()) as kept:
        assert hooks() == before
        vlm.model(**batch)
    assert kept == {}
