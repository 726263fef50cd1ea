"""How evenly tokens use their directions: entropies of spectra, and ranks that are their powers.

p = λ / Σλ are the shares of energy of the directions, q = σ / Σσ those of the singular values; the
effective rank of q is in `mixlens.metrics.spectrum`, with the notation and the Rényi order.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.metrics.spectrum import (
    above_rounding,
    eigenvalues_of,
    entropy_of,
    gram,
    shorter_side,
)

# What RankMe adds to every share.
RANKME_EPSILON = 1e-7


def von_neumann_entropy(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Von Neumann entropy S1 = -Σ p ln p of the Gram matrix of unit trace, in nats.

    iid Gaussian tokens give about ln N - N/2D (N < D). Equal tokens and one token give 0, all-zero
    tokens NaN. Range [0, ln min(N, D)]; cost Gram + eigenvalues 4N³/3.
    """
    return von_neumann_entropy_of(eigenvalues_of(gram(tokens, mask)))


def rankme(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """RankMe exp(-Σ (q + ε) ln(q + ε)), ε = 1e-7, over the min(N, D) singular values.

    The effective rank but for ε; meant for embeddings of a whole dataset, one a row, not for the
    tokens of an image. Equal tokens and one token give 1 up to N ε ln(1/ε), all-zero tokens NaN.
    Range [1, min(N, D)] up to that; cost Gram + eigenvalues 4N³/3. Source: Garrido et al. 2023.
    """
    return rankme_of(eigenvalues_of(gram(tokens, mask)), shorter_side(tokens, mask))


def von_neumann_entropy_of(eigenvalues: Float[Tensor, "*batch side"]) -> Float[Tensor, "*batch"]:
    """`von_neumann_entropy` from squared singular values; all zero gives NaN (0/0)."""
    return entropy_of(eigenvalues)


def rankme_of(
    eigenvalues: Float[Tensor, "*batch side"], shorter: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """`rankme` from squared singular values, largest first, of which the first `shorter` count."""
    singular = above_rounding(eigenvalues).sqrt()
    share = singular / singular.sum(-1, keepdim=True) + RANKME_EPSILON
    counted = torch.arange(share.shape[-1], device=share.device) < shorter[..., None]
    terms = torch.where(counted, torch.special.xlogy(share, share), 0.0)
    return torch.where(eigenvalues[..., 0] > 0, terms.sum(-1).neg().exp(), torch.nan)
