"""What the metrics give where there is nothing to find, for every stream and layer of a model.

Two nulls of tokens (`mixlens.metrics.nulls` on what each keeps and destroys):

* gaussian: iid normal tokens, as many and as wide. They depend on no model, so each shape is
  measured once.
* pseudo_images: tokens keep their positions and come from different images.

The null models are in `mixlens.models.twin`, the null images in `mixlens.sources.blank`: both are
measured like any model and any images.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.activations.reduce import ACROSS, WITHIN, PositionSums, layer_values, ring_score
from mixlens.activations.streams import STREAMS, Place, visit
from mixlens.metrics import gaussian_null, pseudo_images, subspace_alignment
from mixlens.models import VLM
from mixlens.models.adapter import Image

NULLS = pa.schema(
    [
        ("stream", pa.string()),
        ("layer", pa.int32()),
        ("metric", pa.string()),
        ("null", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
    ]
)

Row = tuple[float, float, float, int]  # value, low, high, n


def null_values(
    vlm: VLM, images: Sequence[Image], means: Mapping[Place, PositionSums], seed: int = 0
) -> pa.Table:
    """Null values of every metric of an image and of the redundancy score, by one forward pass.

    Give one batch of images: at best as many as an image has tokens, because with fewer the tokens
    of a pseudo-image are not all of different images and its values lie between the null and those
    of real images. Intervals (95 %) are Student's t over the null images, of the redundancy score
    the image jackknife.

    Where an answer is NaN there is nothing to measure: text that no image has touched has no
    redundancy score, one image has no interval, fewer than three no redundancy score. The alignment
    of subspaces with those of the base model has a Gaussian null only (that of two independent
    subspaces, 5 / width); "gaussian" stands for both alignments.

    Args:
        vlm: the model.
        images: one batch.
        means: the position sums of all measured images, as for `image_values`.
        seed: of the draws.

    Returns:
        stream, layer, metric, null ("gaussian" or "pseudo_images"), value, low, high, n (null
        images behind the value).
    """
    rows: list[tuple[str, int, str, str, *Row]] = []
    of_shape: dict[tuple[int, ...], dict[str, Row]] = {}
    subspaces: dict[Place, Tensor] = {}

    def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
        stream, layer = place
        sums = means[place]
        shape = (len(sums.count), tokens.shape[-1], *exists.sum(-1).tolist())
        if shape not in of_shape:
            of_shape[shape] = _gaussian(tokens, exists, len(sums.count), seed)
        # A broken token is left out here as it is from the position sums.
        usable = exists & tokens.isfinite().all(-1)
        moved, there = pseudo_images(tokens, usable, seed)
        assert there is not None  # a mask went in
        found, basis = _measured(moved, there, len(sums.count), sums.mean())
        below = subspaces.pop((stream, layer - 1), basis[:0])
        if aligned := below.shape == basis.shape:
            found["subspace_alignment_previous"] = _interval(subspace_alignment(below, basis))
        subspaces[place] = basis
        for null, values in (("gaussian", of_shape[shape]), ("pseudo_images", found)):
            rows.extend(
                (stream, layer, metric, null, *row)
                for metric, row in values.items()
                if aligned or metric != "subspace_alignment_previous"
            )

    visit(vlm, images, take)
    rows.sort(key=lambda row: (STREAMS.index(row[0]), *row[1:4]))
    return pa.Table.from_pylist([dict(zip(NULLS.names, row, strict=True)) for row in rows], NULLS)


def _gaussian(
    tokens: Float[Tensor, "images tokens width"],
    exists: Bool[Tensor, "images tokens"],
    positions: int,
    seed: int,
) -> dict[str, Row]:
    drawn, _ = gaussian_null(tokens, exists, seed)
    found, basis = _measured(drawn, exists, positions, None)
    # Neighbours in the ring share a subspace, yet their alignments are uncorrelated.
    alignment = _interval(subspace_alignment(basis, basis.roll(-1, 0)))
    if len(basis) < 2:
        alignment = (torch.nan, torch.nan, torch.nan, 0)
    found["subspace_alignment_previous"] = found["subspace_alignment_base"] = alignment
    return found


def _measured(
    tokens: Float[Tensor, "images tokens width"],
    exists: Bool[Tensor, "images tokens"],
    positions: int,
    mean: Float[Tensor, "positions width"] | None,
) -> tuple[dict[str, Row], Float[Tensor, "images width k"]]:
    """Every metric of null images, their mean at each position known to be `mean` (None: zero)."""
    ring = torch.arange(len(tokens) + 1, device=tokens.device) % len(tokens)
    values, basis = layer_values(tokens[ring], exists[ring], mean, positions)
    score = ring_score(values.pop(WITHIN), values.pop(ACROSS))
    found = {metric: _interval(value) for metric, value in values.items()}
    ends = (float(score.value), float(score.low), float(score.high))
    found["redundancy_score"] = (*ends, int(score.images))
    return found, basis


def _interval(values: Float[Tensor, " images"]) -> Row:
    """Mean over the images that have a value, with Student's t interval."""
    from scipy import special  # kept from processes that only hand work out

    known = values[values.isfinite()].double().cpu()
    n = len(known)
    if n == 0:
        return torch.nan, torch.nan, torch.nan, 0
    value = float(known.mean())
    if n == 1:
        return value, torch.nan, torch.nan, 1
    reach = float(special.stdtrit(n - 1, 0.975) * known.std() / n**0.5)
    return value, value - reach, value + reach, n
