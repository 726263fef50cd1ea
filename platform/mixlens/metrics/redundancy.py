"""The Redundancy Score (RS): how much more alike an image's tokens are than those of two images.

RS is this project's own definition, not one from the literature or from the study it grew out of:
a chance-corrected mean squared cosine, read like Cohen's kappa. With X̂_i [N_i, D] the directions of
the tokens of image i (position-centred, then unit length: `directions`) and G_i = X̂_i X̂_iᵀ,

    W_i = (‖G_i‖²_F - Σ_n G_nn²) / (N_i (N_i - 1))              squared cosine within image i
    C   = mean over pairs i ≠ j of ‖X̂_i X̂_jᵀ‖²_F / (N_i N_j)    and across images
    RS  = (mean_i W_i - C) / (1 - C);  of one image RS_i = (W_i - C) / (1 - C)

1 for identical tokens, 0 in expectation when an image's tokens are no more alike than those of
different images, -C / (1 - C) for orthogonal ones (negative: they repel each other). 1 / W and
1 / C are debiased participation ratios, within an image and over all of them: C corrects for
anisotropy, the number of tokens and the width at once.

The theory is that of the exact twin RS_m (`redundancy_score_moment`): for tokens that share a
factor, x_n = √ρ z + √(1 - ρ) e_n with z, e_n ~ N(0, Σ), RS_m = ρ² for every Σ, N and D. The mutual
information of two such tokens is -½ ln(1 - RS_m) a dimension (Linfoot 1957).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.metrics.spectrum import self_product

# What centring leaves of a token below this share of its length is rounding, not a direction.
NO_DIRECTION = 1e-5

Centre = Literal["position", "none"]
Pairs = Literal["all", "ring"]


@dataclass(frozen=True)
class Redundancy:
    """A Redundancy Score over images, in float64; NaN with fewer than three images that have one.

    Attributes:
        value: the pooled score, its bias removed by the image jackknife; unclipped, so it can be
            negative.
        low: lower end of its 95 % interval: image jackknife, Student's t with images - 1 degrees.
        high: upper end.
        per_image: RS_i; NaN where an image has fewer than two directions or a NaN. Their mean is
            the pooled score before the bias is removed.
        chance: C. Close to 1 (a mean direction left in) the score is 0/0 and means nothing.
        images: how many images have a score.
        replicates: the pooled score without each image in turn, for intervals of differences.
    """

    value: Float[Tensor, "*batch"]
    low: Float[Tensor, "*batch"]
    high: Float[Tensor, "*batch"]
    per_image: Float[Tensor, "*batch images"]
    chance: Float[Tensor, "*batch"]
    images: Int[Tensor, "*batch"]
    replicates: Float[Tensor, "*batch images"]

    def clipped(self) -> tuple[Tensor, Tensor, Tensor]:
        """Value, low and high as published: clipped at 0. Statistics use the unclipped ones."""
        return self.value.clamp_min(0.0), self.low.clamp_min(0.0), self.high.clamp_min(0.0)

    def clipped_per_image(self) -> Float[Tensor, "*batch images"]:
        """RS_i clipped at 0, for display: their mean is above the pooled score clipped at 0."""
        return self.per_image.clamp_min(0.0)


def redundancy_score(
    tokens: Float[Tensor, "*batch images tokens width"],
    mask: Bool[Tensor, "*batch images tokens"] | None = None,
    centre: Centre = "position",
    pairs: Pairs = "all",
) -> Redundancy:
    """Redundancy Score of a set of images; formula, range and meaning: see the module.

    A token that centring leaves without direction counts as absent. White background makes patches
    equal pixel by pixel, so report the score of the raw patches beside it. Duplicating tokens (as
    a bootstrap over tokens does) raises it: resample images only.

    Args:
        tokens: hidden states, one image a row of the second leading dimension from the right.
        mask: which tokens exist.
        centre: "position" subtracts the mean over images at each token position (grids must agree);
            "none" takes the tokens as they are. Never subtract an image's own mean: it destroys the
            limit of identical tokens.
        pairs: pairs of images behind C: all of them, or only i and i + 1 round a ring. Both are
            unbiased. Cost: a Gram [N, N] an image, and one a pair.
    """
    units, present = directions(tokens, mask, _centre(tokens, mask, centre))
    within = similarity_within(units, present)
    first, second = _pairs(tokens.shape[-3], pairs, tokens.device)
    return pool(within, torch.ones_like(within), *_across(units, present, first, second))


def redundancy_score_moment(
    tokens: Float[Tensor, "*batch images tokens width"],
    mask: Bool[Tensor, "*batch images tokens"] | None = None,
    centre: Centre = "position",
    pairs: Pairs = "all",
) -> Redundancy:
    """RS_m, the exact twin of `redundancy_score`: inner products instead of cosines.

    W and C as there but of raw inner products, and 1 replaced by S = mean over images and tokens of
    G_nn²: (mean_i W_i - C) / (S - C). Equal to ρ² for tokens that share a Gaussian factor (see the
    module), which makes it the reference for tests; tokens of large norm dominate it, so report the
    other. Arguments as there. This project's own definition.
    """
    mean = _centre(tokens, mask, centre)
    wide = tokens.double() - (0.0 if mean is None else mean)
    if mask is None:
        present = torch.ones(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
    else:
        present = mask
    wide = torch.where(present[..., None], wide, 0.0)
    fourth = (wide**2).sum(-1) ** 2
    first, second = _pairs(tokens.shape[-3], pairs, tokens.device)
    return pool(
        similarity_within(wide, present),
        fourth.sum(-1) / present.sum(-1),
        *_across(wide, present, first, second),
    )


def directions(
    tokens: Float[Tensor, "*batch tokens width"],
    mask: Bool[Tensor, "*batch tokens"] | None = None,
    mean: Float[Tensor, "*batch tokens width"] | None = None,
) -> tuple[Float[Tensor, "*batch tokens width"], Bool[Tensor, "*batch tokens"]]:
    """Tokens less `mean`, at unit length; and which of them exist and have a direction.

    Centred and measured in float64, given in float32 unless the tokens are float64: products of
    unit vectors lose nothing that counts there. A token has no direction when centring leaves
    less than `NO_DIRECTION` of its length; it is zero in the answer. NaN stays NaN.
    """
    wide = tokens.double()
    centred = wide if mean is None else wide - mean
    length = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
    floor = NO_DIRECTION * torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    blank = (length == 0) | (length < (0.0 if mean is None else floor))
    kind = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    # Divided by infinity a finite token is zero.
    units = centred.to(kind) / torch.where(blank, torch.inf, length).to(kind)
    if mask is not None:
        blank |= ~mask[..., None]
        units = torch.where(mask[..., None], units, 0.0)
    return units, ~blank[..., 0]


def similarity_within(
    vectors: Float[Tensor, "*batch tokens width"], present: Bool[Tensor, "*batch tokens"]
) -> Float[Tensor, "*batch"]:
    """W: mean squared inner product of two different tokens of an image, NaN below two tokens.

    `vectors` must be zero where not `present`.
    """
    gram = self_product(vectors)
    own = gram.diagonal(dim1=-2, dim2=-1)
    count = present.sum(-1)
    total = (gram**2).sum((-2, -1), dtype=torch.float64) - (own**2).sum(-1, dtype=torch.float64)
    return torch.where(count > 1, total / (count * (count - 1)), torch.nan)


def similarity_across(
    first: Float[Tensor, "*batch tokens width"],
    first_present: Bool[Tensor, "*batch tokens"],
    second: Float[Tensor, "*batch others width"],
    second_present: Bool[Tensor, "*batch others"],
) -> Float[Tensor, "*batch"]:
    """Mean squared inner product of a token of one image with one of another; 0/0 is NaN."""
    total = ((first @ second.mT) ** 2).sum((-2, -1), dtype=torch.float64)
    return total / (first_present.sum(-1) * second_present.sum(-1))


def pool(
    within: Float[Tensor, "*batch images"],
    unit: Float[Tensor, "*batch images"],
    across: Float[Tensor, "*batch pairs"],
    first: Int[Tensor, " pairs"],
    second: Int[Tensor, " pairs"],
) -> Redundancy:
    """The score of all images from W of each image and C of some pairs, with its jackknife.

    Args:
        within: W_i.
        unit: what W_i would be if all tokens of the image were equal: 1 for cosines.
        across: C_ij of the pairs.
        first: i of each pair, below `images`.
        second: j of each pair.
    """
    used = within.isfinite() & unit.isfinite()
    paired = across.isfinite() & used[..., first] & used[..., second]
    within, unit = torch.where(used, within, 0.0), torch.where(used, unit, 0.0)
    across = torch.where(paired, across, 0.0)
    n, edges = used.sum(-1, keepdim=True), paired.sum(-1, keepdim=True)
    sums = within.sum(-1, keepdim=True), unit.sum(-1, keepdim=True), across.sum(-1, keepdim=True)
    own_across, own_edges = torch.zeros_like(within), torch.zeros_like(within)
    for end in (first, second):
        own_across.index_add_(-1, end, across)
        own_edges.index_add_(-1, end, paired.to(own_edges.dtype))

    chance = sums[2] / edges
    score = (sums[0] / n - chance) / (sums[1] / n - chance)
    chance_without = (sums[2] - own_across) / (edges - own_edges)
    without = ((sums[0] - within) / (n - 1) - chance_without) / (
        (sums[1] - unit) / (n - 1) - chance_without
    )
    replicates = torch.where(used, without, torch.nan)
    value, low, high = jackknife(score[..., 0], replicates)
    per_image = torch.where(used, (within - chance) / (sums[1] / n - chance), torch.nan)
    return Redundancy(value, low, high, per_image, chance[..., 0], n[..., 0], replicates)


def jackknife(
    score: Float[Tensor, "*batch"], replicates: Float[Tensor, "*batch images"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Bias-corrected value and 95 % interval from the scores without each image in turn.

    Value n·score - (n - 1)·mean of the replicates; standard error √((n-1)/n Σ(replicate - mean)²);
    Student's t with n - 1 degrees. Replicates that are NaN belong to no image and are left out. The
    error is on the safe side where the score holds pairs (Efron and Stein 1981). NaN below three.
    """
    used = replicates.isfinite()
    n = used.sum(-1)
    known = torch.where(used, replicates, 0.0)
    mean = known.sum(-1) / n
    spread = torch.where(used, (known - mean[..., None]) ** 2, 0.0).sum(-1)
    error = ((n - 1) / n * spread).sqrt()
    value = torch.where(n > 2, n * score - (n - 1) * mean, torch.nan)
    reach = _student_t_975(n - 1) * error
    return value, value - reach, value + reach


