"""What a metric gives where there is nothing to find: tokens of chance, and images of strangers.

Shuffling the tokens of an image changes no metric that ignores their order, so it is no null. Null
models (random weights) and null images (blank, noise) belong to callers that hold a model.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gaussian_null(
    tokens: Float[Tensor, "*batch tokens width"],
    mask: Bool[Tensor, "*batch tokens"] | None,
    seed: int | torch.Generator,
) -> tuple[Float[Tensor, "*batch tokens width"], Bool[Tensor, "*batch tokens"] | None]:
    """Standard normal tokens, independent and isotropic, of the same shape, type and mask.

    Expected of N x D: participation ratio (ND + 2)/(N + D + 1), stable rank about
    ND/(√N + √D)², exp S1 about N e^{-N/2D} for N <= D, mean cosine and redundancy score 0.
    """
    source = random_source(seed)
    draw = torch.randn(tokens.shape, generator=source, device=source.device)
    return draw.to(tokens), mask


def pseudo_images(
    tokens: Float[Tensor, "*batch images tokens width"],
    mask: Bool[Tensor, "*batch images tokens"] | None,
    seed: int | torch.Generator,
) -> tuple[
    Float[Tensor, "*batch images tokens width"], Bool[Tensor, "*batch images tokens"] | None
]:
    """Images whose tokens keep their positions and come from different images.

    The same means and anisotropy at every position, but nothing that the tokens of one image share.
    Every token is used once; leading dimensions (layers) share the draw. No two tokens of a pseudo-
    image are of one image where there are as many images as positions; with fewer, images recur as
    evenly as can be, and a single image is its own pseudo-image. Tokens of one image then meet
    across pseudo-images only, which puts the redundancy score of M of them at about -RS / M, not 0.
    """
    source = random_source(seed)
    images, positions = tokens.shape[-3:-1]

    def shuffled() -> Tensor:
        return torch.randperm(images, generator=source, device=source.device)

    order = shuffled()
    shifts = torch.cat([shuffled() for _ in range(max(1, -(-positions // images)))])[:positions]
    turn = torch.arange(images, device=source.device)[:, None] + shifts
    origin = order[turn % images].to(tokens.device)
    place = torch.arange(positions, device=tokens.device)
    moved = tokens[..., origin, place, :]
    return moved, None if mask is None else mask[..., origin, place]


def random_source(seed: int | torch.Generator) -> torch.Generator:
    """A generator as it is; a seed as a generator on the CPU, the same draws for every device."""
    return seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed)
