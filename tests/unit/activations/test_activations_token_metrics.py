"""The default set against the public functions one by one, and against numpy's own SVD."""

import numpy as np
import pytest
import torch

from mixlens.activations import reduce
from mixlens.activations.reduce import ACROSS, WITHIN, layer_values
from mixlens.activations.token_metrics import token_metrics
from mixlens.metrics import (
    alpha_req,
    condition_number,
    effective_rank,
    energy_entropy,
    gini,
    hoyer,
    mean_cosine,
    norm_cv,
    numerical_rank,
    participation_ratio,
    spectral_k,
    stable_rank,
    token_norms,
    top_subspace,
    von_neumann_entropy,
)
from mixlens.metrics.norms import no_sinks


def public(tokens, mask=None):
    norms = token_norms(tokens)
    exists = torch.ones_like(norms, dtype=torch.bool) if mask is None else mask
    sinks = 1 - no_sinks(norms, exists).sum(-1) / exists.sum(-1).double()
    return {
        "gini": gini(norms, mask),
        "hoyer": hoyer(norms, mask),
        "energy_entropy": energy_entropy(norms, mask),
        "norm_cv": norm_cv(norms, mask),
        "sink_share": sinks,
        "mean_cosine": mean_cosine(tokens, mask),
        "participation_ratio": participation_ratio(tokens, mask),
        "stable_rank": stable_rank(tokens, mask),
        "effective_rank": effective_rank(tokens, mask),
        "von_neumann_entropy": von_neumann_entropy(tokens, mask),
        "numerical_rank": numerical_rank(tokens, mask),
        "spectral_k90": spectral_k(tokens, mask, 0.9),
        "spectral_k95": spectral_k(tokens, mask, 0.95),
        "spectral_k99": spectral_k(tokens, mask, 0.99),
        "condition_number_k99": condition_number(tokens, mask, 0.99),
    }


def spread_tokens(images, tokens, width, seed=0):
    """Tokens with a decaying spectrum, a mean direction, and norms that vary: some are sinks."""
    random = torch.Generator().manual_seed(seed)
    draw = torch.randn(images, tokens, width, generator=random)
    draw = draw / torch.arange(1, width + 1) ** 0.5 + 0.1
    scale = torch.rand(images, tokens, 1, generator=random) + 0.1
    scale[:, ::9] *= 20
    return draw * scale


@pytest.mark.parametrize("shape", [(3, 20, 48), (3, 48, 20), (2, 30, 30)])
def test_the_set_is_the_public_functions(shape):
    tokens = spread_tokens(*shape)
    found, basis = token_metrics(tokens, None, shape[1])
    expected = public(tokens)
    assert found.keys() == expected.keys() | {"subspace_gap"}
    for metric, value in expected.items():
        assert value.dtype == found[metric].dtype == torch.float64, metric
        torch.testing.assert_close(found[metric], value, rtol=1e-9, atol=1e-12, msg=metric)
    assert float(found["sink_share"].min()) > 0
    assert torch.allclose(basis, top_subspace(tokens, 5))


def test_the_set_against_numpy():
    tokens = spread_tokens(4, 64, 96)
    found, _ = token_metrics(tokens, None, 64)
    for i, image in enumerate(tokens.double().numpy()):
        s = np.linalg.svd(image, compute_uv=False)
        p, q, e = s**2 / (s**2).sum(), s / s.sum(), np.linalg.norm(image, axis=1)
        units = image / e[:, None]
        k = {share: int(np.argmax(np.cumsum(p) >= share)) + 1 for share in (0.9, 0.95, 0.99)}
        assert k[0.9] < k[0.99]
        slope, _ = np.polyfit(np.log(np.arange(6, 31)), np.log(s[5:30] ** 2), 1)
        r = np.corrcoef(np.log(np.arange(6, 31)), np.log(s[5:30]))[0, 1]
        expected = {
            "gini": np.abs(e[:, None] - e).sum() / (2 * len(e) ** 2 * e.mean()),
            "norm_cv": e.std() / e.mean(),
            "hoyer": (8 - e.sum() / np.sqrt((e**2).sum())) / 7,
            "sink_share": (e > 3 * np.sort(e)[31]).mean(),
            "mean_cosine": (units @ units.T)[~np.eye(64, dtype=bool)].mean(),
            "participation_ratio": 1 / (p**2).sum(),
            "stable_rank": 1 / p[0],
            "effective_rank": np.exp(-(q * np.log(q)).sum()),
            "von_neumann_entropy": -(p * np.log(p)).sum(),
            "numerical_rank": (s > 0.01 * s[0]).sum(),
            "spectral_k90": k[0.9],
            "spectral_k95": k[0.95],
            "spectral_k99": k[0.99],
            "condition_number_k99": s[0] / s[k[0.99] - 1],
            "subspace_gap": 1 - s[5] / s[4],
            "alpha_req": -slope,
            "alpha_req_r2": r**2,
        }
        for metric, value in expected.items():
            assert float(found[metric][i]) == pytest.approx(value, rel=1e-8), metric


