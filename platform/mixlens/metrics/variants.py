"""What a metric is taken of: raw tokens, or tokens less what is known to dominate them.

Raw tokens need nothing. Everything here gives tokens or masks that every metric takes, so variants
combine by being applied in turn, and each table says which were: sinks are found in raw tokens,
rogue dimensions in what is left, then centring, then unit length, then rarefying.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.metrics.gaussian import existing
from mixlens.metrics.norms import token_norms
from mixlens.metrics.nulls import random_source
from mixlens.metrics.redundancy import directions, position_mean

# Times the median norm of its image's tokens: this project's threshold.
SINK = 3.0
# Times an equal share of a mean cosine of 1: this project's threshold.
ROGUE = 10.0


def position_centred(
    tokens: Float[Tensor, "*batch images tokens width"],
    mask: Bool[Tensor, "*batch images tokens"] | None = None,
) -> Float[Tensor, "*batch images tokens width"]:
    """Tokens less the mean over images at their position, in float64.

    Take out what every image has there (position codes, the mean direction), never an image's own
    mean. Grids must agree over images. With M images of one mean, variances shrink by 1 - 1/M; one
    image leaves zeros. A position without tokens is NaN: keep it masked.
    """
    return tokens.double() - position_mean(tokens, mask)


def unit_normalised(
    tokens: Float[Tensor, "*batch tokens width"], mask: Bool[Tensor, "*batch tokens"] | None = None
) -> tuple[Float[Tensor, "*batch tokens width"], Bool[Tensor, "*batch tokens"]]:
    """Tokens at unit length, in float64, and which exist and have a direction.

    A zero token has none, stays zero and counts as absent; NaN stays NaN. Removes everything that
    norms say.
    """
    return directions(tokens.double(), mask)


def token_energies(
    tokens: Float[Tensor, "*batch tokens width"],
) -> Float[Tensor, "*batch tokens"]:
    """Squared Euclidean norm of every token, in float64: for metrics of energy, not of norm."""
    return token_norms(tokens) ** 2


def without_sinks(
    tokens: Float[Tensor, "*batch tokens width"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
    threshold: float = SINK,
) -> Bool[Tensor, "*batch tokens"]:
    """Mask of the tokens that exist and are no sinks.

    A sink's norm is above `threshold` times the (lower) median norm of its image's tokens. Such
    tokens hold attention or global content, not their patch (Darcet et al. 2024, Sun et al. 2024).
    Where most tokens are zero every other is a sink; a NaN token is none, and still spoils its
    image. Cost ND. Pass raw tokens: centring changes norms.
    """
    return no_sinks(token_norms(tokens), existing(tokens, mask), threshold)


def no_sinks(
    norms: Float[Tensor, "*batch tokens"],
    exists: Bool[Tensor, "*batch tokens"],
    threshold: float = SINK,
) -> Bool[Tensor, "*batch tokens"]:
    """`without_sinks` from the norms of raw tokens."""
    if not norms.shape[-1]:
        return exists
    median = torch.where(exists, norms, torch.nan).nanmedian(-1, keepdim=True).values
    return exists & ~(norms > threshold * median)


def rogue_dimensions(
    tokens: Float[Tensor, "*batch images tokens width"],
    mask: Bool[Tensor, "*batch images tokens"] | None = None,
    threshold: float = ROGUE,
) -> Bool[Tensor, "*batch width"]:
    """Dimensions that alone bring a large part of the mean cosine of all tokens of all images.

    Dimension d brings c_d = ((Σ x̂_d)² - Σ x̂_d²) / (N (N - 1)), Σ_d c_d the mean cosine; it is
    rogue where c_d > `threshold` / D. Tokens with a NaN, without direction or absent are left out;
    fewer than two leave no dimension rogue, and so does centring first. Below `threshold`
    dimensions none can be. Cost ND. Source: Timkey and van Schijndel 2021 for c_d.
    """
    exists = tokens.isfinite().all(-1)
    units, present = directions(tokens.double(), exists if mask is None else exists & mask)
    flat = units.flatten(-3, -2)
    count = present.sum((-2, -1))[..., None]
    brought = (flat.sum(-2) ** 2 - (flat**2).sum(-2)) / (count * (count - 1))
    return brought > threshold / tokens.shape[-1]


def without_rogue_dimensions(
    tokens: Float[Tensor, "*batch images tokens width"],
    mask: Bool[Tensor, "*batch images tokens"] | None = None,
    threshold: float = ROGUE,
) -> Float[Tensor, "*batch images tokens width"]:
    """Tokens with their `rogue_dimensions` set to zero.

    The same as leaving them out, for every metric of norms, inner products or singular values, and
    the shape stays; a null of the same size has the full width.
    """
    rogue = rogue_dimensions(tokens, mask, threshold)
    return torch.where(rogue[..., None, None, :], 0.0, tokens)


def rarefied(
    tokens: Float[Tensor, "*batch tokens width"],
    count: int,
    seed: int | torch.Generator,
    mask: Bool[Tensor, "*batch tokens"] | None = None,
) -> Float[Tensor, "*batch count width"]:
    """`count` of the existing tokens, drawn without replacement, in their order.

    For metrics that depend on the number of tokens, where images differ in it. One seed and mask
    give the same tokens of every layer. An image with fewer tokens becomes NaN: not estimable.
    """
    source = random_source(seed)
    shape = tokens.shape[:-1]
    lot = torch.rand(shape, generator=source, device=source.device).to(tokens.device)
    lot = lot if mask is None else torch.where(mask, lot, torch.inf)
    # An image short of tokens gives all it has; padding keeps the shape.
    short = max(0, count - shape[-1])
    drawn = lot.argsort(-1)[..., :count].sort(-1).values
    chosen = tokens.gather(-2, drawn[..., None].expand(*drawn.shape, tokens.shape[-1]))
    chosen = torch.nn.functional.pad(chosen, (0, 0, 0, short))
    enough = lot.isfinite().sum(-1) >= count
    return torch.where(enough[..., None, None], chosen, torch.nan)
