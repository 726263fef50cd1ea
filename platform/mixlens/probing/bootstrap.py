"""Intervals for ratios of sums over images, for many columns at once."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

RESAMPLES = 1000
CONFIDENCE = 0.95


def ratio_intervals(
    above: Float[Tensor, "images columns"],
    below: Float[Tensor, "images columns"],
    bounded: Bool[Tensor, "columns"],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[
    Float[Tensor, "columns"], Float[Tensor, "columns"], Float[Tensor, "columns"]
]:  # fmt: skip
    """Value, low and high of Σ above / Σ below: percentile bootstrap over images, 95 %.

    Every column has the same draws, so that columns and layers are paired. They cover the choice of
    the images judged by, not a second training on other images. A share of 0 or 1 has no spread to
    resample: its far end is the exact binomial one (Clopper and Pearson 1934).

    Args:
        above: an image's part of the numerator.
        below: an image's part of the denominator; 0 where the image is not judged.
        bounded: which columns are shares, in [0, 1].
        seed: of the draws.
        resamples: how many.
    """
    images = len(above)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(images, (resamples, images), generator=generator)
    weights = torch.zeros(resamples, images, dtype=torch.float64)
    weights = weights.scatter_add_(1, draws, torch.ones_like(weights)).to(above.device)
    value = above.sum(0) / below.sum(0)
    ordered = ((weights @ above) / (weights @ below)).sort(0).values
    tail = (1 - CONFIDENCE) / 2
    # By hand: torch.quantile has a limit on the size of its input.
    low, high = (_between(ordered, share * (resamples - 1)) for share in (tail, 1 - tail))
    exact = tail ** (1 / (below > 0).sum(0).clamp(min=1).double())
    low = torch.where(bounded & (value >= 1), exact, low)
    high = torch.where(bounded & (value <= 0), 1 - exact, high)
    return value, low, high


def _between(ordered: Tensor, place: float) -> Tensor:
    lower = int(place)
    return ordered[lower].lerp(ordered[min(lower + 1, len(ordered) - 1)], place - lower)
