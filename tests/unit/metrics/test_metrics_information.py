"""Information of two sides, and of many variables, against closed forms and other code."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special, stats
from sklearn.feature_selection import mutual_info_regression

from mixlens.metrics import (
    gaussian_mutual_information,
    ksg_mutual_information,
    matrix_renyi_mutual_information,
    o_information,
    patch_information,
    redundancy_score_moment,
    sliced_mutual_information,
    total_correlation,
)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlated(rho, *shape, seed=0):
    """Two sides, each pair of coordinates of correlation rho."""
    first = gaussian(*shape, seed=seed)
    second = rho * first + math.sqrt(1 - rho**2) * gaussian(*shape, seed=seed + 1)
    return first, second


def sliced(first, second, mask=None):
    return sliced_mutual_information(first, second, 0, mask, projections=6)


PAIRED = [
    gaussian_mutual_information,
    ksg_mutual_information,
    sliced,
    matrix_renyi_mutual_information,
]
JOINT = [total_correlation, o_information]
EVERY = [*PAIRED, *((lambda x, _, mask=None, m=m: m(x, mask)) for m in JOINT)]


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
    doubled = torch.cat([first, first.sum(-1, keepdim=True)], -1)
    assert total_correlation(doubled) == math.inf
    assert o_information(doubled).isnan()


def test_information_of_two_tokens_is_linfoots_reading_of_the_redundancy_score():
    """-½ ln(1 - RS_m) a dimension, for tokens that share a Gaussian factor."""
    width, rho = 3, 0.6
    shared, own = gaussian(3000, 1, width), gaussian(3000, 2, width, seed=1)
    tokens = math.sqrt(rho) * shared + math.sqrt(1 - rho) * own
    score = redundancy_score_moment(tokens, centre="none", pairs="ring").value.item()
    found = gaussian_mutual_information(tokens[:, 0], tokens[:, 1]) / width
    assert found == pytest.approx(-0.5 * math.log(1 - rho**2), rel=0.05)
    assert found == pytest.approx(-0.5 * math.log(1 - score), rel=0.15)


# ---- patch information


def test_patch_information_is_the_log_ratio_of_densities():
    tokens, patches = gaussian(6, 10, 3, seed=6), gaussian(6, 10, 2, seed=7)
    tokens[..., :2] += patches
    x, y = tokens.reshape(-1, 3), patches.reshape(-1, 2)

    def log_density(samples):
        law = stats.multivariate_normal(samples.mean(0), torch.cov(samples.T, correction=0))
        return torch.from_numpy(law.logpdf(samples))

    plain = log_density(torch.cat([x, y], 1)) - log_density(x) - log_density(y)
    bias = 0.5 * sum(special.psi((59 - j) / 2) - special.psi((57 - j) / 2) for j in range(3))
    found = patch_information(tokens, patches)
    assert torch.allclose(found.flatten(), plain - bias)
    assert found.mean() == pytest.approx(gaussian_mutual_information(x, y).item())


def test_patch_information_knows_which_tokens_lost_their_patch():
    patches = gaussian(300, 4, 5)
    tokens = patches + 0.5 * gaussian(300, 4, 5, seed=1)
    tokens[:, 3] = gaussian(300, 5, seed=2)
    by_position = patch_information(tokens, patches).mean(0)
    assert (by_position[:3] > 1).all()
    assert by_position[3] < 0


def test_patch_information_of_strangers_is_zero():
    found = patch_information(gaussian(200, 10, 12, 4), gaussian(200, 10, 12, 6, seed=1))
    assert abs(found.mean()) < 0.005  # plug-in: .1


def test_patch_information_leaves_out_absent_tokens_and_broken_images():
    tokens, patches = gaussian(8, 6, 3), gaussian(8, 6, 2, seed=1)
    mask = torch.ones(8, 6, dtype=torch.bool)
    mask[1:3, 4:] = False
    whole = patch_information(tokens[1:], patches[1:], mask[1:])
    tokens[0, 2, 1] = torch.nan
    found = patch_information(torch.where(mask[..., None], tokens, torch.inf), patches, mask)
    assert found[0].isnan().all()
    assert found[1:].isnan().equal(~mask[1:])
    assert torch.allclose(found[1:], whole, equal_nan=True)
    assert patch_information(torch.ones(8, 6, 3), patches).abs().max() == 0
    assert patch_information(tokens[:1], patches[:1]).isnan().all()


# ---- many variables


def equicorrelated(variables, r):
    return torch.eye(variables, dtype=torch.float64) * (1 - r) + r


def summed(noise):
    """Two independent variables and their sum in noise."""
    v = 2 + noise**2
    cross = 1 / math.sqrt(v)
    return torch.tensor([[1, 0, cross], [0, 1, cross], [cross, cross, 1]], dtype=torch.float64)


def entropy_of(r):
    return 0.5 * torch.logdet(r)


def truths(r):
    """Total correlation and O-information by the definitions, of a correlation matrix."""
    size = len(r)
    omega = (size - 2) * entropy_of(r)
    for i in range(size):
        rest = [k for k in range(size) if k != i]
        omega -= entropy_of(r[rest][:, rest])
    return -entropy_of(r).item(), omega.item()


@pytest.mark.parametrize(
    ("r", "sign"),
    [
        (torch.eye(4).double(), 0),
        (equicorrelated(2, 0.7), 0),
        (equicorrelated(3, 0.8), 1),
        (equicorrelated(6, 0.4), 1),
        (summed(0.3), -1),
    ],
    ids=["independent", "pair", "copies", "many", "sum"],
)
def test_total_correlation_and_o_information_have_no_bias(r, sign):
    repeats, samples = 6000, 12
    root = torch.linalg.cholesky(r)
    drawn = gaussian(repeats, samples, len(r), seed=8) @ root.T
    for metric, truth in zip(JOINT, truths(r), strict=True):
        found = metric(5 * drawn - 3)
        error = found.std().item() / math.sqrt(repeats)
        assert abs(found.mean() - truth) < 4 * error + 1e-9, metric.__name__
    omega = truths(r)[1]
    assert abs(omega) < 1e-12 if sign == 0 else omega * sign > 0.1


def test_total_correlation_of_two_variables_is_their_information():
    first, second = correlated(0.7, 5, 30, 1)
    both = torch.cat([first, second], -1)
    assert torch.allclose(total_correlation(both), gaussian_mutual_information(first, second))


@pytest.mark.parametrize("metric", JOINT)
def test_a_constant_variable_adds_nothing(metric):
    samples = gaussian(30, 4)
    wider = torch.cat([samples, torch.full((30, 2), 0.1, dtype=torch.float64)], -1)
    assert metric(wider) == pytest.approx(metric(samples).item())
    assert metric(torch.ones(30, 4)) == 0
    assert metric(samples[:4]).isnan()
    assert metric(samples[:5]).isfinite()


# ---- nearest neighbours


@pytest.mark.parametrize("k", [1, 3, 6])
def test_ksg_agrees_with_scikit_learn(k):
    first, second = correlated(0.7, 300, 1)
    expected = mutual_info_regression(
        first.numpy(), second[:, 0].numpy(), n_neighbors=k, random_state=0
    )
    assert ksg_mutual_information(first, second, k=k) == pytest.approx(expected[0], abs=1e-9)


def test_ksg_of_vectors_agrees_with_loops():
    first, second = correlated(0.8, 25, 2, seed=9)
    second = torch.cat([second, gaussian(25, 1, seed=4)], -1)
    one, two = (
        (x / (x - x.mean(0)).square().sum(-1).mean().sqrt()).tolist() for x in (first, second)
    )
    total = 0.0
    for i in range(25):
        away = [
            tuple(max(abs(a - b) for a, b in zip(x[i], x[m], strict=True)) for x in (one, two))
            for m in range(25)
            if m != i
        ]
        radius = sorted(max(pair) for pair in away)[2]
        total += sum(special.psi(sum(d[side] < radius for d in away) + 1) for side in (0, 1))
    expected = special.psi(3) + special.psi(25) - total / 25
    assert ksg_mutual_information(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_ksg_of_gaussian_pairs(rho):
    found = ksg_mutual_information(*correlated(rho, 60, 300, 1))
    assert found.mean() == pytest.approx(-0.5 * math.log(1 - rho**2), abs=0.025)


def test_ksg_sees_what_correlation_does_not():
    x = gaussian(1000, 1)
    y = x**2 + 0.1 * gaussian(1000, 1, seed=1)
    assert ksg_mutual_information(x, y) > 1
    assert gaussian_mutual_information(x, y) < 0.05


def test_ksg_of_discrete_values_is_their_plug_in_information():
    table = torch.tensor([[40, 10], [10, 40]], dtype=torch.float64)
    pairs = [(i, j) for i in (0, 1) for j in (0, 1) for _ in range(int(table[i, j]))]
    values = torch.tensor(pairs, dtype=torch.float64)
    share = table / 100
    plug_in = (share * (share / 0.25).log()).sum().item()
    found = ksg_mutual_information(values[:, :1], values[:, 1:])
    assert found == pytest.approx(plug_in, abs=0.03)


def test_sliced_information_of_gaussian_pairs():
    width, rho = 4, 0.9
    law = stats.beta(0.5, (width - 1) / 2)  # squared cosine of two random directions
    truth = integrate.quad(
        lambda t: -0.5 * math.log(1 - rho**2 * math.sin(t) ** 2)
        * law.pdf(math.sin(t) ** 2) * 2 * math.sin(t) * math.cos(t), 1e-9, math.pi / 2,
    )[0]  # fmt: skip
    first, second = correlated(rho, 400, width)
    found = sliced_mutual_information(first, second, 0, projections=150)
    assert found == pytest.approx(truth, abs=0.02)
    strangers = sliced_mutual_information(first, gaussian(400, width, seed=7), 0, projections=40)
    assert abs(strangers) < 0.02
    assert sliced_mutual_information(first, second, torch.Generator().manual_seed(0)) == (
        sliced_mutual_information(first, second, 0)
    )


def test_sliced_information_of_scalars_is_that_of_the_scalars():
    first, second = correlated(0.7, 3, 50, 1)
    found = sliced_mutual_information(first, second, 0, projections=3)
    assert torch.allclose(found, ksg_mutual_information(first, second))


# ---- kernels


def naive_renyi(first, second, widths):
    kernels = [
        torch.exp(-(torch.cdist(x, x) ** 2) / (2 * w**2))
        for x, w in zip((first, second), widths, strict=True)
    ]

    def entropy(kernel):
        return -(torch.linalg.eigvalsh(kernel / kernel.trace()) ** 2).sum().log()

    return (entropy(kernels[0]) + entropy(kernels[1]) - entropy(kernels[0] * kernels[1])).item()


def test_renyi_information_agrees_with_eigenvalues():
    first, second = correlated(0.6, 21, 3)
    found = matrix_renyi_mutual_information(first, second, bandwidth=0.7)
    assert found == pytest.approx(naive_renyi(first, second, (0.7, 0.7)))
    other = ~torch.eye(21, dtype=torch.bool)
    medians = [torch.cdist(x, x)[other].median().item() for x in (first, 9 * second)]
    found = matrix_renyi_mutual_information(first, 9 * second)
    assert found == pytest.approx(naive_renyi(first, 9 * second, medians))


def test_renyi_information_lies_between_its_limits():
    first, second = correlated(0.9, 40, 2)
    narrow, wide = (
        matrix_renyi_mutual_information(first, second, bandwidth=b) for b in (1e-4, 1e4)
    )
    assert narrow == pytest.approx(math.log(40))
    assert wide == pytest.approx(0, abs=1e-6)
    strangers = matrix_renyi_mutual_information(first, gaussian(40, 2, seed=8))
    assert strangers < 0.2 * matrix_renyi_mutual_information(first, second)


# ---- batches, masks, precision, and what cannot be estimated


@pytest.mark.parametrize("metric", EVERY)
def test_leading_dimensions_and_masks_of_samples(metric):
    first, second = correlated(0.6, 2, 3, 16, 2)
    keep = torch.tensor([16, 12, 9])
    mask = (torch.arange(16) < keep[:, None]).expand(2, 3, 16)
    hidden = [torch.where(mask[..., None], side, torch.nan) for side in (first, second)]
    found = metric(*hidden, mask)
    assert found.shape == (2, 3)
    assert found.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            alone = metric(first[i, j, : keep[j]], second[i, j, : keep[j]])
            assert found[i, j] == pytest.approx(alone.item(), abs=1e-9)


@pytest.mark.parametrize("metric", EVERY)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-3, 1e3))
def test_order_shift_and_scale_of_samples_change_nothing(metric, seed, scale):
    first, second = correlated(0.6, 14, 3, seed=seed)
    order = torch.randperm(14, generator=torch.Generator().manual_seed(seed))
    changed = metric((scale * first + 2)[order], second[order] / scale - 1)
    assert changed == pytest.approx(metric(first, second).item(), abs=1e-6)


@pytest.mark.parametrize("metric", EVERY)
def test_a_nan_among_samples_spoils_its_own_batch_element_only(metric):
    first, second = correlated(0.6, 3, 12, 2)
    for poison in (torch.nan, torch.inf):
        broken = first.clone()
        broken[1, 4, 0] = poison
        found = metric(broken, second)
        assert found.isnan().tolist() == [False, True, False]
        assert torch.allclose(found[[0, 2]], metric(first, second)[[0, 2]])


@pytest.mark.parametrize("metric", PAIRED)
def test_a_nan_on_the_other_side_counts_too(metric):
    first, second = correlated(0.6, 2, 12, 2)
    second[0, 3, 1] = torch.nan
    assert metric(first, second).isnan().tolist() == [True, False]


@pytest.mark.parametrize("metric", EVERY)
def test_constant_sides_share_nothing_and_no_samples_are_not_estimable(metric):
    first, second = correlated(0.6, 12, 2)
    for constant in (torch.zeros(12, 2), torch.full((12, 2), 0.1, dtype=torch.float64)):
        assert metric(constant, second) == pytest.approx(0, abs=1e-12)
        assert metric(constant, constant) == pytest.approx(0, abs=1e-12)
    assert metric(first, second, torch.zeros(12, dtype=torch.bool)).isnan()


@pytest.mark.parametrize("metric", EVERY)
def test_one_sample(metric):
    found = metric(gaussian(1, 2), gaussian(1, 2, seed=1))
    assert found == 0 if metric is matrix_renyi_mutual_information else found.isnan()


def test_as_many_samples_as_neighbours_are_too_few():
    first, second = correlated(0.6, 5, 1)
    mask = torch.tensor([True, True, True, False, False])
    assert ksg_mutual_information(first, second, mask).isnan()
    assert ksg_mutual_information(first, second, ~mask | mask).isfinite()
    assert ksg_mutual_information(first[:3], second[:3]).isnan()


@pytest.mark.parametrize("metric", EVERY)
@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_low_precision_samples(metric, kind, tolerance):
    first, second = correlated(0.6, 4, 200, 3)
    found = metric(first.to(kind), second.to(kind))
    assert torch.allclose(found, metric(first, second), rtol=0, atol=tolerance)
