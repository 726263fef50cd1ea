"""Reduce hidden states to numbers: position sums in the first pass, metrics in the second."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from mixlens.activations.streams import Place, visit
from mixlens.activations.token_metrics import token_metrics
from mixlens.metrics import directions, subspace_alignment
from mixlens.metrics.redundancy import Redundancy, pool, similarity_across, similarity_within
from mixlens.models import VLM
from mixlens.models.adapter import Image

# Not metrics of an image by themselves: what the Redundancy Score is pooled from.
WITHIN, ACROSS = "similarity_within", "similarity_across"

# How many numbers of a layer are widened to float64 at once. On the CPU the copies should fit the
# cache and stay below the size at which the allocator fetches fresh pages for each.
AT_ONCE = 1 << 28
AT_ONCE_ON_CPU = 1 << 21

Values = dict[tuple[str, int, str], NDArray[np.float64]]
Subspaces = dict[Place, Float[Tensor, "images width k"]]


@dataclass(frozen=True)
class PositionSums:
    """Sums of tokens over images at each token position, which merge in any order.

    Attributes:
        total: float64 [tokens, width].
        count: images whose token there is a number, [tokens].
        there: images that have a token there, [tokens].
    """

    total: NDArray[np.float64]
    count: NDArray[np.int64]
    there: NDArray[np.int64]

    def __add__(self, other: "PositionSums") -> "PositionSums":
        tokens = max(len(self.count), len(other.count))
        first, second = self._grown(tokens), other._grown(tokens)
        return PositionSums(
            first.total + second.total, first.count + second.count, first.there + second.there
        )

    def mean(self) -> Float[Tensor, "tokens width"]:
        """Mean at each position; NaN where no image has a token.

        Where some images have a position that others lack, their grids differ, and a position means
        another place in each. Then it is the mean over all positions.
        """
        total, count = self.total, self.count
        if bool(((self.there > 0) & (self.there < self.there.max(initial=0))).any()):
            total = np.broadcast_to(total.sum(0), total.shape)
            count = np.broadcast_to(count.sum(), count.shape)
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(total / count[:, None])

    def _grown(self, tokens: int) -> "PositionSums":
        more = (0, tokens - len(self.count))
        return PositionSums(
            np.pad(self.total, (more, (0, 0))), np.pad(self.count, more), np.pad(self.there, more)
        )


def position_sums(vlm: VLM, images: Sequence[Image]) -> dict[Place, PositionSums]:
    """First pass: sums over these images of the tokens at each position, every stream and layer.

    A token with a NaN or infinity is left out, so that it spoils only its own image.
    """
    sums: dict[Place, PositionSums] = {}

    def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
        wide = tokens.double()
        good = exists & wide.isfinite().all(-1)
        total = torch.where(good[..., None], wide, 0.0).sum(0)
        sums[place] = PositionSums(
            *(part.cpu().numpy() for part in (total, good.sum(0), exists.sum(0)))
        )

    visit(vlm, images, take)
    return sums


def image_values(
    vlm: VLM,
    images: Sequence[Image],
    means: Mapping[Place, PositionSums],
    own: int,
    base: Subspaces | None = None,
) -> tuple[Values, Subspaces]:
    """Second pass: metrics of each image, every stream and layer.

    `layer_values` says which. One layer's states are held at a time.

    Args:
        vlm: the model.
        images: `own` images, and the image that follows them (whose values belong to others).
        means: the sums of all images, from the first pass.
        own: how many of the images are asked for.
        base: the subspaces of these `own` images in the model before fine-tuning.

    Returns:
        values: (stream, layer, metric) -> float64 [own].
        subspaces: (stream, layer) -> bases of the first 5 right singular vectors.
    """
    values: dict[tuple[str, int, str], Tensor] = {}
    subspaces: Subspaces = {}

    def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
        stream, layer = place
        sums = means[place]
        with_next = slice(own + 1)
        found, basis = layer_values(
            tokens[with_next], exists[with_next], sums.mean(), len(sums.count)
        )
        below = subspaces.get((stream, layer - 1))
        if below is not None and below.shape == basis.shape:
            found["subspace_alignment_previous"] = subspace_alignment(below, basis)
        if base is not None and place in base and base[place].shape == basis.shape:
            before = base[place].to(basis.device)
            found["subspace_alignment_base"] = subspace_alignment(before, basis)
        subspaces[place] = basis
        for metric, value in found.items():
            values[stream, layer, metric] = value

    visit(vlm, images, take)
    return {key: value.cpu().numpy() for key, value in values.items()}, {
        place: basis.cpu() for place, basis in subspaces.items()
    }


def layer_values(
    tokens: Float[Tensor, "images tokens width"],
    exists: Bool[Tensor, "images tokens"],
    mean: Float[Tensor, "positions width"] | None,
    positions: int,
) -> tuple[dict[str, Float[Tensor, " images-1"]], Float[Tensor, "images-1 width k"]]:
    """The default set of every image but the last, and the basis of their top subspaces.

    The metrics of `token_metrics`, of the tokens as they are, and the two similarities behind the
    redundancy score, of tokens less their position's mean, at unit length. Similarity across is
    that of an image and the next, and the last image is there for it. Images are taken a few at a
    time, so that beside the states there are float64 copies of those few only.

    Args:
        tokens: hidden states of one layer.
        exists: which tokens exist.
        mean: of all images at each position, at least as many as there are tokens; None for zero.
        positions: the most tokens that any image has in this stream, also in other batches.
    """
    own = len(tokens) - 1
    mask = None if bool(exists.all()) else exists
    here = None if mean is None else mean[: tokens.shape[1]].to(tokens.device)
    step = at_once(tokens)
    parts: list[dict[str, Tensor]] = []
    bases, ahead = [], None
    for first in range(0, own, step):
        end = min(first + step, own)
        found, basis = token_metrics(tokens[first:end], _rows(mask, first, end), positions)
        new = first if ahead is None else first + 1
        units, present = directions(tokens[new : end + 1], _rows(mask, new, end + 1), here)
        if ahead is not None:
            units, present = torch.cat([ahead[0], units]), torch.cat([ahead[1], present])
        found[WITHIN] = similarity_within(units[:-1], present[:-1])
        found[ACROSS] = similarity_across(units[:-1], present[:-1], units[1:], present[1:])
        ahead = units[-1:], present[-1:]
        parts.append(found)
        bases.append(basis)
    joined = {metric: torch.cat([part[metric] for part in parts]) for metric in parts[0]}
    return joined, torch.cat(bases)


def at_once(tokens: Float[Tensor, "images tokens width"]) -> int:
    """How many images to widen to float64 together."""
    return max(1, (AT_ONCE_ON_CPU if tokens.is_cpu else AT_ONCE) // max(1, tokens[0].numel()))


def _rows(mask: Tensor | None, first: int, end: int) -> Tensor | None:
    return None if mask is None else mask[first:end]


def ring_score(within: Float[Tensor, " images"], across: Float[Tensor, " images"]) -> Redundancy:
    """The Redundancy Score from `WITHIN` and `ACROSS` of all images in order, the ring closed."""
    ring = torch.arange(len(within), device=within.device)
    return pool(within, torch.ones_like(within), across, ring, ring.roll(-1))
