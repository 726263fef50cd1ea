"""Directions of tokens: how alike they point, and the subspaces they span."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.metrics.spectrum import decompose, masked


def mean_cosine(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Mean cosine over all pairs of different tokens: (‖Σ x̂‖² - N) / (N(N - 1)).

    Opposite signs cancel, and a common mean direction (anisotropy) pushes it to 1; the redundancy
    score has neither fault. A zero token has no direction and is left out. Fewer than two tokens
    with a direction give NaN. Range [-1/(N - 1), 1]; cost ND, no Gram. Source: Ethayarajh 2019.
    """
    wide = masked(tokens, mask)
    norms = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    count = (norms[..., 0] > 0).sum(-1)
    total = torch.where(norms == 0, 0.0, wide / norms).sum(-2)
    value = ((total**2).sum(-1) - count) / (count * (count - 1))
    return torch.where(count > 1, value, torch.nan)


def mean_cosine_of(gram: Float[Tensor, "*batch tokens tokens"]) -> Float[Tensor, "*batch"]:
    """`mean_cosine` from the Gram matrix of the tokens; one of the features does not hold it."""
    inverse = gram.diagonal(dim1=-2, dim2=-1).rsqrt()
    inverse = torch.where(inverse.isinf(), 0.0, inverse)
    count = (inverse != 0).sum(-1)
    total = (inverse * (gram @ inverse[..., None])[..., 0]).sum(-1)
    return torch.where(count > 1, (total - count) / (count * (count - 1)), torch.nan)


def top_subspace(
    tokens: Float[Tensor, "*batch tokens width"],
    k: int,
    mask: Bool[Tensor, "*batch tokens"] | None = None,
) -> Float[Tensor, "*batch width k"]:
    """Orthonormal basis of the span of the k first right singular vectors (feature directions).

    Columns beyond the rank of the tokens are zero. The span is well posed only where the singular
    values k and k + 1 differ: report the gap beside it. NaN in a token makes its basis NaN.
    Cost: Gram of the smaller side + eigenvectors.
    """
    return decompose(tokens, k, mask).basis


def subspace_alignment(
    first: Float[Tensor, "*batch width k"], second: Float[Tensor, "*batch width k"]
) -> Float[Tensor, "*batch"]:
    """Mean squared cosine of the principal angles between two subspaces: ‖UᵀV‖²_F / k.

    U, V orthonormal bases from `top_subspace`; k is the larger of their numbers of non-zero
    columns, so a subspace that lost a direction is not fully aligned. 1 for equal spans; random
    ones give k / width, the null to compare with (.0012 for 5 of 4096). Two empty subspaces give
    NaN. Range [0, 1]; cost width k². Source: Björck and Golub 1973.
    """
    overlap = ((first.double().mT @ second.double()) ** 2).sum((-2, -1))
    columns = torch.maximum(_columns(first), _columns(second))
    return overlap / columns


def _columns(basis: Tensor) -> Tensor:
    return (basis != 0).any(-2).sum(-1)
