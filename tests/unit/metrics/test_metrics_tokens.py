"""Metrics of norms, spectra and directions against independent truth."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from scipy.stats import entropy
from sklearn.metrics.pairwise import cosine_similarity

from mixlens.metrics import (
    effective_rank,
    energy_entropy,
    gini,
    mean_cosine,
    participation_ratio,
    stable_rank,
    subspace_alignment,
    token_norms,
    top_subspace,
)

ON_TOKENS = [participation_ratio, stable_rank, effective_rank, mean_cosine]
SPECTRAL = ON_TOKENS[:3]
ON_NORMS = [gini, energy_entropy]


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_norms(metric):
    return lambda tokens, mask=None: metric(token_norms(tokens), mask)


EVERY = [*ON_TOKENS, *(of_norms(metric) for metric in ON_NORMS)]


# ---- closed forms and other implementations


def test_gini_is_the_mean_absolute_difference():
    norms = gaussian(3, 17).abs()
    differences = (norms[:, :, None] - norms[:, None, :]).abs().mean((-2, -1))
    assert torch.allclose(gini(norms), differences / (2 * norms.mean(-1)))


def test_gini_of_known_lists():
    assert gini(torch.full((9,), 3.0)) == pytest.approx(0, abs=1e-15)
    assert gini(torch.tensor([0.0, 0.0, 0.0, 5.0])) == pytest.approx(3 / 4)
    assert gini(torch.tensor([1.0, 3.0])) == pytest.approx(1 / 4)


def test_energy_entropy_agrees_with_scipy_and_known_lists():
    norms = gaussian(17).abs()
    expected = entropy((norms**2).numpy()) / math.log(17)
    assert energy_entropy(norms) == pytest.approx(expected)
    assert energy_entropy(torch.full((8,), 1e-200, dtype=torch.float64)) == pytest.approx(1)
    assert energy_entropy(torch.tensor([0.0, 2.0, 0.0])) == pytest.approx(0)
    assert energy_entropy(torch.tensor([1.0, 1.0, 0.0, 0.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
def test_spectral_metrics_agree_with_a_plain_svd(shape):
    tokens = gaussian(*shape) + 0.5
    singular = torch.linalg.svdvals(tokens)
    energy = singular**2
    assert participation_ratio(tokens) == pytest.approx(
        (energy.sum() ** 2 / (energy**2).sum()).item()
    )
    assert stable_rank(tokens) == pytest.approx((energy.sum() / energy[0]).item())
    expected = math.exp(entropy(singular.numpy()))
    assert effective_rank(tokens) == pytest.approx(expected)


def test_spectral_metrics_of_a_known_spectrum():
    singular = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    left, right = (torch.linalg.qr(gaussian(9, 3, seed=i)).Q for i in (1, 2))
    tokens = left @ singular.diag() @ right.T
    assert participation_ratio(tokens) == pytest.approx(14**2 / 98)
    assert stable_rank(tokens) == pytest.approx(14 / 9)
    entropy_q = math.log(2) / 2 + math.log(3) / 3 + math.log(6) / 6
    assert effective_rank(tokens) == pytest.approx(math.exp(entropy_q), rel=1e-6)


def test_participation_ratio_and_ranks_of_gaussian_tokens():
    n, d = 96, 128
    tokens = gaussian(40, n, d)
    expected = (n * d + 2) / (n + d + 1)
    assert participation_ratio(tokens).mean() == pytest.approx(expected, rel=0.01)
    edge = n * d / (n**0.5 + d**0.5) ** 2
    assert stable_rank(tokens).mean() == pytest.approx(edge, rel=0.05)


def test_mean_cosine_agrees_with_scikit_learn():
    tokens = gaussian(14, 6) + 0.3
    table = cosine_similarity(tokens.numpy())
    expected = (table.sum() - 14) / (14 * 13)
    assert mean_cosine(tokens) == pytest.approx(expected)
    assert mean_cosine(torch.eye(5)) == pytest.approx(0, abs=1e-12)
    assert mean_cosine(torch.tensor([[1.0], [-1.0]])) == pytest.approx(-1)


@pytest.mark.parametrize("shape", [(20, 40), (40, 20)])
def test_alignment_of_top_subspaces_agrees_with_scipy(shape):
    first, second = gaussian(*shape, seed=1), gaussian(*shape, seed=2)
    bases = [torch.linalg.svd(x).Vh[:5].T.numpy() for x in (first, second)]
    expected = (torch.from_numpy(subspace_angles(*bases)).cos() ** 2).mean()
    found = subspace_alignment(top_subspace(first, 5), top_subspace(second, 5))
    assert found == pytest.approx(expected.item())


def test_alignment_of_random_subspaces_is_k_over_width():
    bases = torch.linalg.qr(gaussian(400, 64, 5)).Q
    assert subspace_alignment(bases[::2], bases[1::2]).mean() == pytest.approx(5 / 64, rel=0.05)


def test_top_subspace_is_orthonormal_and_spans_the_largest_directions():
    basis = top_subspace(gaussian(4, 10, 16), 3)
    assert torch.allclose(basis.mT @ basis, torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    scaled = torch.diag(torch.tensor([1.0, 9.0, 5.0, 0.1]))
    assert torch.allclose(
        top_subspace(scaled, 2).abs().sum(-1), torch.tensor([0.0, 1, 1, 0]).double()
    )


# ---- the order of Rényi entropies, and invariances


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 9), d=st.integers(1, 9), decay=st.floats(0, 3))
def test_renyi_order(seed, n, d, decay):
    tokens = gaussian(n, d, seed=seed) * torch.arange(1, d + 1) ** -decay
    energy = torch.linalg.svdvals(tokens) ** 2
    shannon = math.exp(entropy(energy.numpy()))
    chain = [
        float(torch.linalg.matrix_rank(tokens)),
        effective_rank(tokens).item(),
        shannon,
        participation_ratio(tokens).item(),
        stable_rank(tokens).item(),
        1.0,
    ]
    assert all(a >= b - 1e-7 for a, b in itertools.pairwise(chain)), chain


@pytest.mark.parametrize("metric", EVERY)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-5, 1e5))
def test_rotation_scale_and_order_change_nothing(metric, seed, scale):
    tokens = gaussian(7, 10, seed=seed) + 0.5
    rotation = torch.linalg.qr(gaussian(10, 10, seed=seed + 1)).Q
    order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
    changed = scale * (tokens @ rotation)[order]
    assert metric(changed) == pytest.approx(metric(tokens).item(), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("metric", SPECTRAL)
def test_duplicating_every_token_changes_no_spectral_metric(metric):
    tokens = gaussian(6, 20)
    assert metric(tokens.repeat(3, 1)) == pytest.approx(metric(tokens).item(), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_alignment_depends_on_the_spans_only(seed):
    first, second = (top_subspace(gaussian(12, 16, seed=seed + i), 4) for i in (0, 1))
    turn = torch.linalg.qr(gaussian(4, 4, seed=seed)).Q
    world = torch.linalg.qr(gaussian(16, 16, seed=seed)).Q
    expected = subspace_alignment(first, second).item()
    assert subspace_alignment(first @ turn, second) == pytest.approx(expected)
    assert subspace_alignment(world @ first, world @ second) == pytest.approx(expected)
    assert subspace_alignment(first, first @ turn) == pytest.approx(1)
    assert subspace_alignment(second, first) == pytest.approx(expected)


# ---- batches, masks, precision, and what cannot be estimated


@pytest.mark.parametrize("metric", EVERY)
def test_leading_dimensions_and_masks(metric):
    tokens = gaussian(2, 3, 6, 5) + 0.2
    keep = torch.tensor([6, 4, 2])
    mask = (torch.arange(6) < keep[:, None]).expand(2, 3, 6)
    hidden = torch.where(mask[..., None], tokens, torch.nan)
    found = metric(hidden, mask)
    assert found.shape == (2, 3)
    assert found.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            alone = metric(tokens[i, j, : keep[j]])
            assert found[i, j] == pytest.approx(alone.item(), rel=1e-6)


def test_masked_subspaces_are_those_of_the_tokens_that_exist():
    tokens = gaussian(8, 12)
    mask = torch.tensor([True] * 6 + [False] * 2)
    hidden = torch.where(mask[:, None], tokens, torch.nan)
    assert subspace_alignment(
        top_subspace(hidden, 3, mask), top_subspace(tokens[:6], 3)
    ) == pytest.approx(1)


@pytest.mark.parametrize("metric", EVERY)
def test_a_nan_spoils_its_own_batch_element_only(metric):
    tokens = gaussian(3, 6, 5)
    for poison in (torch.nan, torch.inf):
        broken = tokens.clone()
        broken[1, 2, 3] = poison
        found = metric(broken)
        assert found.isnan().tolist() == [False, True, False]
        assert torch.allclose(found[[0, 2]], metric(tokens)[[0, 2]])


def test_a_nan_spoils_its_own_subspace_only():
    tokens = gaussian(2, 6, 5)
    tokens[0, 0, 0] = torch.nan
    basis = top_subspace(tokens, 2)
    assert basis[0].isnan().all()
    assert basis[1].isfinite().all()


@pytest.mark.parametrize("metric", EVERY)
def test_all_zero_tokens_and_no_tokens_are_not_estimable(metric):
    assert metric(torch.zeros(4, 6)).isnan()
    assert metric(gaussian(4, 6), torch.zeros(4, dtype=torch.bool)).isnan()


@pytest.mark.parametrize(
    ("metric", "one", "constant"),
    [
        (EVERY[0], 1, 1),
        (EVERY[1], 1, 1),
        (EVERY[2], 1, 1),
        (EVERY[3], math.nan, 1),
        (EVERY[4], 0, 0),
        (EVERY[5], math.nan, 1),
    ],
    ids=["participation", "stable", "effective", "cosine", "gini", "energy_entropy"],
)
def test_one_token_and_constant_tokens(metric, one, constant):
    token = gaussian(1, 6)
    assert metric(token) == pytest.approx(one, nan_ok=True)
    assert metric(token.expand(9, 6)) == pytest.approx(constant, abs=1e-6)


def test_a_zero_token_has_no_direction():
    tokens = gaussian(5, 4)
    with_zero = torch.cat([tokens, torch.zeros(2, 4)])
    assert mean_cosine(with_zero) == pytest.approx(mean_cosine(tokens).item())


def test_subspaces_of_fewer_directions():
    line = top_subspace(torch.tensor([[1.0, 0, 0, 0]]), 3)
    plane = top_subspace(torch.eye(4)[:2], 3)
    assert (line != 0).any(0).tolist() == [True, False, False]
    assert subspace_alignment(line, line) == pytest.approx(1)
    assert subspace_alignment(line, plane) == pytest.approx(0.5)
    assert subspace_alignment(line * 0, line * 0).isnan()


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_low_precision_input(metric, kind, tolerance):
    tokens = gaussian(4, 64, 96) + 0.3
    assert torch.allclose(
        metric(tokens.to(kind)), metric(tokens), rtol=tolerance, atol=1e-3 * tolerance
    )
