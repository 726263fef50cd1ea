"""Overlapping against unique information: how often a group of tokens says the same thing."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.errors import DataError, explain
from mixlens.metrics.gaussian import centred, existing, gaussian_mutual_information
from mixlens.metrics.nulls import random_source
from mixlens.metrics.spectrum import decompose


@dataclass(frozen=True)
class Overlap:
    """Information of groups of tokens about a source, in nats and float64.

    Attributes:
        value: R_I; NaN where the tokens of the groups tell nothing (`alone` not above 0).
        joint: mean over groups of what the m tokens tell together, I(S; X_A).
        alone: mean over groups of the sum of what each tells alone, Σ I(S; X_n).
    """

    value: Float[Tensor, "*batch"]
    joint: Float[Tensor, "*batch"]
    alone: Float[Tensor, "*batch"]


def information_overlap(
    tokens: Float[Tensor, "*batch images tokens width"],
    source: Float[Tensor, "*batch images factors"],
    size: int,
    seed: int | torch.Generator,
    mask: Bool[Tensor, "*batch images tokens"] | None = None,
    groups: int = 16,
    components: int = 4,
) -> Overlap:
    """R_I(m) = m/(m - 1) · [1 - I(S; X_A) / Σ_{n in A} I(S; X_n)] for groups A of m positions.

    1 when every token of a group tells the same, 0 when each adds its own, below 0 for synergy
    (together they tell more than the sum). Each I is `gaussian_mutual_information` over images, its
    bias removed. A scalar Gaussian source seen by each token with signal-to-noise ratio γ gives
    m/(m - 1) · [1 - ln(1 + mγ)/(m ln(1 + γ))], which goes to 0 with γ: noisy copies are
    not redundant. Infinite information (no noise at all) has no ratio: NaN. This project's own
    companion to the redundancy score, in the words of the question it asks.

    The ratio is noisy where a token tells little: read `alone` beside it. Needs more than
    m · components + factors images, better 20 times that. Fewer, constant tokens, a constant source
    and NaN give NaN. Groups short of images because of the mask are left out. Unchanged by scale
    and rotation of tokens and by invertible maps of the source. Range of value: at most 1, up to
    estimation error; cost groups (m + 1) times that of gaussian_mutual_information.

    Args:
        tokens: hidden states.
        source: S of each image: labels of its factors, or principal components of its pixels.
        size: m, at least 2.
        seed: seed or generator of the random groups, drawn without replacement within each and
            shared by all batch elements.
        mask: which tokens exist; a group uses the images that have all its tokens.
        groups: how many to average I over, before the ratio.
        components: principal components over images kept of each token.
    """
    positions = tokens.shape[-2]
    if not positions:
        nothing = torch.full(tokens.shape[:-3], torch.nan, dtype=torch.float64)
        return Overlap(*(nothing.to(tokens.device) for _ in range(3)))
    if not 2 <= size <= positions:
        problem = f"a group needs at least 2 of the {positions} tokens"
        raise DataError(explain("size", size, problem, "Take another size."))
    draw = random_source(seed)
    present = existing(tokens, mask)
    joint, alone = [], []
    for _ in range(groups):
        order = torch.randperm(positions, generator=draw, device=draw.device)
        group = order[:size].to(tokens.device)
        used = present[..., group].all(-1)
        parts = [_components(tokens[..., n, :], used, components) for n in group]
        joint.append(_information(torch.cat(parts, -1), source, used))
        alone.append(torch.stack([_information(x, source, used) for x in parts]).sum(0))
    together, apart = torch.stack(joint), torch.stack(alone)
    known = together.isfinite() & apart.isfinite()
    together, apart = (
        torch.where(known, side, 0.0).sum(0) / known.sum(0) for side in (together, apart)
    )
    value = size / (size - 1) * (1 - together / apart)
    return Overlap(torch.where(apart > 0, value, torch.nan), together, apart)


def _components(samples: Tensor, used: Tensor, components: int) -> Tensor:
    """Principal components over the samples, each at unit length."""
    moved = centred(samples, used)
    return decompose(moved.mT, min(components, samples.shape[-1])).basis


def _information(samples: Tensor, source: Tensor, used: Tensor) -> Tensor:
    return gaussian_mutual_information(
        samples, source, used, max(samples.shape[-1], source.shape[-1])
    )
