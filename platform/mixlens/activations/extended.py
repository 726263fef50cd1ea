"""Metrics of one image's tokens that a file asks for by name, beyond the default set."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from mixlens.activations.reduce import Values, at_once
from mixlens.activations.streams import PIXEL_LAYER, Place, visit
from mixlens.metrics import (
    cknna,
    gaussian_mutual_information,
    linear_cka,
    rankme,
    svcca,
    twonn,
)
from mixlens.models import VLM
from mixlens.models.adapter import Image
from mixlens.spec import ExtendedMetric

COMPONENTS = 8  # of each side of a mutual information: an image has tens to hundreds of tokens

OF_TOKENS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"rankme": rankme, "twonn": twonn}
OF_TWO: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cka_previous": partial(linear_cka, debiased=True),
    "cknna_previous": cknna,
    "svcca_previous": svcca,
    "mutual_information": partial(gaussian_mutual_information, components=COMPONENTS),
}


def extended_values(vlm: VLM, images: Sequence[Image], metrics: Sequence[ExtendedMetric]) -> Values:
    """These metrics of each image, in every stream and layer where they mean something.

    No value depends on the other images:

    * `rankme` and `twonn`: of the tokens as they are, in every stream and layer.
    * `cka_previous` (debiased), `cknna_previous` (of ten neighbours), `svcca_previous` (.99 of the
      energy): how alike the tokens are to those of the layer before, over the image's tokens.
    * `mutual_information`: of the visual tokens and the pixels under them, both reduced to
      `COMPONENTS` principal components, in nats: what a linear map could tell of a patch by its
      token, over the image's tokens that stand for a place. Its bias is taken off as that of
      independent tokens, so more of it is left than for images. NaN below 17 tokens.

    Beside the states of one layer those of the layer before are held, where a metric needs them.

    Returns:
        values: (stream, layer, metric) -> float64 [images].
    """
    values: dict[tuple[str, int, str], Tensor] = {}
    before: dict[str, tuple[int, Tensor]] = {}
    under: list[tuple[Tensor, Tensor]] = []
    compared = [metric for metric in metrics if metric.endswith("_previous")]

    def note(place: Place, metric: str, *sides: Tensor) -> None:
        function = OF_TOKENS.get(metric) or OF_TWO[metric]
        *tokens, exists = sides
        step = at_once(tokens[0])
        values[*place, metric] = torch.cat(
            [function(*(side[i : i + step] for side in sides)) for i in range(0, len(exists), step)]
        )

    def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
        stream, layer = place
        for metric in metrics:
            if metric in OF_TOKENS:
                note(place, metric, tokens, exists)
        known, earlier = before.get(stream, (layer, tokens))
        if known == layer - 1:
            for metric in compared:
                note(place, metric, earlier, tokens, exists)
        if compared:
            before[stream] = layer, tokens
        if "mutual_information" in metrics and stream == "pixels":
            assert layer == PIXEL_LAYER
            under.append((tokens, exists))
        if "mutual_information" in metrics and stream == "visual":
            patches, there = under[0]
            most = patches.shape[1]  # of decoders with cross-attention, empty tiles come behind
            own = exists[:, :most] & there
            note(place, "mutual_information", tokens[:, :most], patches, own)

    visit(vlm, images, take)
    return {key: value.cpu().numpy() for key, value in values.items()}
