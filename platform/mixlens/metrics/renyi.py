"""Mutual information of order 2 from kernel matrices: no density, no eigendecomposition."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.metrics.gaussian import existing
from mixlens.metrics.spectrum import masked


def matrix_renyi_mutual_information(
    first: Float[Tensor, "*batch samples width"],
    second: Float[Tensor, "*batch samples others"],
    mask: Bool[Tensor, "*batch samples"] | None = None,
    bandwidth: float | None = None,
) -> Float[Tensor, "*batch"]:
    """Matrix-based Rényi mutual information of order 2: S(K_x) + S(K_y) - S(K_x ∘ K_y).

    S(K) = -ln(‖K‖²_F / (tr K)²) and K = exp(-‖x_i - x_j‖² / 2σ²). It depends on σ: wide kernels see
    nothing (0), narrow ones nothing but the samples' identity (ln n). It grows with n towards no
    limit that is the mutual information, so compare equal n and σ only, and report the value of
    shuffled pairs beside it.

    A constant side and one sample give 0, no samples and NaN give NaN. Unchanged by rotation, and
    by scale with the median bandwidth. In nats, at most min(S(K_x), S(K_y)) <= ln n; cost
    n² (p + q), memory n² a batch element. Source: Giraldo, Rao and Príncipe 2015.

    Args:
        first: one row a sample.
        second: the other side of the same samples.
        mask: which samples exist.
        bandwidth: σ of both kernels; None takes, of each side, the median distance of its samples.
            A median of 0 (half of the pairs equal) tells samples apart only by being equal.
    """
    present = existing(first, mask)
    if not present.shape[-1]:
        return torch.full(present.shape[:-1], torch.nan, dtype=torch.float64, device=first.device)
    x, y = (_kernel(side, present, bandwidth) for side in (first, second))
    return _entropy(x, present) + _entropy(y, present) - _entropy(x * y, present)


def _kernel(samples: Tensor, present: Tensor, bandwidth: float | None) -> Tensor:
    """Gaussian kernel with ones on the diagonal; zero where a sample of the pair is absent."""
    wide = masked(samples, present)
    pair = present[..., None, :] & present[..., :, None]
    # Differences, not inner products: a mean far from the origin must cost no digits.
    distance = torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist")
    if bandwidth is None:
        other = pair & ~torch.eye(pair.shape[-1], dtype=torch.bool, device=pair.device)
        median = torch.where(other, distance, torch.nan).flatten(-2).nanmedian(-1).values
        width = median[..., None, None]
    else:
        width = torch.full_like(distance[..., :1, :1], bandwidth)
    exponent = torch.where(distance == 0, 0.0, distance / width)
    return torch.where(pair, torch.exp(-0.5 * exponent**2), 0.0)


def _entropy(kernel: Tensor, present: Tensor) -> Tensor:
    """Rényi entropy of order 2 of a kernel matrix with unit diagonal: tr K = n."""
    return -((kernel**2).sum((-2, -1)) / present.sum(-1) ** 2).log()
