"""The CPU's attention against the eager attention of transformers."""

import copy
import math

import pytest
import torch

from mixlens.models import load_vlm
from mixlens.models.attention import PLAIN, plain_attention
from mixlens.models.tiny import build_tiny_vlm
from mixlens.models.turns import Item, TurnTokens, pack


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    build_tiny_vlm(folder, ["a", "b"], size="test")
    model = load_vlm(str(folder)).model
    assert model.config._attn_implementation == PLAIN
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    return model, eager


def batch(each: int, boolean: bool):
    """Two images of unequal length, `each` a row, so that some positions are padding."""
    image = torch.tensor([2] + [1] * 64)  # one placeholder a patch
    turns = [[TurnTokens([5, 6, 7], [-100, 6, 7])], [TurnTokens([8, 9], [-100, 9])] * 3]
    causal = torch.zeros(65, dtype=torch.bool)
    rows = pack([Item(image, torch.arange(65)[None], causal, own) for own in turns], each, pad_id=0)
    sees = rows.sees[:, None]
    lowest = torch.finfo(torch.float32).min
    return {
        "input_ids": rows.input_ids,
        "labels": rows.labels,
        "position_ids": rows.position_ids[0],
        "attention_mask": sees if boolean else torch.zeros(sees.shape).masked_fill(~sees, lowest),
        "pixel_values": torch.randn(2, 3, 32, 32, generator=torch.manual_seed(0)),
    }


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("boolean", [False, True], ids=["added", "boolean"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_logits_and_gradients_are_those_of_eager_attention(models, dtype, tolerance, boolean, each):
    logits, gradients = [], []
    for model in models:
        model.zero_grad()
        # Eager attention adds its mask to the scores, so that it can take no boolean one.
        rows = batch(each, boolean and model is models[0])
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("boolean", [False, True], ids=["added", "boolean"])
def test_each_query_weighs_the_keys_that_it_sees(dtype, boolean):
    """Written out, with grouped keys; a query that sees nothing is still a number."""
    random = torch.manual_seed(1)
    query = torch.randn(2, 4, 3, 8, generator=random)
    key, value = (torch.randn(2, 2, 5, 8, generator=random) for _ in range(2))
    sees = torch.rand(2, 1, 3, 5, generator=random) < 0.5
    sees[0, 0, 1] = False
    assert sees[1].any(-1).all()
    mask = sees if boolean else torch.zeros(sees.shape).masked_fill(~sees, -3.4e38)
    narrow = (part.to(dtype) for part in (query, key, value))
    found, weights = plain_attention(torch.nn.Module().eval(), *narrow, mask, scaling=0.3)
    assert found.dtype == weights.dtype == dtype
    assert found.isfinite().all()
    for row, head, asks in torch.cartesian_prod(*map(torch.arange, (2, 4, 3))).tolist():
        seen = [k for k in range(5) if sees[row, 0, asks, k]]
        if not seen:
            continue
        scores = [float(query[row, head, asks] @ key[row, head // 2, k]) * 0.3 for k in seen]
        each = [math.exp(score) for score in scores]
        expected = sum(e * value[row, head // 2, k] for e, k in zip(each, seen, strict=True))
        near = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 5e-2, "rtol": 0}
        torch.testing.assert_close(found[row, asks, head].float(), expected / sum(each), **near)
        hidden = [k for k in range(5) if k not in seen]
        assert not weights[row, head, asks, hidden].any()
