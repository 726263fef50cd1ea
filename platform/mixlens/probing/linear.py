"""Linear probes in closed form, and what a linear softmax makes of categories in nats.

Ridge regression for numbers, and for categories ridge regression of every class's column, the
largest output being the answer. The strength of the penalty is chosen for each position, fold and
attribute by leave-one-out error over the images learned from, which is exact without refitting:
residual / (1 - leverage) (Allen 1974).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mixlens.metrics.usable import v_information
from mixlens.probing.components import Components, held_out

STRENGTHS = tuple(10.0**power for power in range(-4, 5))
"""Penalties tried, in units of the mean squared norm of a standardised state; 10⁴ says the mean."""

SOFTMAX_RIDGES = (1.0, 10.0, 100.0, 1000.0)


def ridge(
    parts: Components,
    values: Float[Tensor, "images columns"],
    member: Float[Tensor, "columns attributes"],
    fold: Int[Tensor, "images"],
    strengths: tuple[float, ...] = STRENGTHS,
) -> Float[Tensor, "positions images columns"]:
    """What ridge regressions say of each image when they have not seen it.

    All positions, folds and columns at once. Minimises Σ(y - b - xᵀw)² + strength · m ‖w‖², m the
    mean of ‖x‖² over the images learned from, x standardised. Columns of one attribute share their
    strength.

    Args:
        parts: states in principal axes.
        values: what to predict.
        member: which columns make up an attribute.
        fold: where each image is held out.
        strengths: penalties to choose from.
    """
    mean = (parts.learned.double() @ values / parts.count)[:, :, None]
    centred = torch.where(parts.learned[..., None], values - mean, 0.0)
    projected = parts.scores.mT @ centred
    size = parts.power.sum(-1, keepdim=True) / parts.count
    squares = torch.where(parts.learned[..., None], parts.scores, 0.0).square()
    best = torch.full((*parts.learned.shape[:2], member.shape[1]), torch.inf, device=values.device)
    best, weights = best.double(), torch.zeros_like(projected)
    for strength in strengths:
        # No variance at all: any penalty gives the mean.
        penalty = torch.where(size > 0, strength * size, 1.0)
        shrunk = projected / (parts.power + penalty)[..., None]
        leverage = squares @ (1 / (parts.power + penalty))[..., None] + 1 / parts.count[..., None]
        weight = parts.learned[..., None] / (1 - leverage).square()
        error = (weight.mT @ (centred - parts.scores @ shrunk).square_())[..., 0, :] @ member
        better = error < best
        best = torch.where(better, error, best)
        taken = better.double() @ member.mT > 0
        weights = torch.where(taken[:, :, None], shrunk, weights)
    return held_out(mean + parts.scores @ weights, fold)


def linear_v_information(
    states: Float[Tensor, "images width"],
    labels: Int[Tensor, "images"],
    classes: int,
    present: Tensor,
    fold: Int[Tensor, "images"],
    folds: int,
) -> float:
    """Held-out information that a linear softmax finds in one position about a category, nats.

    `mixlens.metrics.usable.v_information`, mean over the images held out. The ridge is chosen for
    each fold by the same on its neighbour fold, learned without both.
    """
    every = torch.arange(folds, device=fold.device)[:, None]
    test, validation = fold == every, fold == (every + 1) % folds
    shape = (folds, *states.shape)
    wide, names = states.expand(shape), labels.expand(shape[:2])
    chosen = torch.full((folds,), -torch.inf, dtype=torch.float64, device=states.device)
    ridges = torch.full_like(chosen, SOFTMAX_RIDGES[-1])
    for one in SOFTMAX_RIDGES:
        value = v_information(wide, names, classes, validation, present & ~test, one)
        better = value > chosen
        chosen, ridges = torch.where(better, value, chosen), torch.where(better, one, ridges)
    total = 0.0
    for one in ridges.unique().tolist():
        some = ridges == one
        value = v_information(
            wide[some], names[some], classes, test[some], present.expand(shape[:2])[some], one
        )
        total += float((value * (test[some] & present).sum(-1)).sum())
    return total / int(present.sum())