def test_absent_tokens_count_for_nothing():
    tokens = spread_tokens(3, 24, 40)
    mask = torch.arange(24) < torch.tensor([24, 17, 9])[:, None]
    padded = torch.where(mask[..., None], tokens, torch.nan)
    found, basis = token_metrics(padded, mask, 24)
    for row, count in enumerate((24, 17, 9)):
        alone, own = token_metrics(tokens[row : row + 1, :count], None, 24)
        assert alone.keys() == found.keys()
        for metric, value in alone.items():
            torch.testing.assert_close(found[metric][row], value[0], rtol=1e-9, atol=1e-12)
        overlap = (basis[row].mT @ own[0]) ** 2
        assert float(overlap.sum()) == pytest.approx(5)


def test_bf16_tokens_lose_nothing():
    tokens = spread_tokens(3, 20, 48).bfloat16()
    rounded, _ = token_metrics(tokens, None, 20)
    wide, _ = token_metrics(tokens.double(), None, 20)
    for metric, value in wide.items():
        assert torch.equal(rounded[metric], value), metric


@pytest.mark.parametrize("shape", [(3, 12, 40), (3, 40, 12)])
def test_a_broken_image_is_not_estimable_and_spoils_no_other(shape):
    tokens = spread_tokens(*shape)
    whole, _ = token_metrics(tokens, None, shape[1])
    tokens[1, 4, 2] = torch.nan
    found, basis = token_metrics(tokens, None, shape[1])
    for metric, value in found.items():
        assert value.isnan().tolist() == [False, True, False], metric
        assert torch.equal(value[[0, 2]], whole[metric][[0, 2]])
    assert basis[1].isnan().all()
    assert basis[[0, 2]].isfinite().all()


def test_a_zero_token_has_no_direction():
    tokens = spread_tokens(1, 10, 40)
    tokens[0, 3] = 0
    found, _ = token_metrics(tokens, None, 10)
    torch.testing.assert_close(found["mean_cosine"], mean_cosine(tokens))
    nothing, _ = token_metrics(torch.zeros(1, 10, 40), None, 10)
    undefined = {metric for metric, value in nothing.items() if value.isnan().all()}
    assert undefined == nothing.keys() - {"sink_share"}


@pytest.mark.parametrize(
    ("tokens", "width", "window"),
    [(250, 256, (11, 100)), (199, 256, (6, 30)), (64, 80, (6, 30)), (256, 60, (6, 30))],
)
def test_the_window_of_the_power_law_goes_by_size(tokens, width, window):
    states = spread_tokens(2, tokens, width)
    found, _ = token_metrics(states, None, tokens)
    law = alpha_req(states, window=window)
    assert law.alpha.isfinite().all()
    torch.testing.assert_close(found["alpha_req"], law.alpha)
    torch.testing.assert_close(found["alpha_req_r2"], law.r2)
    few, _ = token_metrics(states[:, :40], None, tokens)
    assert few.keys() == found.keys()  # whatever the batch, the same is measured
    assert few["alpha_req"].isfinite().all() is not (window[1] > 40)


def test_few_tokens_have_no_power_law_and_no_sixth_direction():
    states = spread_tokens(2, 5, 80)
    found, basis = token_metrics(states, None, 5)
    assert found.keys().isdisjoint({"alpha_req", "alpha_req_r2", "subspace_gap"})
    assert basis.shape == (2, 80, 5)
    small_batch, _ = token_metrics(states, None, 6)  # other images of the stream have six
    assert small_batch["subspace_gap"].tolist() == [1, 1]


@pytest.mark.parametrize("at_once", [1, 2 * 12 * 20, 3 * 12 * 20 + 1])
def test_images_taken_a_few_at_a_time_give_the_same(monkeypatch, at_once):
    tokens = spread_tokens(6, 12, 20)
    mean = tokens.double().mean(0)
    exists = torch.arange(12) < torch.tensor([12, 9, 12, 4, 11, 7])[:, None]
    for mask in (exists, torch.ones_like(exists)):
        monkeypatch.undo()
        whole, bases = layer_values(tokens, mask, mean, 12)
        monkeypatch.setattr(reduce, "AT_ONCE_ON_CPU", at_once)
        found, some = layer_values(tokens, mask, mean, 12)
        assert found.keys() == whole.keys()
        for metric, value in whole.items():
            assert value.shape == (5,)
            torch.testing.assert_close(found[metric], value, rtol=1e-6, atol=1e-9, equal_nan=True)
        assert whole["subspace_gap"].isnan().tolist() == (mask.sum(-1)[:-1] < 5).tolist()
        torch.testing.assert_close(some, bases)


def test_similarities_are_those_of_neighbours():
    tokens = spread_tokens(4, 7, 20).double()
    found, _ = layer_values(tokens, torch.ones(4, 7, dtype=torch.bool), None, 7)
    units = torch.nn.functional.normalize(tokens, dim=-1)
    for i in range(3):
        own = ((units[i] @ units[i].T) ** 2)[~torch.eye(7, dtype=torch.bool)].mean()
        other = ((units[i] @ units[i + 1].T) ** 2).mean()
        assert float(found[WITHIN][i]) == pytest.approx(float(own))
        assert float(found[ACROSS][i]) == pytest.approx(float(other))
