"""How many directions the tokens of an image use: metrics of their singular values.

All are of the tokens as given. With a mean direction left in (raw hidden states), the first
singular value carries it: the stable rank is then close to 1 and says little else.

With X [N, D] the tokens, σ_i the singular values of X and λ_i = σ_i², for any X

    rank >= effective rank >= exp S1 >= participation ratio >= stable rank >= 1

(Rényi entropies of λ/Σλ fall with their order; S1 is their Shannon entropy).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Share of a quantity below which what a subtraction leaves of it is rounding of float64.
ROUNDING = 1e-12
_BLOCK_ROWS = 4  # more blocks save little and are slower at 64 tokens


def participation_ratio(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Participation ratio (Σλ)² / Σλ² = tr(G)² / ‖G‖²_F, the exponential of the Rényi-2 entropy.

    Finite samples lower it: 1/PR̂ ≈ 1/PR + 1/N (and + 1/D if features are a sample too); iid
    Gaussian tokens give (ND + 2) / (N + D + 1). Equal tokens and one token give 1, all-zero tokens
    NaN. Range [1, min(N, D)]; cost one Gram of the smaller side, no eigendecomposition.
    Source: Chun et al. 2026 (arXiv 2509.26560) on its sampling bias.
    """
    return participation_ratio_of(gram(tokens, mask))


