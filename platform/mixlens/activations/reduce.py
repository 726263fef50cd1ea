"""Reduce hidden states to numbers: position sums in the first pass, metrics in the second."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mixlens.activations.streams import Place, visit
from mixlens.metrics import (
    directions,
    energy_entropy,
    gini,
    mean_cosine,
    subspace_alignment,
    token_norms,
)
from mixlens.metrics.redundancy import similarity_across, similarity_within
from mixlens.metrics.spectrum import (
    decompose,
    effective_rank_of,
    participation_ratio_of,
    stable_rank_of,
)
from mixlens.models import Vllm
from mixlens.models.adapter import Image

SUBSPACE = 5  # dimension of the subspaces that are compared

# Not metrics of an image by themselves: what the Redundancy Score is pooled from.
WITHIN, ACROSS = "similarity_within", "similarity_across"

Values = dict[tuple[str, int, str], NDArray[np.float64]]
Subspaces = dict[Place, Float[Tensor, "images width k"]]


@dataclass(frozen=True)
class PositionSums:
    """Sums of tokens over images at each token position, which merge in any order.

    Attributes:
        total: float64 [tokens, width].
        count: images that have a token there, [tokens].
    """

    total: NDArray[np.float64]
    count: NDArray[np.int64]

    def __add__(self, other: "PositionSums") -> "PositionSums":
        tokens = max(len(self.count), len(other.count))
        first, second = self._grown(tokens), other._grown(tokens)
        return PositionSums(first.total + second.total, first.count + second.count)

    def mean(self) -> Float[Tensor, "tokens width"]:
        """Mean at each position; NaN where no image has a token."""
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(self.total / self.count[:, None])

    def _grown(self, tokens: int) -> "PositionSums":
        more = tokens - len(self.count)
        return PositionSums(np.pad(self.total, ((0, more), (0, 0))), np.pad(self.count, (0, more)))


def position_sums(vllm: Vllm, images: Sequence[Image]) -> dict[Place, PositionSums]:
    """First pass: sums over these images of the tokens at each position, every stream and layer.

    A token with a NaN or infinity is left out, so that it spoils only its own image.
    """
    sums: dict[Place, PositionSums] = {}

    def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
        wide = tokens.double()
        good = exists & wide.isfinite().all(-1)
        total = torch.where(good[..., None], wide, 0.0).sum(0)
        sums[place] = PositionSums(total.cpu().numpy(), good.sum(0).cpu().numpy())

    visit(vllm, images, take)
    return sums


def image_values(
    vllm: Vllm,
    images: Sequence[Image],
    means: Mapping[Place, PositionSums],
    own: int,
    base: Subspaces | None = None,
) -> tuple[Values, Subspaces]:
    """Second pass: metrics of each image, every stream and layer.

    All metrics are of the tokens as they are, but the two similarities, which are of tokens less
    their position's mean, at unit length. Similarity across is that of an image and the next.

    Args:
        vllm: the model.
        images: `own` images, and the image that follows them (whose values belong to others).
        means: the sums of all images, from the first pass.
        own: how many of the images are asked for.
        base: the subspaces of these `own` images in the model before fine-tuning.

    Returns:
        values: (stream, layer, metric) -> float64 [own].
        subspaces: (stream, layer) -> bases of the first `SUBSPACE` right singular vectors.
    """
    values: dict[tuple[str, int, str], Tensor] = {}
    subspaces: Subspaces = {}

    def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
        found, basis = _token_metrics(tokens[:own], exists[:own])
        stream, layer = place
        below = subspaces.get((stream, layer - 1))
        if below is not None and below.shape == basis.shape:
            found["subspace_alignment_previous"] = subspace_alignment(below, basis)
        if base is not None and place in base and base[place].shape == basis.shape:
            before = base[place].to(basis.device)
            found["subspace_alignment_base"] = subspace_alignment(before, basis)
        mean = means[place].mean()[: tokens.shape[1]].to(tokens.device)
        units, present = directions(tokens, exists, mean)
        found[WITHIN] = similarity_within(units[:own], present[:own])
        found[ACROSS] = similarity_across(
            units[:own], present[:own], units[1 : own + 1], present[1 : own + 1]
        )
        subspaces[place] = basis
        for metric, value in found.items():
            values[stream, layer, metric] = value

    visit(vllm, images, take)
    return {key: value.cpu().numpy() for key, value in values.items()}, {
        place: basis.cpu() for place, basis in subspaces.items()
    }


def _token_metrics(
    tokens: Float[Tensor, "images tokens width"], exists: Bool[Tensor, "images tokens"]
) -> tuple[dict[str, Tensor], Float[Tensor, "images width k"]]:
    """Metrics that need one image's tokens only, and the basis of their top subspace."""
    norms = token_norms(tokens)
    spectrum = decompose(tokens, SUBSPACE, exists)
    singular = spectrum.eigenvalues.sqrt()
    found = {
        "gini": gini(norms, exists),
        "energy_entropy": energy_entropy(norms, exists),
        "participation_ratio": participation_ratio_of(spectrum.gram),
        "stable_rank": stable_rank_of(spectrum.eigenvalues),
        "effective_rank": effective_rank_of(spectrum.eigenvalues),
        "mean_cosine": mean_cosine(tokens, exists),
    }
    if singular.shape[-1] > SUBSPACE:
        # Small gaps make the subspace, and so every alignment with it, ill posed.
        found["subspace_gap"] = 1 - singular[..., SUBSPACE] / singular[..., SUBSPACE - 1]
    return found, spectrum.basis
