"""Intrinsic dimension of tokens, from distances between them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.metrics.spectrum import ROUNDING, centred


def twonn(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """TwoNN dimension (N - 1) / Σ_n ln(r2 / r1), r1 and r2 a token's two nearest distances.

    The maximum-likelihood form, unbiased where the density is constant up to r2; the source fits a
    line and drops the largest ratios. Of equal tokens (white background) one is kept, for r1 = 0
    says nothing. Too few tokens for the dimension lower it: 576 tokens of a Gaussian in 64
    dimensions give about 34. Distances are formed in float64: those of a bf16 Gram are wrong for
    neighbours. Equally far tokens give infinity, fewer than three different ones NaN.
    Range (0, inf]; cost one Gram [N, N]. Source: Facco et al. 2017.
    """
    if tokens.shape[-2] < 3:
        return tokens.new_full(tokens.shape[:-2], torch.nan, dtype=torch.float64)
    rest = centred(tokens, mask)
    squared = squared_distances_of(rest @ rest.mT, mask)
    copy = (squared == 0).tril(-1).any(-1)
    nearest = squared.masked_fill(copy[..., None, :], torch.inf).topk(2, largest=False).values
    used = ~copy if mask is None else ~copy & mask
    count = used.sum(-1)
    ratio = 0.5 * (nearest[..., 1] / nearest[..., 0]).log()
    value = (count - 1) / torch.where(used, ratio, 0.0).sum(-1)
    return torch.where(count > 2, value, torch.nan)


def squared_distances_of(
    gram: Float[Tensor, "*batch tokens tokens"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch tokens tokens"]:
    """Squared Euclidean distances from XXᵀ; infinite to itself and where no token exists.

    Below 1e-6 of the tokens' lengths a distance is 0, so X should be centred.
    """
    own = gram.diagonal(dim1=-2, dim2=-1)
    both = own[..., :, None] + own[..., None, :]
    squared = both - 2 * gram
    squared = torch.where(squared <= ROUNDING * both, 0.0, squared)
    apart = ~torch.eye(gram.shape[-1], dtype=torch.bool, device=gram.device)
    if mask is not None:
        apart = apart & mask[..., :, None] & mask[..., None, :]
    return torch.where(apart, squared, torch.inf)
