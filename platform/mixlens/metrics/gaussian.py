"""Information under a Gaussian model, in nats, its finite-sample bias removed exactly.

A deterministic network makes the mutual information of pixels and tokens infinite or constant (Saxe
et al. 2018, Goldfeld et al. 2019): only that of a restricted family says something. Here the family
is Gaussian: what a linear map between the two sides could tell, and nothing beyond.

With S the sample covariance of k Gaussian variables at ν degrees of freedom (samples - 1),
E ln|S| = ln|Σ| + Σ_{j<k} ψ((ν - j)/2) + k ln(2/ν), whatever Σ is (Wishart). So every quantity built
of Gaussian entropies has a bias that depends on sizes only, and loses it here. It takes samples
for independent: tokens of one image are not, and more bias is left than where images are samples.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.metrics.spectrum import decompose, masked

# What centring leaves of a variable below this share of its length is rounding, not variation.
NO_VARIATION = 1e-12
# A squared correlation this close to 1, or an eigenvalue of a correlation matrix this close to 0,
# is that of a deterministic relation.
DETERMINISTIC = 1e-9


def gaussian_mutual_information(
    first: Float[Tensor, "*batch samples width"],
    second: Float[Tensor, "*batch samples others"],
    mask: Bool[Tensor, "*batch samples"] | None = None,
    components: int = 32,
) -> Float[Tensor, "*batch"]:
    """Mutual information of two Gaussian vectors: -½ Σ_k ln(1 - ρ_k²), ρ canonical correlations.

    Less its bias ½ Σ_{j<p} [ψ((ν - j)/2) - ψ((ν - q - j)/2)] ≈ pq/2n, for p and q the dimensions
    of the two sides and ν = n - 1: unbiased for Gaussian samples at every truth, so it can come out
    below 0. Use n >= 20 (p + q). Components are those of largest variance, chosen by the same data:
    dimensions of large scale go first, and information elsewhere is not seen.

    A constant side gives 0, a deterministic relation infinity; fewer than p + q + 1 samples, one
    sample and NaN give NaN. Unchanged by invertible linear maps of a side that is not reduced. In
    nats, range (-bias, ∞]; cost one Gram of the smaller side, and its eigenvectors, for each side.

    Args:
        first: one row a sample: tokens of an image, or images.
        second: the other side of the same samples.
        mask: which samples exist.
        components: principal components kept of each side; directions below 1e-6 of the largest
            standard deviation count as none.
    """
    present = existing(first, mask)
    one, two, broken = _bases(first, second, present, components)
    found = torch.linalg.svdvals(one.mT @ two)
    value = _shared(found).sum(-1) - _bias(one, two, present)
    return torch.where(broken, torch.nan, value)


def entropy_bias(
    dimensions: Int[Tensor, "*batch"], degrees: Int[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """½ Σ_{j<k} ψ((ν - j)/2): what E ½ ln|S| has over ½ ln|Σ|, but for a term linear in k."""
    most = int(dimensions.max()) if dimensions.numel() else 0
    j = torch.arange(max(most, 0), device=degrees.device)
    terms = torch.special.digamma((degrees[..., None] - j).double() / 2) / 2
    return torch.where(j < dimensions[..., None], terms, 0.0).sum(-1)


def centred(
    samples: Float[Tensor, "*batch samples width"], present: Bool[Tensor, "*batch samples"]
) -> Float[Tensor, "*batch samples width"]:
    """Samples less their mean, in float64; zero where none exists and in variables without spread.

    NaN and infinity stay, in their own variable.
    """
    wide = masked(samples, present)
    mean = wide.sum(-2, keepdim=True) / present.sum(-1)[..., None, None]
    moved = torch.where(present[..., None], wide - mean, 0.0)
    length, floor = moved.norm(dim=-2, keepdim=True), NO_VARIATION * wide.norm(dim=-2, keepdim=True)
    return torch.where(length <= floor, 0.0, moved)


def existing(
    samples: Float[Tensor, "*batch samples width"], mask: Bool[Tensor, "*batch samples"] | None
) -> Bool[Tensor, "*batch samples"]:
    """The mask, or one that is true everywhere."""
    if mask is not None:
        return mask
    return torch.ones(samples.shape[:-1], dtype=torch.bool, device=samples.device)


def _bases(
    first: Tensor, second: Tensor, present: Tensor, components: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormal principal components of both sides over the samples, and which are broken."""
    one, two = (
        decompose(centred(side, present).mT, min(components, side.shape[-1])).basis
        for side in (first, second)
    )
    broken = ~(one.isfinite().all((-2, -1)) & two.isfinite().all((-2, -1)))
    keep = ~broken[..., None, None]
    return torch.where(keep, one, 0.0), torch.where(keep, two, 0.0), broken


def _shared(correlations: Tensor) -> Tensor:
    """-½ ln(1 - ρ²) of each correlation."""
    apart = 1 - correlations**2
    return -0.5 * torch.where(apart < DETERMINISTIC, 0.0, apart).log()


def _bias(one: Tensor, two: Tensor, present: Tensor) -> Tensor:
    """What two independent sides of this size are expected to share; NaN with too few samples."""
    p, q = ((basis != 0).any(-2).sum(-1) for basis in (one, two))
    degrees = present.sum(-1) - 1
    bias = entropy_bias(p, degrees) + entropy_bias(q, degrees) - entropy_bias(p + q, degrees)
    return torch.where(degrees >= (p + q).clamp_min(1), bias, torch.nan)
