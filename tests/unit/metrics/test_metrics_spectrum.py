"""Entropies and decay of the spectrum of tokens against independent truth."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, stats
from sklearn.decomposition import PCA

from mixlens.metrics import (
    alpha_req,
    condition_number,
    effective_rank,
    numerical_rank,
    participation_ratio,
    rankme,
    spectral_k,
    stable_rank,
    von_neumann_entropy,
)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_spectrum(singular, shape, seed=0):
    """Tokens with these singular values, in random directions."""
    sides = [
        torch.linalg.qr(gaussian(n, len(singular), seed=seed + i)).Q for i, n in enumerate(shape)
    ]
    return sides[0] @ torch.as_tensor(singular, dtype=torch.float64).diag() @ sides[1].T


EVERY = {
    "rankme": rankme,
    "von_neumann_entropy": von_neumann_entropy,
    "numerical_rank": lambda tokens, mask=None: numerical_rank(tokens, mask, epsilon=0.3),
    "spectral_k": spectral_k,
    "condition_number": condition_number,
    "condition_number_share": lambda tokens, mask=None: condition_number(tokens, mask, 0.8),
    "alpha_req": lambda tokens, mask=None: alpha_req(tokens, mask, (1, 2)).alpha,
    "r2": lambda tokens, mask=None: alpha_req(tokens, mask, (1, 3)).r2,
}
each_metric = pytest.mark.parametrize("metric", EVERY.values(), ids=EVERY)


# ---- closed forms and other implementations


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_entropies_agree_with_a_density_matrix(shape):
    tokens = gaussian(*shape) + 0.3
    small = (tokens @ tokens.T if shape[0] < shape[1] else tokens.T @ tokens).numpy()
    density = small / np.trace(small)
    assert von_neumann_entropy(tokens) == pytest.approx(-np.trace(density @ linalg.logm(density)))
    assert participation_ratio(tokens) == pytest.approx(1 / np.trace(density @ density))


def test_rankme_adds_its_epsilon_to_every_share():
    tokens = of_spectrum([5.0, 1.0, 1e-3, 1e-6], (9, 4))
    share = np.linalg.svd(tokens.numpy(), compute_uv=False) / (6.001001) + 1e-7
    assert rankme(tokens) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-9)
    assert rankme(tokens) != pytest.approx(effective_rank(tokens).item(), rel=1e-7)


def test_entropies_of_a_known_spectrum():
    tokens = of_spectrum([2.0, 1.0, 1.0], (9, 7))
    shares = math.log(6) / 3 + math.log(3 / 2) * 2 / 3
    assert von_neumann_entropy(tokens) == pytest.approx(shares)
    assert participation_ratio(tokens) == pytest.approx(1 / (4 / 9 + 2 / 36))
    assert rankme(tokens) == pytest.approx(math.exp(math.log(2) / 2 + math.log(4) / 2), rel=1e-5)


def test_gaussian_tokens_against_their_nulls():
    n, d = 96, 682  # the ratio of 576 tokens of width 4096
    tokens = gaussian(6, n, d)
    assert von_neumann_entropy(tokens).mean() == pytest.approx(math.log(n) - n / (2 * d), abs=1e-3)
    assert participation_ratio(tokens).log().mean() == pytest.approx(
        math.log((n * d + 2) / (n + d + 1)), abs=1e-3
    )
    assert rankme(tokens).mean() == pytest.approx(0.98 * n, rel=3e-3)


def test_numerical_rank_counts_singular_values_above_a_share_of_the_first():
    tokens = of_spectrum([10.0, 5.0, 0.11, 0.09, 1e-4], (12, 8))
    assert numerical_rank(tokens) == 3
    assert numerical_rank(tokens, epsilon=0.005) == 4
    assert numerical_rank(tokens, epsilon=0.6) == 1
    many = gaussian(30, 20) @ torch.diag(torch.arange(1, 21) ** -2.0).double()
    tolerance = 0.02 * np.linalg.norm(many.numpy(), 2)
    assert numerical_rank(many, epsilon=0.02) == np.linalg.matrix_rank(many.numpy(), tolerance)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
def test_spectral_k_agrees_with_scikit_learn(share):
    tokens = gaussian(40, 25) @ torch.diag(torch.arange(1, 26) ** -0.7).double()
    centred = tokens - tokens.mean(0)
    expected = PCA(n_components=share, svd_solver="full").fit(tokens.numpy()).n_components_
    assert spectral_k(centred, share=share) == expected


def test_spectral_k_of_equal_directions_is_exact():
    equal = torch.eye(20)
    assert [spectral_k(equal, share=s) for s in (0.05, 0.9, 0.95, 0.99, 1.0)] == [1, 18, 19, 20, 20]
    assert spectral_k(of_spectrum([3.0, 1.0], (5, 4)), share=0.91) == 2
    for seed in range(8):  # whatever rounding makes of nine tenths
        assert spectral_k(of_spectrum([0.1] * 10, (12, 10), seed=seed)) == 9


@pytest.mark.parametrize("shape", [(14, 9), (9, 14)])
def test_condition_number_agrees_with_numpy(shape):
    tokens = gaussian(*shape)
    assert condition_number(tokens) == pytest.approx(np.linalg.cond(tokens.numpy()))


def test_condition_number_at_a_share_of_energy():
    tokens = of_spectrum([4.0, 2.0, 1.0, 0.01], (9, 6))
    for seed in range(8):  # rank 4 of 6
        assert condition_number(of_spectrum([4.0, 2.0, 1.0, 0.01], (9, 6), seed=seed)).isinf()
    assert condition_number(tokens, share=0.95) == pytest.approx(2)
    assert condition_number(tokens, share=0.99) == pytest.approx(4)


def test_alpha_req_of_an_exact_power_law():
    tokens = of_spectrum(torch.arange(1, 121) ** -0.65, (130, 120))
    fit = alpha_req(tokens)
    assert fit.alpha == pytest.approx(1.3)
    assert fit.r2 == pytest.approx(1)


def test_alpha_req_fits_its_window_only():
    singular = torch.cat(
        [torch.full((3,), 50.0), 2 * torch.arange(4, 21) ** -1.0, torch.ones(9) / 99]
    )
    tokens = of_spectrum(singular, (40, 29))
    assert alpha_req(tokens, window=(4, 20)).alpha == pytest.approx(2)
    assert alpha_req(tokens, window=(3, 20)).alpha > 2.1
    assert alpha_req(tokens, window=(4, 21)).alpha > 2.1


def test_alpha_req_agrees_with_scipy():
    tokens = gaussian(50, 30)
    energy = np.linalg.svd(tokens.numpy(), compute_uv=False) ** 2
    line = stats.linregress(np.log(np.arange(5, 21)), np.log(energy[4:20]))
    fit = alpha_req(tokens, window=(5, 20))
    assert fit.alpha == pytest.approx(-line.slope)
    assert fit.r2 == pytest.approx(line.rvalue**2)
    with pytest.raises(ValueError, match="window"):
        alpha_req(tokens, window=(0, 5))


# ---- the order of Rényi entropies, and invariances


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 9), d=st.integers(1, 9), decay=st.floats(0, 3))
def test_renyi_order(seed, n, d, decay):
    tokens = gaussian(n, d, seed=seed) * torch.arange(1, d + 1) ** -decay
    chain = [
        min(n, d),
        numerical_rank(tokens, epsilon=1e-6).item(),
        effective_rank(tokens).item(),
        von_neumann_entropy(tokens).exp().item(),
        participation_ratio(tokens).item(),
        stable_rank(tokens).item(),
        1.0,
    ]
    assert all(a >= b - 1e-7 for a, b in itertools.pairwise(chain)), chain
    assert spectral_k(tokens, share=0.9) <= spectral_k(tokens, share=0.99) <= min(n, d)


@each_metric
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-5, 1e5), wide=st.booleans())
def test_rotation_scale_and_order_change_nothing(metric, seed, scale, wide):
    width = 10 if wide else 4
    tokens = gaussian(6, width, seed=seed) + 0.5
    rotation = torch.linalg.qr(gaussian(width, width, seed=seed + 1)).Q
    order = [3, 2, 4, 5, 0, 1]
    changed = scale * (tokens @ rotation)[order]
    assert metric(changed) == pytest.approx(metric(tokens).item(), rel=1e-6, abs=1e-8)


@each_metric
def test_duplicating_every_token_changes_nothing(metric):
    tokens = gaussian(12, 6)
    assert metric(tokens.repeat(3, 1)) == pytest.approx(metric(tokens).item(), rel=1e-6)


# ---- batches, masks, precision, and what cannot be estimated


@each_metric
def test_leading_dimensions_and_masks(metric):
    tokens = gaussian(2, 3, 8, 5) + 0.2
    keep = torch.tensor([8, 6, 4])
    mask = (torch.arange(8) < keep[:, None]).expand(2, 3, 8)
    found = metric(torch.where(mask[..., None], tokens, torch.nan), mask)
    assert found.shape == (2, 3)
    assert found.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            alone = metric(tokens[i, j, : keep[j]])
            assert found[i, j] == pytest.approx(alone.item(), rel=1e-9)


@each_metric
def test_a_nan_spoils_its_own_batch_element_only(metric):
    tokens = gaussian(3, 6, 5)
    for poison in (torch.nan, torch.inf):
        broken = tokens.clone()
        broken[1, 2, 3] = poison
        found = metric(broken)
        assert found.isnan().tolist() == [False, True, False]
        assert torch.allclose(found[[0, 2]], metric(tokens)[[0, 2]])


@each_metric
def test_all_zero_tokens_and_no_tokens_are_not_estimable(metric):
    assert metric(torch.zeros(4, 6)).isnan()
    assert metric(gaussian(4, 6), torch.zeros(4, dtype=torch.bool)).isnan()


@pytest.mark.parametrize(
    ("name", "one", "constant"),
    [
        ("rankme", 1, 1),
        ("von_neumann_entropy", 0, 0),
        ("numerical_rank", 1, 1),
        ("spectral_k", 1, 1),
        ("condition_number", 1, math.inf),
        ("condition_number_share", 1, 1),
        ("alpha_req", math.nan, math.nan),
        ("r2", math.nan, math.nan),
    ],
)
def test_one_token_and_constant_tokens(name, one, constant):
    token = gaussian(1, 6)
    assert EVERY[name](token) == pytest.approx(one, abs=1e-9, rel=2e-5, nan_ok=True)
    many = EVERY[name](token.expand(9, 6))
    assert many == pytest.approx(constant, abs=1e-9, rel=2e-5, nan_ok=True)


@each_metric
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_low_precision_input(metric, kind, tolerance):
    tokens = gaussian(4, 64, 96) + 0.3
    assert torch.allclose(
        metric(tokens.to(kind)), metric(tokens), rtol=tolerance, atol=1e-3 * tolerance
    )
