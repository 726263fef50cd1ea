"""Metrics and attributes of the same images side by side, as matrices."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlens.errors import DataError, explain
from mixlens.statistics.intervals import Array

Places = NDArray[np.int64]

_KEY = ["stream", "layer", "metric"]


def ranked_attributes(attributes: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Names of the attributes that have ranks (numbers), and of those left out (words)."""
    names = [str(name) for name in attributes.columns if name != "example_id"]
    ranked = [name for name in names if pd.api.types.is_numeric_dtype(attributes[name])]
    return ranked, [name for name in names if name not in ranked]


def wide(image_metrics: pd.DataFrame) -> pd.DataFrame:
    """Image metrics with a row an image and a column a (stream, layer, metric).

    Args:
        image_metrics: stream, layer, metric, example_id, value.

    Returns:
        Images sorted by id; columns in their order of appearance; NaN where there is no value.

    Raises:
        DataError: a value is there twice.
    """
    twice = image_metrics.duplicated([*_KEY, "example_id"])
    if twice.any():
        raise DataError(
            explain(
                "image_metrics",
                tuple(image_metrics.loc[twice, [*_KEY, "example_id"]].iloc[0]),
                "this value is there twice",
                "Give the table of one model.",
            )
        )
    order = pd.MultiIndex.from_frame(image_metrics[_KEY].drop_duplicates())
    wide = image_metrics.pivot(index="example_id", columns=_KEY, values="value")
    return wide.reindex(columns=order).astype(float)


def aligned(attributes: pd.DataFrame, images: pd.Index, names: list[str]) -> Array:
    """[images, names] the attributes in the order of `images`; NaN where there is none.

    Raises:
        DataError: an image has no row, or two.
    """
    table = attributes.set_index("example_id")
    twice, missing = table.index[table.index.duplicated()], images.difference(table.index)
    if len(twice) or len(missing):
        raise DataError(
            explain(
                "attributes",
                str(twice[0] if len(twice) else missing[0]),
                "this image is there twice" if len(twice) else "this image is not there",
                "Give one row for each image of image_metrics.",
            )
        )
    return np.asarray(table.loc[images, names].to_numpy(dtype=float, na_value=np.nan))


def patterns(metrics: Array, facts: Array) -> Iterator[tuple[Places, Places, Places]]:
    """Places of the images, metrics and attributes that go together.

    Args:
        metrics: [images, metrics], NaN where missing.
        facts: [images, attributes], NaN where missing.

    Yields:
        Images that have them all, metrics that the same images have, and such attributes. Every
        pair of a metric and an attribute comes once.
    """
    for has_metric, some in _equal_columns(~np.isnan(metrics)):
        for has_fact, columns in _equal_columns(~np.isnan(facts)):
            yield np.flatnonzero(has_metric & has_fact), some, columns


def _equal_columns(there: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], Places]]:
    found, member = np.unique(there, axis=1, return_inverse=True)
    for place in range(found.shape[1]):
        yield found[:, place], np.flatnonzero(member.ravel() == place)
