"""Hoyer sparsity and the coefficient of variation of token norms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import variation

from mixlens.metrics import hoyer, norm_cv
from mixlens.metrics.norms import no_sinks

ON_NORMS = [hoyer, norm_cv]


def norms(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cv_agrees_with_scipy():
    assert norm_cv(norms(17)) == pytest.approx(variation(norms(17).numpy()))


def test_hoyer_agrees_with_a_ratio_of_norms():
    table = norms(3, 17)
    ratio = torch.linalg.vector_norm(table, 1, -1) / torch.linalg.vector_norm(table, 2, -1)
    assert torch.allclose(hoyer(table), (17**0.5 - ratio) / (17**0.5 - 1))


def test_known_lists():
    lone = torch.tensor([0.0, 0.0, 5.0, 0.0])
    assert hoyer(lone) == pytest.approx(1)
    assert norm_cv(lone) == pytest.approx(math.sqrt(3))
    assert norm_cv(torch.tensor([1.0, 3.0])) == pytest.approx(1 / 2)
    assert hoyer(torch.tensor([3.0, 4.0, 0.0, 0.0])) == pytest.approx(2 - 7 / 5)
    for metric in ON_NORMS:
        assert metric(torch.full((8,), 1e-200, dtype=torch.float64)) == pytest.approx(0, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 12), scale=st.floats(1e-100, 1e100))
def test_hoyer_is_a_function_of_cv_and_neither_has_a_scale_or_an_order(seed, n, scale):
    table = norms(n, seed=seed)
    cv = norm_cv(scale * table.flip(0))
    expected = (math.sqrt(n) - (n / (1 + cv**2)).sqrt()) / (math.sqrt(n) - 1)
    assert hoyer(table) == pytest.approx(expected.item(), abs=1e-9)
    assert 0 <= cv <= math.sqrt(n - 1) + 1e-9


@pytest.mark.parametrize("metric", ON_NORMS)
def test_masks_and_batches_equal_loops_over_the_tokens_that_exist(metric):
    table, keep = norms(2, 3, 6), [6, 4, 2]
    mask = (torch.arange(6) < torch.tensor(keep)[:, None]).expand(2, 3, 6)
    found = metric(torch.where(mask, table, torch.nan), mask)
    assert found.dtype == torch.float64
    for i in range(2):
        for j in range(3):
            assert found[i, j] == pytest.approx(metric(table[i, j, : keep[j]]).item())


@pytest.mark.parametrize(("metric", "one"), [(hoyer, math.nan), (norm_cv, 0)])
def test_what_cannot_be_estimated(metric, one):
    assert metric(torch.tensor([3.0])) == pytest.approx(one, nan_ok=True)
    assert metric(torch.full((5,), 3.0)) == pytest.approx(0, abs=1e-12)
    assert metric(torch.zeros(5)).isnan()
    assert metric(norms(5), torch.zeros(5, dtype=torch.bool)).isnan()
    broken = norms(3, 5)
    broken[1, 2] = torch.inf
    assert metric(broken).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("metric", ON_NORMS)
def test_bf16_norms(metric):
    table = norms(4, 200)
    assert torch.allclose(metric(table.bfloat16()), metric(table), rtol=2e-3)


def test_sinks_are_far_above_the_median_norm():
    norms = torch.ones(2, 9, dtype=torch.float64)
    norms[0, 2], norms[0, 5] = 3.1, 2.9
    norms[1, :3] = 50
    there = torch.ones(2, 9, dtype=torch.bool)
    keep = no_sinks(norms, there)
    assert keep[0].tolist() == [i != 2 for i in range(9)]
    assert keep[1].tolist() == [i > 2 for i in range(9)]
    assert no_sinks(norms, there, threshold=60.0).all()
    assert no_sinks(1000 * norms, there).equal(keep)


def test_absent_tokens_are_no_yardstick_for_sinks():
    norms, there = torch.ones(10), torch.arange(10) < 6
    norms[0] = 5
    for absent in (1000.0, torch.nan):
        norms[6:] = absent
        assert no_sinks(norms, there).tolist() == [1 <= i < 6 for i in range(10)]


def test_without_any_sink_or_norm_every_token_stays():
    broken = torch.tensor([1.0, 1.0, torch.nan, 1.0])
    for some in (torch.zeros(4), torch.ones(4), torch.ones(1), broken):
        assert no_sinks(some, torch.ones_like(some, dtype=torch.bool)).all()
