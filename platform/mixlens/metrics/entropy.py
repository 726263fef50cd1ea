"""How evenly tokens use their directions: entropies of spectra, and ranks that are their powers.

p = λ / Σλ are the shares of energy of the directions, q = σ / Σσ those of the singular values; the
effective rank of q is in `mixlens.metrics.spectrum`, with the notation and the Rényi order.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.metrics.redundancy import directions
from mixlens.metrics.spectrum import (
    above_rounding,
    centred,
    eigenvalues_of,
    entropy_of,
    gram,
    participation_ratio_of,
    shorter_side,
    token_mean,
    tokens_of,
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


def renyi2_entropy(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Matrix-based Rényi entropy of order 2, in nats: -ln(‖G‖²_F / tr(G)²).

    The logarithm of the participation ratio: report one of the two. Equal tokens and one token give
    0, all-zero tokens NaN. Range [0, ln min(N, D)]; cost one Gram of the smaller side.
    Source: Giraldo, Rao and Príncipe 2015.
    """
    return participation_ratio_of(gram(tokens, mask)).log()


def rankme(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """RankMe exp(-Σ (q + ε) ln(q + ε)), ε = 1e-7, over the min(N, D) singular values.

    The effective rank but for ε; meant for embeddings of a whole dataset, one a row, not for the
    tokens of an image. Equal tokens and one token give 1 up to N ε ln(1/ε), all-zero tokens NaN.
    Range [1, min(N, D)] up to that; cost Gram + eigenvalues 4N³/3. Source: Garrido et al. 2023.
    """
    return rankme_of(eigenvalues_of(gram(tokens, mask)), shorter_side(tokens, mask))


def diff_erank(
    untrained: Float[Tensor, "*batch tokens width"],
    trained: Float[Tensor, "*batch tokens width"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Diff-eRank: exp S1 of the untrained model's tokens less exp S1 of the trained model's.

    Of both, the tokens' own mean is subtracted and the rest brought to unit length, then S1 is that
    of `von_neumann_entropy`: the spectrum of a covariance, not the singular values of the effective
    rank. A token equal to the mean has no direction and is left out. Positive where training took
    dimensions away. One token, equal tokens and all-zero tokens give NaN.
    Range ±(min(N, D) - 1); cost two Grams + eigenvalues 4N³/3. Source: Wei et al. 2024.
    """
    return _centred_rank(untrained, mask) - _centred_rank(trained, mask)


def lidar(
    tokens: Float[Tensor, "*batch images tokens width"],
    mask: Bool[Tensor, "*batch images tokens"] | None = None,
    ridge: float = 1e-4,
) -> Float[Tensor, "*batch"]:
    """LiDAR exp H of the eigenvalues of Σ_w^-½ Σ_b Σ_w^-½: directions that tell images apart.

    Σ_b is the covariance of the images' mean tokens, Σ_w that of all tokens about the mean of their
    image, plus ridge · tr(Σ_w) / D on its diagonal. The source adds an absolute δ = 1e-4, which is
    another measure at another scale of the tokens; relative, scale changes nothing. With fewer
    tokens in all than width, what Σ_w does not span is weighted by the ridge alone.

    NaN for fewer than two images, images of equal means, and images each of equal tokens (one token
    each, all zero). An image without tokens is left out. Range [1, images - 1]; cost 2ND² images +
    D³/3. Source: Thilak et al. 2024.
    """
    exists = tokens_of(tokens, mask) > 0
    within = centred(tokens, mask).flatten(-3, -2)
    between = centred(token_mean(tokens, mask)[..., 0, :], exists)
    scatter = within.mT @ within
    trace = scatter.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    usable = (trace > 0) & trace.isfinite()
    identity = torch.eye(tokens.shape[-1], dtype=scatter.dtype, device=scatter.device)
    # Counts cancel in the shares, so Σ_w may as well have trace D.
    scaled = torch.where(usable, scatter / trace * tokens.shape[-1], identity) + ridge * identity
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(scaled), between.mT, upper=False)
    values = eigenvalues_of(gram(whitened))
    return torch.where(usable[..., 0, 0], von_neumann_entropy_of(values).exp(), torch.nan)


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


def _centred_rank(tokens: Tensor, mask: Tensor | None) -> Tensor:
    units, _ = directions(tokens.double(), mask, token_mean(tokens, mask))
    return von_neumann_entropy(units).exp()
