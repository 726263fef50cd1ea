"""Overlap of what tokens tell, against its closed form and its limits."""

import math

import pytest
import torch

from mixlens.errors import DataError
from mixlens.metrics import gaussian_mutual_information, information_overlap


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen_in_noise(ratio, images, tokens, seed=0):
    """A scalar source and tokens that each see it with signal-to-noise `ratio`."""
    source = gaussian(images, 1, seed=seed)
    noise = gaussian(images, tokens, 1, seed=seed + 1)
    return math.sqrt(ratio) * source[:, None] + noise, source


@pytest.mark.parametrize(("size", "truth"), [(2, 0.415), (16, 0.794)])
def test_overlap_of_a_source_in_noise(size, truth):
    closed = size / (size - 1) * (1 - math.log(1 + size) / (size * math.log(2)))
    assert closed == pytest.approx(truth, abs=5e-4)
    found = information_overlap(*seen_in_noise(1.0, 4000, 16), size, seed=0)
    assert found.value == pytest.approx(closed, abs=0.02)
    assert found.alone == pytest.approx(size * 0.5 * math.log(2), rel=0.05)
    assert found.joint == pytest.approx(0.5 * math.log(1 + size), rel=0.05)


def test_overlap_has_little_bias_with_few_images():
    tokens, source = seen_in_noise(1.0, 60 * 400, 4)
    found = information_overlap(
        tokens.unflatten(0, (400, 60)), source.unflatten(0, (400, 60)), 4, 0
    )
    assert found.alone.mean() == pytest.approx(2 * math.log(2), rel=0.02)
    assert found.joint.mean() == pytest.approx(0.5 * math.log(5), rel=0.02)


def test_overlap_of_copies_is_one_and_of_separate_parts_zero():
    tokens, source = seen_in_noise(1.0, 300, 1)
    copies = tokens.expand(300, 5, 1)
    assert information_overlap(copies, source, 4, 0).value == pytest.approx(1)
    parts = gaussian(3000, 4, 2)
    found = information_overlap(parts + gaussian(3000, 4, 2, seed=1), parts.flatten(1), 4, 0)
    assert found.value == pytest.approx(0, abs=0.02)


def test_overlap_of_a_difference_is_negative():
    noise, source = 3 * gaussian(2000, 1), gaussian(2000, 1, seed=1)
    tokens = torch.stack([noise, noise + source + 0.1 * gaussian(2000, 1, seed=2)], 1)
    assert information_overlap(tokens, source, 2, 0, groups=1).value < -1


def test_overlap_is_the_ratio_written_out():
    tokens, source = gaussian(80, 3, 2, seed=3), gaussian(80, 5, seed=4)
    tokens += source[:, None, :2] * torch.tensor([1.0, 2.0, 3.0])[:, None]
    together = gaussian_mutual_information(tokens.flatten(1), source)
    alone = sum(gaussian_mutual_information(tokens[:, n], source) for n in range(3))
    found = information_overlap(tokens, source, 3, seed=0, groups=2)
    assert found.joint == pytest.approx(together.item())
    assert found.alone == pytest.approx(alone.item())
    assert found.value == pytest.approx((1.5 * (1 - together / alone)).item())


def test_masked_images_and_leading_dimensions_of_overlap():
    tokens, source = seen_in_noise(2.0, 3 * 50, 4)
    tokens, source = tokens.unflatten(0, (3, 50)), source.unflatten(0, (3, 50))
    mask = torch.ones(3, 50, 4, dtype=torch.bool)
    mask[1, 30:] = False
    hidden = torch.where(mask[..., None], tokens, torch.nan)
    found = information_overlap(hidden, source, 3, 5, mask)
    for i, keep in enumerate((50, 30, 50)):
        alone = information_overlap(tokens[i, :keep], source[i, :keep], 3, 5)
        assert found.value[i] == pytest.approx(alone.value.item())


def test_groups_that_the_mask_leaves_without_images_do_not_count():
    tokens, source = seen_in_noise(2.0, 60, 5)
    mask = torch.ones(60, 5, dtype=torch.bool)
    mask[:, 4] = False
    found = information_overlap(tokens, source, 4, 0, mask, groups=30)
    only = information_overlap(tokens[:, :4], source, 4, 0)
    assert found.value == pytest.approx(only.value.item())


def test_overlap_ignores_scale_rotation_and_the_sources_coordinates():
    tokens, source = gaussian(90, 5, 3), gaussian(90, 2, seed=1)
    tokens[..., :2] += source[:, None]
    expected = information_overlap(tokens, source, 3, 0).value.item()
    turn = torch.linalg.qr(gaussian(3, 3, seed=2)).Q
    changed = information_overlap(7 * tokens @ turn + 1, source @ gaussian(2, 2, seed=3), 3, 0)
    assert changed.value == pytest.approx(expected)
    again = information_overlap(tokens, source, 3, torch.Generator().manual_seed(0))
    assert again.value == expected


def test_overlap_in_low_precision():
    tokens, source = seen_in_noise(1.0, 500, 6)
    exact = information_overlap(tokens, source, 4, 0).value.item()
    rounded = information_overlap(tokens.bfloat16(), source.bfloat16(), 4, 0).value
    assert rounded == pytest.approx(exact, abs=5e-3)


def test_overlap_that_cannot_be_estimated():
    tokens, source = seen_in_noise(1.0, 40, 4)
    broken = tokens.clone()
    broken[3] = torch.nan
    for given in (tokens * 0, torch.ones(40, 4, 1), broken, tokens[:3]):
        assert information_overlap(given, source[: len(given)], 4, 0).value.isnan()
    assert information_overlap(tokens, source * 0, 4, 0).value.isnan()
    assert information_overlap(source[:, None].expand(40, 4, 1), source, 4, 0).value.isnan()
    for size in (1, 5):
        with pytest.raises(DataError, match="at least 2 of the 4 tokens"):
            information_overlap(tokens, source, size, 0)
