"""Information of two sides against closed forms."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from mixlens.metrics import (
    gaussian_mutual_information,
    redundancy_score_moment,
)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(rho, *shape, seed=0):
    """Two sides, each pair of coordinates of correlation rho."""
    first = gaussian(*shape, seed=seed)
    second = rho * first + math.sqrt(1 - rho**2) * gaussian(*shape, seed=seed + 1)
    return first, second


# ---- Gaussian information: unbiased at every truth


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(("width", "others", "samples"), [(1, 1, 8), (3, 5, 20), (6, 2, 60)])
def test_gaussian_information_has_no_bias(rho, width, others, samples):
    repeats = 4000
    first = gaussian(repeats, samples, width, seed=1)
    second = gaussian(repeats, samples, others, seed=2)
    shared = min(width, others)
    second[..., :shared] *= math.sqrt(1 - rho**2)
    second[..., :shared] += rho * first[..., :shared]
    truth = -0.5 * shared * math.log(1 - rho**2)
    found = gaussian_mutual_information(first, second)
    error = (found.std() / math.sqrt(repeats)).item()
    assert abs(found.mean() - truth) < 4 * error
    j = np.arange(width)
    bias = special.psi((samples - 1 - j) / 2) - special.psi((samples - 1 - others - j) / 2)
    assert 0.5 * bias.sum() > 6 * error  # so that leaving it in would be seen


def test_gaussian_information_agrees_with_determinants():
    first, second = gaussian(50, 3, seed=3), gaussian(50, 4, seed=4)
    second[:, :3] += first @ gaussian(3, 3, seed=5)
    one, two, both = (
        torch.logdet(torch.cov(x.T)) for x in (first, second, torch.cat([first, second], 1))
    )
    j = np.arange(3)
    bias = 0.5 * (special.psi((49 - j) / 2) - special.psi((49 - 4 - j) / 2)).sum()
    expected = 0.5 * (one + two - both) - bias
    assert gaussian_mutual_information(first, second) == pytest.approx(expected.item())
    assert gaussian_mutual_information(second, first) == pytest.approx(expected.item())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), shift=st.floats(-100, 100))
def test_gaussian_information_ignores_linear_maps(seed, shift):
    first, second = correlated(0.5, 40, 3, seed=seed)
    turned = first @ (gaussian(3, 3, seed=seed + 2) + 3 * torch.eye(3)) + shift
    expected = gaussian_mutual_information(first, second).item()
    assert gaussian_mutual_information(turned, second) == pytest.approx(expected, abs=1e-6)


def test_gaussian_information_of_the_largest_components():
    first, second = correlated(0.8, 4000, 40)
    first, second = (x * torch.tensor([100.0] * 5 + [1.0] * 35) for x in (first, second))
    found = gaussian_mutual_information(first, second, components=5)
    assert found == pytest.approx(-2.5 * math.log(1 - 0.64), rel=0.03)
    alone = gaussian_mutual_information(first[:, :5], second[:, :5])
    assert found == pytest.approx(alone.item(), rel=0.01)


def test_gaussian_information_of_more_dimensions_than_samples_can_show():
    first, second = correlated(0.5, 29, 40)
    assert gaussian_mutual_information(first, second).isnan()
    assert gaussian_mutual_information(first, second, components=15).isnan()
    assert gaussian_mutual_information(first, second, components=14).isfinite()


def test_what_another_side_determines_is_infinite():
    first = gaussian(60, 3) + 5
    assert gaussian_mutual_information(first, first @ gaussian(3, 3, seed=1)) == math.inf


def test_information_of_two_tokens_is_linfoots_reading_of_the_redundancy_score():
    """-½ ln(1 - RS_m) a dimension, for tokens that share a Gaussian factor."""
    width, rho = 3, 0.6
    shared, own = gaussian(3000, 1, width), gaussian(3000, 2, width, seed=1)
    tokens = math.sqrt(rho) * shared + math.sqrt(1 - rho) * own
    score = redundancy_score_moment(tokens, centre="none", pairs="ring").value.item()
    found = gaussian_mutual_information(tokens[:, 0], tokens[:, 1]) / width
    assert found == pytest.approx(-0.5 * math.log(1 - rho**2), rel=0.05)
    assert found == pytest.approx(-0.5 * math.log(1 - score), rel=0.15)


# ---- batches, masks, precision, and what cannot be estimated


def test_leading_dimensions_and_masks_of_samples():
    first, second = correlated(0.6, 2, 3, 16, 2)
    keep = torch.tensor([16, 12, 9])
    mask = (torch.arange(16) < keep[:, None]).expand(2, 3, 16)
    hidden = [torch.where(mask[..., None], side, torch.nan) for side in (first, second)]
    found = gaussian_mutual_information(*hidden, mask)
    assert found.shape == (2, 3)
    assert found.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            alone = gaussian_mutual_information(first[i, j, : keep[j]], second[i, j, : keep[j]])
            assert found[i, j] == pytest.approx(alone.item(), abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_order_shift_and_scale_of_samples_change_nothing(seed, scale):
    first, second = correlated(0.6, 14, 3, seed=seed)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(seed))
    changed = gaussian_mutual_information((scale * first + 2)[order], second[order] / scale - 1)
    assert changed == pytest.approx(gaussian_mutual_information(first, second).item(), abs=1e-6)


def test_a_nan_among_samples_spoils_its_own_batch_element_only():
    first, second = correlated(0.6, 3, 12, 2)
    for poison in (torch.nan, torch.inf):
        broken = first.clone()
        broken[1, 4, 0] = poison
        found = gaussian_mutual_information(broken, second)
        assert found.isnan().tolist() == [False, True, False]
        assert torch.allclose(found[[0, 2]], gaussian_mutual_information(first, second)[[0, 2]])


def test_a_nan_on_the_other_side_counts_too():
    first, second = correlated(0.6, 2, 12, 2)
    second[0, 3, 1] = torch.nan
    assert gaussian_mutual_information(first, second).isnan().tolist() == [True, False]


def test_constant_sides_share_nothing_and_no_samples_are_not_estimable():
    first, second = correlated(0.6, 12, 2)
    for constant in (torch.zeros(12, 2), torch.full((12, 2), 0.1, dtype=torch.float64)):
        assert gaussian_mutual_information(constant, second) == pytest.approx(0, abs=1e-12)
        assert gaussian_mutual_information(constant, constant) == pytest.approx(0, abs=1e-12)
    assert gaussian_mutual_information(first, second, torch.zeros(12, dtype=torch.bool)).isnan()


def test_one_sample():
    found = gaussian_mutual_information(gaussian(1, 2), gaussian(1, 2, seed=1))
    assert found.isnan()


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_low_precision_samples(kind, tolerance):
    first, second = correlated(0.6, 4, 200, 3)
    found = gaussian_mutual_information(first.to(kind), second.to(kind))
    assert torch.allclose(found, gaussian_mutual_information(first, second), rtol=0, atol=tolerance)
