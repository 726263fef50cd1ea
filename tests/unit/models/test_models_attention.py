"""The CPU's attention against the eager attention of transformers."""

import copy

import pytest
import torch

from mixlens.models import load_vllm
from mixlens.models.attention import PLAIN
from mixlens.models.tiny import build_tiny_vllm
from mixlens.models.turns import TurnTokens, pack


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    build_tiny_vllm(folder, ["a", "b"], size="test")
    model = load_vllm(str(folder)).model
    assert model.config._attn_implementation == PLAIN
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    return model, eager


def batch():
    """Two images of unequal length, so that some rows of the mask see nothing at all."""
    image = [1] * 64  # one placeholder a patch
    turns = [[TurnTokens([5, 6, 7], [-100, 6, 7])], [TurnTokens([8, 9], [-100, 9])] * 3]
    rows = pack([[2, *image]] * 2, turns, pad_id=0)
    return rows | {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.manual_seed(0))}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_logits_and_gradients_are_those_of_eager_attention(models, dtype, tolerance):
    logits, gradients = [], []
    for model in models:
        model.zero_grad()
        rows = batch()
        wanted = rows.pop("labels") != -100
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            answers = model(**rows).logits[wanted].float()
        answers.square().sum().backward()
        logits.append(answers.detach())
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    torch.testing.assert_close(logits[0], logits[1], atol=tolerance, rtol=tolerance)
    assert gradients[0].isfinite().all()
    error = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert error < tolerance
