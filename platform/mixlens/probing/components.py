"""Token states in the principal axes of the images that a probe learns from.

All probes of one position and fold start here: ridge regression needs nothing else, so one
decomposition serves every attribute, strength and control.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Spread below this share of the mean is rounding of 32-bit states, not a difference of images.
CONSTANT = 1e-6
# Variance below this share of the largest cannot be told from rounding in 64 bits.
NOTHING = 1e-13


@dataclass(frozen=True)
class Components:
    """Principal components, one set a position and fold.

    Attributes:
        scores: coordinates of every image, zero for those that lack the position.
        power: their sum of squares over the images learned from, falling.
        learned: which images are learned from: all others than the fold's.
    """

    scores: Float[Tensor, "positions folds images rank"]
    power: Float[Tensor, "positions folds rank"]
    learned: Bool[Tensor, "positions folds images"]

    @property
    def count(self) -> Float[Tensor, "positions folds 1"]:
        """How many images are learned from, at least 1."""
        return self.learned.sum(-1, keepdim=True).clamp(min=1).double()


def components(
    states: Float[Tensor, "positions images width"],
    present: Bool[Tensor, "positions images"],
    fold: Int[Tensor, "images"],
    folds: int,
) -> Components:
    """Standardise each feature and rotate to principal axes, both over the images learned from.

    Nothing of the images held out enters. A feature that is constant over those learned from is
    zero for all. 64-bit; cost positions · folds · (images · width · s + s³), s the smaller of
    images and width.

    Args:
        states: one token of each image a position.
        present: which images have the position, with finite states.
        fold: where each image is held out, 0 to folds - 1.
        folds: how many.
    """
    every = torch.arange(folds, device=fold.device)
    learned = present[:, None] & (fold != every[:, None])
    plain = torch.where(present[..., None], states, 0.0).double()
    weight = learned.double()
    count = weight.sum(-1).clamp(min=1)[..., None]
    mean = weight @ plain / count
    # Not the mean of squares less the squared mean, which cancels.
    rows = torch.where(present[:, None, :, None], plain[:, None] - mean[:, :, None], 0.0)
    spread = ((rows * weight[..., None]).square().sum(-2) / count).sqrt()
    varied = spread > CONSTANT * mean.abs()
    rows = rows * torch.where(varied, 1 / spread, 0.0)[:, :, None]
    known = rows * weight[..., None]
    if states.shape[-1] <= states.shape[1]:
        power, axes = torch.linalg.eigh(known.mT @ known)
        scores = rows @ axes
    else:
        power, axes = torch.linalg.eigh(known @ known.mT)
        scale = torch.where(power > NOTHING * power[..., -1:], power, torch.inf).rsqrt()
        scores = rows @ (known.mT @ (axes * scale[..., None, :]))
    power = torch.where(power > NOTHING * power[..., -1:], power, 0.0)
    return Components(scores.flip(-1), power.flip(-1), learned)


def held_out(
    outputs: Float[Tensor, "positions folds images columns"], fold: Int[Tensor, "images"]
) -> Float[Tensor, "positions images columns"]:
    """Each image's outputs from the fold in which it was held out."""
    return outputs[:, fold, torch.arange(len(fold), device=fold.device)]
