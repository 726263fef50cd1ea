"""The tables of tokens, put together from what batches of images gave."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import torch

from mixlens.activations.reduce import (
    ACROSS,
    WITHIN,
    PositionSums,
    Values,
    ring_score,
)
from mixlens.activations.streams import STREAMS, Place
from mixlens.errors import DataError, explain

IMAGE_METRICS = pa.schema(
    [
        ("stream", pa.string()),
        ("layer", pa.int32()),
        ("metric", pa.string()),
        ("example_id", pa.string()),
        ("value", pa.float64()),
    ]
)
POOLED_METRICS = pa.schema(
    [
        ("stream", pa.string()),
        ("layer", pa.int32()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
    ]
)


def check_enough(images: int) -> None:
    """Raises DataError for fewer images than a jackknife over pairs needs."""
    if images < 3:
        raise DataError(
            explain("evaluation.examples", images, "too few to measure", "Use at least 3 images.")
        )


def batches(images: int, size: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 of each batch."""
    for first in range(0, images, size):
        yield first, min(first + size, images)


def merge_sums(
    first: dict[Place, PositionSums], second: dict[Place, PositionSums]
) -> dict[Place, PositionSums]:
    """The sums of two sets of images."""
    merged = {**first, **second}
    for place in first.keys() & second.keys():
        merged[place] = first[place] + second[place]
    return merged


def join_values(parts: Sequence[Values]) -> Values:
    """The values of all images from those of consecutive batches."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def tables(example_ids: Sequence[str], values: Values) -> tuple[pa.Table, pa.Table]:
    """The table of single images and the pooled one, from the values of all images in order."""
    image_columns = {key: value for key, value in values.items() if key[2] not in (WITHIN, ACROSS)}
    pooled = []
    for stream, layer in {(key[0], key[1]) for key in values}:
        within = torch.from_numpy(values[stream, layer, WITHIN])
        across = torch.from_numpy(values[stream, layer, ACROSS])
        result = ring_score(within, across)
        image_columns[stream, layer, "redundancy_score"] = result.per_image.numpy()
        n = int(result.images)
        ends = (result.value, result.low, result.high)
        for metric, numbers in (
            ("redundancy_score", ends),
            ("redundancy_score_clipped", result.clipped()),
            ("redundancy_chance", (result.chance, torch.nan, torch.nan)),
        ):
            pooled.append((stream, layer, metric, *(float(number) for number in numbers), n))
    pooled.sort(key=lambda row: (STREAMS.index(row[0]), *row[1:3]))
    return image_table(example_ids, image_columns), pa.Table.from_pylist(
        [dict(zip(POOLED_METRICS.names, row, strict=True)) for row in pooled], POOLED_METRICS
    )


def image_table(example_ids: Sequence[str], values: Values) -> pa.Table:
    """The values of images, a row an image, stream, layer and metric."""
    order = sorted(values, key=lambda key: (STREAMS.index(key[0]), *key[1:]))
    n = len(example_ids)
    columns = [
        [key[0] for key in order for _ in range(n)],
        np.repeat([key[1] for key in order], n),
        [key[2] for key in order for _ in range(n)],
        list(example_ids) * len(order),
        np.concatenate([values[key] for key in order]),
    ]
    return pa.table(
        [pa.array(c, kind) for c, kind in zip(columns, IMAGE_METRICS.types, strict=True)],
        schema=IMAGE_METRICS,
    )