def _student_t_975(degrees: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """97.5 % quantile of Student's t by its Cornish-Fisher series: within .03 from 3 degrees on."""
    z = 1.959963984540054
    nu = degrees.double()
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / nu + second / nu**2 + third / nu**3


def position_mean(
    tokens: Float[Tensor, "*batch images tokens width"],
    mask: Bool[Tensor, "*batch images tokens"] | None = None,
) -> Float[Tensor, "*batch 1 tokens width"]:
    """Mean over images at each token position of the finite tokens there, in float64.

    A position without any is NaN.
    """
    wide = tokens.double()
    present = wide.isfinite().all(-1, keepdim=True)
    if mask is not None:
        present &= mask[..., None]
    return torch.where(present, wide, 0.0).sum(-3, keepdim=True) / present.sum(-3, keepdim=True)


def _centre(tokens: Tensor, mask: Tensor | None, centre: Centre) -> Tensor | None:
    return position_mean(tokens, mask) if centre == "position" else None


def _pairs(images: int, pairs: Pairs, device: torch.device) -> tuple[Tensor, Tensor]:
    if pairs == "all":
        first, second = torch.triu_indices(images, images, offset=1, device=device)
        return first, second
    first = torch.arange(images, device=device)
    return first, (first + 1) % images


def _across(
    vectors: Tensor, present: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """C of the pairs, a stretch of pairs at a time so that memory stays that of the tokens."""
    step = max(1, vectors.shape[-3])
    values = [
        similarity_across(
            vectors[..., i, :, :], present[..., i, :], vectors[..., j, :, :], present[..., j, :]
        )
        for i, j in zip(first.split(step), second.split(step), strict=True)
    ]
    return torch.cat(values, -1) if values else vectors.new_zeros(0).double(), first, second
