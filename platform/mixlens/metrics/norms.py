"""How unevenly energy is spread over tokens: metrics of their norms."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# Times the median norm of its image's tokens: this project's threshold.
SINK = 3.0


def token_norms(tokens: Float[Tensor, "*batch tokens width"]) -> Float[Tensor, "*batch tokens"]:
    """Euclidean norm of every token, in float64."""
    return torch.linalg.vector_norm(tokens, dim=-1, dtype=torch.float64)


def gini(
    norms: Float[Tensor, "*batch tokens"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Gini coefficient of token norms: 0 when all are equal, 1 - 1/N when one token has it all.

    Σ_i (2i - N - 1) e_(i) / (N Σ e), with e_(1) <= ... <= e_(N).

    Unbiased for comparison over different N only after times N / (N - 1). Attention sinks dominate
    it; pass squared norms for the Gini of energy. One token gives 0, all-zero norms NaN.
    Range [0, 1 - 1/N]; cost N log N. Source: Hurley and Rickard 2009.
    """
    values, exists = _values(norms, mask)
    count = exists.sum(-1)
    # Sorted after every real value, what the mask leaves out gets a rank above N and weight 0.
    ranked = torch.where(exists, values, torch.inf).sort(-1).values
    rank = torch.arange(1, ranked.shape[-1] + 1, device=ranked.device)
    inside = rank <= count[..., None]
    weight = 2 * rank - count[..., None] - 1
    weighted = torch.where(inside, ranked * weight, 0.0).sum(-1)
    total = values.sum(-1)
    return _estimable(weighted / (count * total), norms, mask, (count > 0) & (total > 0))


def energy_entropy(
    norms: Float[Tensor, "*batch tokens"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Entropy of the tokens' shares of energy, as a fraction of the largest possible.

    -Σ w ln w / ln N, with w = e² / Σ e² and 0 ln 0 = 0.

    1 when all norms are equal, 0 when one token has it all. One token (ln N = 0) and all-zero
    norms give NaN. Range [0, 1]; cost N.
    """
    values, exists = _values(norms, mask)
    count = exists.sum(-1)
    energy = _of_largest(values) ** 2
    total = energy.sum(-1)
    share = energy / total[..., None]
    entropy = -torch.special.xlogy(share, share).sum(-1)
    return _estimable(entropy / count.double().log(), norms, mask, (count > 1) & (total > 0))


def hoyer(
    norms: Float[Tensor, "*batch tokens"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Hoyer sparsity of token norms: (√N - ‖e‖₁ / ‖e‖₂) / (√N - 1).

    0 when all are equal, 1 when one token has it all. With CV that of `norm_cv`, ‖e‖₁ / ‖e‖₂ is
    √(N / (1 + CV²)): a function of CV, so report one of the two. One token (0/0) and all-zero norms
    give NaN. Range [0, 1]; cost N. Source: Hoyer 2004.
    """
    values, exists = _values(norms, mask)
    count = exists.sum(-1).double()
    scaled = _of_largest(values)
    ratio = scaled.sum(-1) / (scaled**2).sum(-1).sqrt()
    value = (count.sqrt() - ratio) / (count.sqrt() - 1)
    return _estimable(value, norms, mask, (count > 1) & (values.sum(-1) > 0))


def norm_cv(
    norms: Float[Tensor, "*batch tokens"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> Float[Tensor, "*batch"]:
    """Coefficient of variation of token norms: sd(e) / mean(e), the sd with N below.

    0 when all are equal, √(N - 1) when one token has it all. Outliers dominate it. One token gives
    0, all-zero norms NaN. Range [0, √(N - 1)]; cost N.
    """
    values, exists = _values(norms, mask)
    count = exists.sum(-1)
    scaled = _of_largest(values)
    mean = scaled.sum(-1) / count
    deviation = torch.where(exists, scaled - mean[..., None], 0.0)
    value = ((deviation**2).sum(-1) / count).sqrt() / mean
    return _estimable(value, norms, mask, (count > 0) & (values.sum(-1) > 0))


def no_sinks(
    norms: Float[Tensor, "*batch tokens"],
    exists: Bool[Tensor, "*batch tokens"],
    threshold: float = SINK,
) -> Bool[Tensor, "*batch tokens"]:
    """Mask of the tokens that exist and are no sinks, by the norms of raw tokens.

    A sink's norm is above `threshold` times the (lower) median norm of its image's tokens. Such
    tokens hold attention or global content, not their patch (Darcet et al. 2024, Sun et al. 2024).
    Where most tokens are zero every other is a sink; a NaN token is none. Centring changes norms.
    """
    if not norms.shape[-1]:
        return exists
    median = torch.where(exists, norms, torch.nan).nanmedian(-1, keepdim=True).values
    return exists & ~(norms > threshold * median)


def _values(norms: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Norms in float64 with 0 where there is no token (or no finite norm), and where one is."""
    exists = torch.ones_like(norms, dtype=torch.bool) if mask is None else mask
    usable = exists & norms.isfinite()
    return torch.where(usable, norms.double(), 0.0), exists


def _of_largest(values: Tensor) -> Tensor:
    """Norms as fractions of the largest, so that squares of tiny ones do not underflow."""
    if not values.shape[-1]:
        return values
    return values / values.amax(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)


def _estimable(value: Tensor, norms: Tensor, mask: Tensor | None, defined: Tensor) -> Tensor:
    bad = ~norms.isfinite() if mask is None else ~norms.isfinite() & mask
    return torch.where(defined & ~bad.any(-1), value, torch.nan)
