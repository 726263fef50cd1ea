"""Which visual tokens stay: each policy gives scores, and the tokens with the highest stay.

All are blind to the question and its answer: one choice an image, for everything asked about it.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_NEGLIGIBLE = 1e-6  # of the largest eigenvalue; directions below it are rounding


def tokens_to_keep(tokens: int, share: float) -> int:
    """How many of `tokens` stay when `share` (0 to 1) is deleted.

    To the nearest, but at least one, unless all are to go: with a share of 1 none stays.
    """
    return 0 if share >= 1 else max(1, math.floor(tokens * (1 - share) + 0.5))


def keep_highest(
    scores: Float[Tensor, "images tokens"], counts: Int[Tensor, " images"]
) -> Bool[Tensor, "images tokens"]:
    """Which tokens stay: as many of each image as `counts` says; the first ones win a tie."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order.argsort(dim=-1) < counts[:, None]


def random_scores(
    example_ids: Sequence[str], tokens: int, seed: int
) -> Float[Tensor, "images tokens"]:
    """Uniform scores that depend on the seed and the image alone, not on its batch.

    With more `tokens` the first scores stay the same. What stays at a larger share is a part of
    what stays at a smaller one.
    """
    rows = []
    for name in example_ids:
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        rows.append(np.random.default_rng(list(digest)).random(tokens))
    return torch.from_numpy(np.stack(rows))


def norm_scores(
    states: Float[Tensor, "images tokens width"],
) -> Float[Tensor, "images tokens"]:
    """Euclidean norms."""
    return states.float().norm(dim=-1)


def leverage_scores(
    states: Float[Tensor, "images tokens width"], rank: int | Int[Tensor, " images"]
) -> Float[Tensor, "images tokens"]:
    """Leverage of each token on the best approximation of the tokens of this rank, 0 to 1.

    The diagonal of the hat matrix U_k U_k^T of the top k singular directions (Mahoney and Drineas
    2009, "CUR matrix decompositions for improved data analysis"); directions that the tokens do
    not have count nothing. The usual rank is the number of tokens to keep. Tokens are not centred,
    and tokens of zeros change nothing.
    """
    wide = states.double()
    values, vectors = torch.linalg.eigh(wide @ wide.mT)  # ascending
    spans = values > _NEGLIGIBLE * values[:, -1:].clamp_min(torch.finfo(values.dtype).tiny)
    ranks = torch.as_tensor(rank, device=values.device).expand(len(values))
    top = torch.arange(values.shape[-1], device=values.device) >= values.shape[-1] - ranks[:, None]
    return (vectors.square() * (spans & top)[:, None, :]).sum(-1)


def unique_scores(
    states: Float[Tensor, "images tokens width"],
) -> Float[Tensor, "images tokens"]:
    """How long each token is spared when the most redundant one is dropped, again and again.

    Redundant is what has the largest mean squared cosine with the tokens that remain; of equals
    the last goes first. A zero token has a cosine of 0 with all.
    """
    unit = torch.nn.functional.normalize(states.double(), dim=-1)
    squares = (unit @ unit.mT).square()
    squares.diagonal(dim1=-2, dim2=-1).zero_()
    # All that remain have the same number of others, so sums order them as means do.
    load = squares.sum(-1)
    spared = torch.zeros_like(load)
    images = torch.arange(len(load), device=load.device)
    tokens = load.shape[-1]
    for step in range(tokens):
        last = tokens - 1 - load.flip(-1).argmax(-1)
        spared[images, last] = step
        load = load - squares[images, last]
        load[images, last] = -torch.inf
    return spared
