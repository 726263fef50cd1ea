"""Similarity of two representations of the same tokens against independent truth."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import subspace_angles
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from mixlens.metrics import cknna, linear_cka, svcca


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def debiased_cka(first, second, mask=None):
    return linear_cka(first, second, mask, debiased=True)


def related(*shape, width, seed=0):
    """Two representations that share some of what they say, of different widths."""
    first = gaussian(*shape, seed=seed) + 0.5
    mixing = gaussian(shape[-1], width, seed=seed + 1)
    return first, first @ mixing / shape[-1] ** 0.5 + gaussian(*shape[:-1], width, seed=seed + 2)


EVERY = {
    "cka": linear_cka,
    "debiased_cka": debiased_cka,
    "cknna": lambda first, second, mask=None: cknna(first, second, mask, k=3),
    "svcca": lambda first, second, mask=None: svcca(first, second, mask, share=0.8),
}
each_metric = pytest.mark.parametrize("metric", EVERY.values(), ids=EVERY)
SHAPES = pytest.mark.parametrize(("shape", "width"), [((20, 6), 9), ((12, 30), 40), ((12, 30), 5)])


# ---- closed forms and other implementations


@SHAPES
def test_cka_agrees_with_centring_matrices(shape, width):
    x, y = (t.numpy() for t in related(*shape, width=width))
    h = np.eye(len(x)) - 1 / len(x)

    def hsic(a, b):
        return np.trace(a @ a.T @ h @ b @ b.T @ h)

    expected = hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))
    assert linear_cka(*related(*shape, width=width)) == pytest.approx(expected)


@SHAPES
def test_debiased_cka_agrees_with_u_centring(shape, width):
    """HSIC_1 is the inner product of U-centred kernels (Székely and Rizzo 2014)."""

    def u_centred(a):
        kernel, n = a @ a.T, len(a)
        np.fill_diagonal(kernel, 0)
        rows, everything = kernel.sum(1) / (n - 2), kernel.sum() / ((n - 1) * (n - 2))
        kernel = kernel - rows[:, None] - rows[None, :] + everything
        np.fill_diagonal(kernel, 0)
        return kernel

    a, b = (u_centred(t.numpy()) for t in related(*shape, width=width))
    expected = (a * b).sum() / math.sqrt((a * a).sum() * (b * b).sum())
    assert debiased_cka(*related(*shape, width=width)) == pytest.approx(expected)


def test_cka_of_unrelated_tokens_is_its_bias_and_debiased_none():
    x, y = gaussian(60, 40, 120), gaussian(60, 40, 120, seed=1)
    assert linear_cka(x, y).mean() == pytest.approx(120 / 160, rel=0.02)
    assert debiased_cka(x, y).mean() == pytest.approx(0, abs=0.01)


def test_cka_of_two_orthogonal_designs():
    axes = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).repeat(3, 1)
    assert linear_cka(axes[:, :1], axes[:, 1:]) == pytest.approx(0, abs=1e-12)
    # Of two equal directions one is shared: ⟨K, L⟩ / (‖K‖ ‖L‖) = 1 / √2.
    assert linear_cka(axes, axes[:, :1]) == pytest.approx(1 / math.sqrt(2))


def naive_neighbours(tokens, k):
    return NearestNeighbors(n_neighbors=k).fit(tokens.numpy()).kneighbors()[1]


@pytest.mark.parametrize("k", [2, 5, 19])
def test_cknna_agrees_with_loops_over_pairs(k):
    x, y = related(20, 6, width=9)

    def align(a, b):
        near_a, near_b = naive_neighbours(a, k), naive_neighbours(b, k)
        a, b = (t.numpy() - t.numpy().mean(0) for t in (a, b))
        return sum(
            (a[n] @ a[m]) * (b[n] @ b[m])
            for n in range(len(a))
            for m in set(near_a[n]) & set(near_b[n])
        )

    expected = align(x, y) / math.sqrt(align(x, x) * align(y, y))
    assert cknna(x, y, k=k) == pytest.approx(expected)


@pytest.mark.parametrize("share", [0.6, 0.9])
@SHAPES
def test_svcca_agrees_with_principal_angles_of_pca_scores(shape, width, share):
    x, y = related(*shape, width=width)
    scores = [PCA(n_components=share, svd_solver="full").fit_transform(t.numpy()) for t in (x, y)]
    expected = np.cos(subspace_angles(*scores)).mean()
    assert svcca(x, y, share=share) == pytest.approx(expected)


def test_svcca_is_one_when_few_tokens_are_spanned_and_small_when_unrelated():
    assert svcca(gaussian(10, 40), gaussian(10, 40, seed=1), share=1.0) == pytest.approx(1)
    x, y = gaussian(20, 400, 16), gaussian(20, 400, 16, seed=1)
    found = svcca(x, y, share=1.0).mean()
    assert found == pytest.approx(8 / (3 * math.pi) * math.sqrt(16 / 400), rel=0.03)


def test_svcca_ignores_directions_of_little_energy():
    x = gaussian(50, 3)
    noisy = torch.cat([x, 1e-3 * gaussian(50, 4, seed=1)], 1)
    assert svcca(x, noisy) == pytest.approx(1, abs=1e-4)
    assert svcca(x @ torch.diag(torch.tensor([1.0, 2.0, 5.0])).double(), x) == pytest.approx(1)


# ---- identity, symmetry and invariances


@each_metric
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-5, 1e5), wide=st.booleans())
def test_rotation_scale_shift_and_order_change_nothing(metric, seed, scale, wide):
    width = 14 if wide else 5
    x, y = related(10, width, width=7, seed=seed)
    rotation = torch.linalg.qr(gaussian(width, width, seed=seed + 3)).Q
    order = torch.randperm(10, generator=torch.Generator().manual_seed(seed))
    value = metric(x, y).item()
    changed = scale * (x @ rotation + 1)
    assert metric(changed[order], y[order]) == pytest.approx(value, rel=1e-6, abs=1e-8)
    assert metric(y, x) == pytest.approx(value, rel=1e-9)
    assert metric(changed, x) == pytest.approx(1, abs=1e-6)
    # Of the debiased and the neighbours' form, below 0 too.
    assert -1 - 1e-9 <= value <= 1 + 1e-9


@pytest.mark.parametrize("metric", [linear_cka, EVERY["svcca"]])
def test_duplicating_every_token_changes_nothing(metric):
    x, y = related(10, 5, width=7)
    assert metric(x.repeat(3, 1), y.repeat(3, 1)) == pytest.approx(metric(x, y).item())


# ---- batches, masks, precision, and what cannot be estimated


@each_metric
def test_leading_dimensions_and_masks(metric):
    x, y = related(2, 3, 11, 5, width=13)
    keep = torch.tensor([11, 8, 5])
    mask = (torch.arange(11) < keep[:, None]).expand(2, 3, 11)
    found = metric(*(torch.where(mask[..., None], t, torch.nan) for t in (x, y)), mask)
    assert found.shape == (2, 3)
    assert found.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            alone = metric(x[i, j, : keep[j]], y[i, j, : keep[j]])
            assert found[i, j] == pytest.approx(alone.item(), rel=1e-8)


@each_metric
@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_a_nan_in_either_spoils_its_own_batch_element_only(metric, poison, side):
    pair = related(3, 8, 5, width=6)
    expected = metric(*pair)
    pair[side][1, 2, 3] = poison
    found = metric(*pair)
    assert found.isnan().tolist() == [False, True, False]
    assert torch.allclose(found[[0, 2]], expected[[0, 2]])


@each_metric
def test_what_cannot_be_compared(metric):
    x, y = related(8, 5, width=6)
    for nothing in (torch.zeros(8, 6), torch.full((8, 6), 0.1), torch.ones(8, 6) / 3):
        assert metric(x, nothing).isnan()
        assert metric(nothing, x).isnan()
        assert metric(nothing, nothing).isnan()
    assert metric(x[:1], y[:1]).isnan()
    assert metric(x, y, torch.zeros(8, dtype=torch.bool)).isnan()


def test_too_few_tokens():
    x, y = related(8, 5, width=6)
    for n in (1, 2, 3):
        assert debiased_cka(x[:n], y[:n]).isnan()
    assert debiased_cka(x[:4], y[:4]).isfinite()
    assert debiased_cka(torch.eye(6), related(6, 5, width=6)[0]).isnan()  # all equally far
    assert cknna(x, y, k=8).isnan()
    assert cknna(x, y, k=7).isfinite()
    assert cknna(x, y, torch.arange(8) < 7, k=7).isnan()
    with pytest.raises(ValueError, match="k=0"):
        cknna(x, y, k=0)


@each_metric
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_low_precision_input(metric, kind, tolerance):
    x, y = related(4, 64, 96, width=80)
    # Bounded by 1: an absolute tolerance (a neighbour more or less is 1 / (N k)).
    assert torch.allclose(metric(x.to(kind), y.to(kind)), metric(x, y), rtol=0, atol=tolerance)
