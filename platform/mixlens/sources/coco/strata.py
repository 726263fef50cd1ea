"""Which images lie between two quantiles of an attribute."""

import numpy as np
from jaxtyping import Bool, Float

from mixlens.errors import SpecError, explain
from mixlens.sources.coco.index import CocoIndex


def in_strata(
    field: str,
    index: CocoIndex,
    attribute: str,
    bounds: tuple[float, float],
    among: Bool[np.ndarray, " images"],
) -> Bool[np.ndarray, " images"]:
    """The images of `among` whose rank in an attribute lies within `bounds`.

    Args:
        field: where the spec says so, for messages.
        index: of the data set.
        attribute: one that is a number.
        bounds: lower and upper quantile, 0 to 1.
        among: the images that are ranked.

    Raises:
        SpecError: there is no such attribute, or it is a name.
    """
    columns = index.attribute_columns
    numbers = sorted(name for name, values in columns.items() if values.dtype.kind in "if")
    if attribute not in numbers:
        problem = "is a name, not a number" if attribute in columns else "no such attribute"
        raise SpecError(explain(field, attribute, problem, f"Use {', '.join(numbers)}."))
    inside = np.zeros(len(among), bool)
    inside[among] = between(columns[attribute][among], *bounds)
    return inside


def between(
    values: Float[np.ndarray, " images"], low: float, high: float
) -> Bool[np.ndarray, " images"]:
    """Whether each value's place in the sorted order lies within quantiles low to high.

    A value's place is the middle of those of its equals, over n. Equal values stay together, and
    strata that meet (0 to 0.5, 0.5 to 1) neither share an image nor leave one out.
    """
    ordered = np.sort(values)
    first = np.searchsorted(ordered, values, side="left")
    last = np.searchsorted(ordered, values, side="right")
    place = (first + last) / (2 * max(len(values), 1))
    return (place >= low) & ((place < high) | (high == 1.0))
