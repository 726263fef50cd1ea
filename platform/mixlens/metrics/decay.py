"""How fast the singular values of tokens fall: metrics of the order of the spectrum.

All are of the tokens as given, with the notation of `mixlens.metrics.spectrum`. Singular values
that rounding of the Gram may have given (below about 1e-7 of the first) count as zero.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.metrics.spectrum import (
    ROUNDING,
    above_rounding,
    eigenvalues_of,
    gram,
    shorter_side,
)


def numerical_rank(
    tokens: Float[Tensor, "*batch tokens width"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
    epsilon: float = 0.01,
) -> Float[Tensor, "*batch"]:
    """How many singular values are above a share of the first: #{σ_i > ε σ_1}.

    Rounding to bf16 alone gives tokens singular values up to .002 σ_1: a smaller ε counts it. Equal
    tokens and one token give 1, all-zero tokens NaN. Range [0, min(N, D)]; cost Gram + eigenvalues
    4N³/3.
    """
    values = eigenvalues_of(gram(tokens, mask))
    return numerical_rank_of(values, epsilon**2 * values[..., 0])


def spectral_k(
    tokens: Float[Tensor, "*batch tokens width"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
    share: float = 0.9,
) -> Float[Tensor, "*batch"]:
    """Smallest k whose first k directions hold a share τ of the energy: min k: Σ_{i<=k} p_i >= τ.

    p = λ / Σλ; k90, k95 and k99 are τ = .9, .95, .99. The tail decides, so it depends on N: compare
    at equal N only. Equal tokens and one token give 1, all-zero tokens NaN. Range [1, rank]; cost
    Gram + eigenvalues 4N³/3.
    """
    return spectral_k_of(eigenvalues_of(gram(tokens, mask)), share)


def condition_number(
    tokens: Float[Tensor, "*batch tokens width"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
    share: float | None = None,
) -> Float[Tensor, "*batch"]:
    """Condition number σ_1 / σ_min; with a share of energy σ_1 / σ_k, k that of `spectral_k`.

    Rounding of bf16 activations sets σ_min: use share = .99 there. The Gram squares the condition,
    so above 1e7 or so it is infinite; so it is for equal tokens (σ_min = 0). One token gives 1,
    all-zero tokens NaN. Range [1, inf]; cost Gram + eigenvalues 4N³/3.
    """
    values = eigenvalues_of(gram(tokens, mask))
    last = shorter_side(tokens, mask) if share is None else spectral_k_of(values, share)
    return condition_number_of(values, last)


class PowerLaw(NamedTuple):
    """A power law λ_i ~ i^-α fitted to a stretch of a spectrum, in float64.

    Attributes:
        alpha: α.
        r2: share of the variance of ln λ that the law explains; report it beside α.
    """

    alpha: Float[Tensor, "*batch"]
    r2: Float[Tensor, "*batch"]


def alpha_req(
    tokens: Float[Tensor, "*batch tokens width"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
    window: tuple[int, int] = (11, 100),
) -> PowerLaw:
    """Decay α of the spectrum: least-squares slope of ln λ_i on ln i over a window, sign turned.

    The window, first and last i counted from 1, is part of the definition: fix one for all that is
    compared, beyond the few first directions and short of the tail, which noise flattens and few
    tokens steepen. Defined on the covariance: centre the tokens first. NaN where the rank is below
    the window's last: so for equal tokens, one token, all-zero tokens. Range [0, inf); cost Gram +
    eigenvalues 4N³/3. Source: Agrawal et al. 2022.
    """
    return alpha_req_of(eigenvalues_of(gram(tokens, mask)), window)


def numerical_rank_of(
    eigenvalues: Float[Tensor, "*batch side"], threshold: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """How many squared singular values exceed a (squared) threshold; all zero gives NaN."""
    count = (above_rounding(eigenvalues) > threshold[..., None]).sum(-1).double()
    return torch.where(eigenvalues[..., 0] > 0, count, torch.nan)


def spectral_k_of(
    eigenvalues: Float[Tensor, "*batch side"], share: float
) -> Float[Tensor, "*batch"]:
    """`spectral_k` from squared singular values, largest first; all zero gives NaN."""
    held = eigenvalues.cumsum(-1) / eigenvalues.sum(-1, keepdim=True)
    # Ten equal directions hold nine tenths in nine of them, whatever the last bit says.
    short = held < share - ROUNDING
    return torch.where(eigenvalues[..., 0] > 0, short.sum(-1).double() + 1, torch.nan)


def condition_number_of(
    eigenvalues: Float[Tensor, "*batch side"], last: Tensor
) -> Float[Tensor, "*batch"]:
    """σ_1 / σ_last from squared singular values, largest first, `last` counted from 1."""
    index = last.nan_to_num(1).long().clamp_min(1)[..., None] - 1
    smallest = above_rounding(eigenvalues).gather(-1, index)[..., 0]
    return (eigenvalues[..., 0] / smallest).sqrt()


def alpha_req_of(eigenvalues: Float[Tensor, "*batch side"], window: tuple[int, int]) -> PowerLaw:
    """`alpha_req` from squared singular values, largest first."""
    first, last = window
    if not 1 <= first < last:
        raise ValueError(f"window={window}: give the first and last index, counted from 1")
    if eigenvalues.shape[-1] < last:
        nothing = eigenvalues.new_full(eigenvalues.shape[:-1], torch.nan)
        return PowerLaw(nothing, nothing)
    y = above_rounding(eigenvalues)[..., first - 1 : last].log()
    x = torch.arange(first, last + 1, device=y.device, dtype=y.dtype).log()
    x, y = x - x.mean(), y - y.mean(-1, keepdim=True)
    slope = (x * y).sum(-1) / (x**2).sum()
    return PowerLaw(-slope, slope**2 * (x**2).sum() / (y**2).sum(-1))
