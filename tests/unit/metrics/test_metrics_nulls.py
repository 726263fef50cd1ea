"""Nulls: what they keep of the tokens, what they take away, and what metrics then give."""

import pytest
import torch

from mixlens.metrics import (
    gaussian_null,
    gini,
    mean_cosine,
    participation_ratio,
    pseudo_images,
    redundancy_score,
    stable_rank,
    token_norms,
)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labelled(images, positions):
    """Tokens [image, position] that say where they come from."""
    image, position = torch.meshgrid(torch.arange(images), torch.arange(positions), indexing="ij")
    return torch.stack([image, position], -1).double()


@pytest.mark.parametrize(("images", "positions"), [(9, 9), (12, 5), (5, 13)])
def test_pseudo_images_keep_positions_and_use_every_token_once(images, positions):
    moved, mask = pseudo_images(labelled(images, positions), None, 3)
    assert mask is None
    assert (moved[..., 1] == torch.arange(positions)).all()
    assert (moved[..., 0].sort(0).values == torch.arange(images)[:, None]).all()


@pytest.mark.parametrize(("images", "positions", "most"), [(9, 9, 1), (12, 5, 1), (5, 13, 3)])
def test_tokens_of_a_pseudo_image_come_from_different_images(images, positions, most):
    moved, _ = pseudo_images(labelled(images, positions), None, 4)
    for row in moved[..., 0]:
        assert row.unique(return_counts=True)[1].max() == most


def test_pseudo_images_differ_by_seed_and_not_by_layer():
    tokens = labelled(10, 6).expand(3, 10, 6, 2)
    first, again, other = (pseudo_images(tokens, None, s)[0] for s in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert (first[0] == first[2]).all()


def test_masks_go_with_their_tokens():
    tokens = labelled(8, 6)
    mask = torch.rand(8, 6, generator=torch.Generator().manual_seed(0)) < 0.6
    moved, there = pseudo_images(torch.where(mask[..., None], tokens, torch.nan), mask, 1)
    assert (moved.isfinite().all(-1) == there).all()
    assert (there.sum(0) == mask.sum(0)).all()


def test_pseudo_images_lose_what_the_tokens_of_an_image_share():
    images = 150
    shared, own = gaussian(images, 1, 24), gaussian(images, 10, 24, seed=1)
    tokens = (shared + 0.5 * own) * torch.arange(1, 25) ** -0.5 + gaussian(10, 24, seed=2)
    moved, _ = pseudo_images(tokens, None, 0)
    score = redundancy_score(tokens).value.item()
    assert score > 0.5
    assert redundancy_score(moved).value == pytest.approx(-score / images, abs=0.01)
    assert torch.allclose(moved.mean((0, 1)), tokens.mean((0, 1)))


def test_the_gaussian_null_is_standard_and_of_the_same_size():
    tokens = 9 + torch.zeros(30, 40, 50, dtype=torch.bfloat16)
    null, mask = gaussian_null(tokens, None, 0)
    assert mask is None
    assert null.shape == tokens.shape
    assert null.dtype == tokens.dtype
    assert null.double().mean() == pytest.approx(0, abs=0.02)
    assert null.double().var() == pytest.approx(1, abs=0.02)
    assert (null == gaussian_null(tokens, None, torch.Generator().manual_seed(0))[0]).all()
    assert (null != gaussian_null(tokens, None, 1)[0]).any()


def test_metrics_of_the_gaussian_null_are_known():
    n, d = 48, 64
    tokens = gaussian(20, n, d) * torch.arange(1, d + 1) ** -1.0
    null, _ = gaussian_null(tokens, None, 0)
    ratio = participation_ratio(null)
    assert ratio.mean() == pytest.approx((n * d + 2) / (n + d + 1), rel=0.01)
    assert (participation_ratio(tokens) < 0.3 * ratio).all()
    rank = stable_rank(null).mean()
    assert rank == pytest.approx(n * d / (n**0.5 + d**0.5) ** 2, rel=0.1)
    assert mean_cosine(null).abs().max() < 0.02


def test_nulls_take_ragged_tokens():
    tokens, mask = gaussian(5, 8, 6), torch.ones(5, 8, dtype=torch.bool)
    mask[2, 3:] = False
    hidden = torch.where(mask[..., None], tokens, torch.nan)
    for null in (gaussian_null, pseudo_images):
        drawn, there = null(hidden, mask, 0)
        assert gini(token_norms(drawn), there).isfinite().all()
