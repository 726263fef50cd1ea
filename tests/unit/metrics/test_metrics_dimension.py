"""TwoNN against other implementations and manifolds of known dimension."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from mixlens.metrics import twonn


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("shape", [(40, 3), (25, 60)])
def test_agrees_with_neighbours_of_scikit_learn(shape):
    tokens = gaussian(*shape) + 3
    near = NearestNeighbors(n_neighbors=3).fit(tokens.numpy()).kneighbors()[0]
    expected = (len(near) - 1) / np.log(near[:, 1] / near[:, 0]).sum()
    assert twonn(tokens) == pytest.approx(expected)


@pytest.mark.parametrize("dimension", [1, 2, 4])
def test_a_flat_torus_has_the_dimension_of_its_angles(dimension):
    random = torch.Generator().manual_seed(dimension)
    angles = 2 * math.pi * torch.rand(6, 900, dimension, generator=random, dtype=torch.float64)
    torus = torch.cat([angles.cos(), angles.sin()], -1)
    turned = torus @ torch.linalg.qr(gaussian(64, 64)).Q[: 2 * dimension]
    # 5400 ratios: standard error of the mean over the six is 1.4 %.
    assert twonn(turned).mean() == pytest.approx(dimension, rel=0.04)


def test_a_hand_made_line():
    tokens = torch.tensor([[0.0], [1.0], [3.0]])
    assert twonn(tokens) == pytest.approx(2 / (math.log(3) + math.log(2) + math.log(3 / 2)))


def test_of_equal_tokens_one_is_kept():
    tokens = gaussian(12, 5)
    shuffled = tokens.repeat(3, 1)[torch.randperm(36, generator=torch.Generator().manual_seed(1))]
    assert twonn(shuffled) == pytest.approx(twonn(tokens).item())
    nearly = shuffled * (1 + 1e-9 * gaussian(36, 5, seed=2))  # rounding, not a neighbour
    assert twonn(nearly) == pytest.approx(twonn(tokens).item())


def test_distances_survive_a_large_common_mean():
    tokens = gaussian(30, 8)
    assert twonn(tokens + 1e6) == pytest.approx(twonn(tokens).item(), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.floats(1e-6, 1e6), n=st.integers(3, 20))
def test_rotation_scale_shift_and_order_change_nothing(seed, scale, n):
    tokens = gaussian(n, 6, seed=seed)
    rotation = torch.linalg.qr(gaussian(6, 6, seed=seed + 1)).Q
    changed = scale * (tokens @ rotation + 2).flip(0)
    assert twonn(changed) == pytest.approx(twonn(tokens).item(), rel=1e-6)


def test_leading_dimensions_and_masks():
    tokens = gaussian(2, 3, 9, 4)
    tokens[..., 1, :] = tokens[..., 0, :]
    keep = torch.tensor([9, 6, 4])
    mask = (torch.arange(9) < keep[:, None]).expand(2, 3, 9)
    for hidden in (torch.nan, 0.0):
        found = twonn(torch.where(mask[..., None], tokens, hidden), mask)
        assert found.dtype == torch.float64
        for i in range(2):
            for j in range(3):
                assert found[i, j] == pytest.approx(twonn(tokens[i, j, : keep[j]]).item())


def test_what_cannot_be_estimated():
    tokens = gaussian(3, 6, 4)
    tokens[1, 2, 0] = torch.nan
    assert twonn(tokens).isnan().tolist() == [False, True, False]
    tokens[1, 2, 0] = torch.inf
    assert twonn(tokens).isnan().tolist() == [False, True, False]
    for bad in (tokens[0, :1], tokens[0, :2], torch.zeros(6, 4), torch.ones(6, 4) / 3):
        assert twonn(bad).isnan()
    assert twonn(tokens[0, :2].repeat(4, 1)).isnan()
    assert twonn(tokens[0], torch.zeros(6, dtype=torch.bool)).isnan()
    assert twonn(torch.eye(4)).isinf()


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_low_precision_input(kind, tolerance):
    tokens = gaussian(4, 64, 96) + 0.3
    assert torch.allclose(twonn(tokens.to(kind)), twonn(tokens), rtol=tolerance)