def stable_rank(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Stable rank Σλ / λ_1 = ‖X‖²_F / ‖X‖²_2.

    Equal tokens and one token give 1, all-zero tokens NaN. Range [1, rank]; cost Gram + eigenvalues
    4N³/3. Source: Rudelson and Vershynin 2007.
    """
    return stable_rank_of(eigenvalues_of(gram(tokens, mask)))


def effective_rank(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Effective rank exp H(q), H the entropy of q = σ / Σσ (singular values, not their squares).

    Noise flattens it: iid tokens give .98 N. Equal tokens and one token give 1, all-zero tokens
    NaN. The Gram squares the condition, so it is formed in float64, where singular values below
    1e-8 of the first are noise. Range [1, min(N, D)]; cost Gram + eigenvalues 4N³/3.
    Source: Roy and Vetterli 2007.
    """
    return effective_rank_of(eigenvalues_of(gram(tokens, mask)))


def gram(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch side side"]:
    """Gram matrix of the smaller side, in float64: XXᵀ if there are fewer tokens than width.

    Its eigenvalues are the squared singular values of the existing tokens (and zeros). A batch
    element with a NaN or infinity in an existing token is NaN throughout.
    """
    present = _one_at_least(masked(tokens, mask))
    product = self_product(present if tokens.shape[-2] <= tokens.shape[-1] else present.mT)
    # No entry is larger than the diagonal allows, so a broken token always shows there.
    broken = ~product.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)[..., None, None]
    return product + torch.where(broken, torch.nan, 0.0)


def self_product(vectors: Float[Tensor, "*batch n width"]) -> Float[Tensor, "*batch n n"]:
    """Inner products of all pairs of vectors: a block row at a time, only what stands on or right
    of the diagonal, the rest by symmetry (5/8 of the products, which is what a large Gram costs).
    """
    n = vectors.shape[-2]
    product = vectors.new_empty(*vectors.shape[:-1], n)
    step = max(1, -(-n // _BLOCK_ROWS))
    for start in range(0, n, step):
        end = start + step
        row = vectors[..., start:end, :] @ vectors[..., start:, :].mT
        product[..., start:end, start:] = row
        product[..., end:, start:end] = row[..., step:].mT
    return product


def masked(tokens: Tensor, mask: Tensor | None) -> Tensor:
    """The tokens in float64, zero where none exists."""
    wide = tokens.double()
    return wide if mask is None else torch.where(mask[..., None], wide, 0.0)


def _one_at_least(present: Tensor) -> Tensor:
    """Zeros in place of an array without tokens: their Gram says the same as of masked tokens."""
    rows, width = present.shape[-2:]
    return torch.nn.functional.pad(present, (0, int(not width), 0, int(not rows)))


def tokens_of(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Int[Tensor, "*batch"]:
    """How many tokens exist."""
    if mask is not None:
        return mask.sum(-1)
    return torch.full(tokens.shape[:-2], tokens.shape[-2], device=tokens.device)


def shorter_side(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Int[Tensor, "*batch"]:
    """How many singular values the existing tokens have: min(N, D)."""
    return tokens_of(tokens, mask).clamp_max(tokens.shape[-1])


def token_mean(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch 1 width"]:
    """Mean of the existing tokens, in float64; NaN where none exists."""
    return masked(tokens, mask).sum(-2, keepdim=True) / tokens_of(tokens, mask)[..., None, None]


def centred(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch tokens width"]:
    """Tokens less their mean, in float64: zero where none exists, and where all are equal.

    For measures that are defined on a covariance; the redundancy of tokens must not be centred so.
    """
    wide = masked(tokens, mask)
    rest = masked(wide - token_mean(tokens, mask), mask)
    size, left = ((x**2).sum((-2, -1), keepdim=True) for x in (wide, rest))
    return torch.where(left <= ROUNDING**2 * size, 0.0, rest)


def eigenvalues_of(gram: Float[Tensor, "*batch side side"]) -> Float[Tensor, "*batch side"]:
    """Eigenvalues of Gram matrices, largest first, rounding below zero removed; NaN stays NaN."""
    broken = gram.isnan().any(-1).any(-1)
    values = torch.linalg.eigvalsh(torch.where(broken[..., None, None], 0.0, gram))
    return torch.where(broken[..., None], torch.nan, values.flip(-1).clamp_min(0.0))


class Decomposition(NamedTuple):
    """What one eigendecomposition of the smaller Gram gives, all in float64."""

    gram: Float[Tensor, "*batch side side"]
    eigenvalues: Float[Tensor, "*batch side"]
    basis: Float[Tensor, "*batch width k"]


def decompose(
    tokens: Float[Tensor, "*batch tokens width"],
    k: int,
    mask: Bool[Tensor, "*batch tokens"] | None = None,
) -> Decomposition:
    """Gram, its eigenvalues (largest first) and the first k right singular vectors.

    Basis columns beyond the rank are zero; singular values below 1e-6 of the first count as zero
    there, because a vector recovered from the Gram is noise below that.
    """
    present = masked(tokens, mask)
    matrix = gram(present)
    if not present.numel():
        basis = present.new_zeros(*present.shape[:-2], present.shape[-1], k)
        return Decomposition(matrix, eigenvalues_of(matrix), basis)
    broken = matrix.diagonal(dim1=-2, dim2=-1).isnan().any(-1)[..., None]
    values, vectors = torch.linalg.eigh(matrix.nan_to_num(nan=0.0))
    values = values.flip(-1).clamp_min(0.0)
    k_here = min(k, values.shape[-1])
    basis = vectors[..., values.shape[-1] - k_here :].flip(-1)
    top = values[..., None, :k_here]
    if tokens.shape[-2] <= tokens.shape[-1]:
        basis = (present.mT @ basis) * top.rsqrt()
    basis = torch.where(top > 1e-12 * values[..., :1, None], basis, 0.0)
    basis = torch.nn.functional.pad(basis, (0, k - k_here))
    return Decomposition(
        matrix,
        torch.where(broken, torch.nan, values),
        torch.where(broken[..., None], torch.nan, basis),
    )


def above_rounding(eigenvalues: Float[Tensor, "*batch side"]) -> Float[Tensor, "*batch side"]:
    """Eigenvalues with those that rounding alone may have given set to zero."""
    floor = torch.finfo(eigenvalues.dtype).eps * eigenvalues[..., :1] * eigenvalues.shape[-1]
    return torch.where(eigenvalues < floor, 0.0, eigenvalues)


def entropy_of(values: Float[Tensor, "*batch values"]) -> Float[Tensor, "*batch"]:
    """Shannon entropy, in nats, of values as shares of their sum; 0 ln 0 = 0, 0/0 is NaN."""
    share = values / values.sum(-1, keepdim=True)
    return -torch.special.xlogy(share, share).sum(-1)


def participation_ratio_of(gram: Float[Tensor, "*batch side side"]) -> Float[Tensor, "*batch"]:
    """`participation_ratio` from a Gram matrix; a Gram of zeros gives NaN (0/0)."""
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    scaled = gram / trace[..., None, None]
    return 1.0 / (scaled**2).sum((-2, -1))


def stable_rank_of(eigenvalues: Float[Tensor, "*batch side"]) -> Float[Tensor, "*batch"]:
    """`stable_rank` from squared singular values, largest first; all zero gives NaN (0/0)."""
    return eigenvalues.sum(-1) / eigenvalues[..., 0]


def effective_rank_of(eigenvalues: Float[Tensor, "*batch side"]) -> Float[Tensor, "*batch"]:
    """`effective_rank` from squared singular values; all zero gives NaN (0/0)."""
    return entropy_of(above_rounding(eigenvalues).sqrt()).exp()
