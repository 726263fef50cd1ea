"""Which images lie between two quantiles of an attribute."""

import numpy as np
from jaxtyping import Bool, Float

from mixlens.errors import SpecError, explain
from mixlens.sources.coco.attributes import NAMES, NUMBERS
from mixlens.sources.coco.index import CocoIndex


def check_stratum(field: str, attribute: str) -> None:
    """Refuse a stratum of what is no number of a photograph; no index has to be read for that.

    Raises:
        SpecError: there is no such attribute, or it is a name.
    """
    if attribute not in NUMBERS:
        problem = "is a name, not a number" if attribute in NAMES else "no such attribute"
        raise SpecError(explain(field, attribute, problem, f"Use {', '.join(NUMBERS)}."))


def in_strata(
    field: str,
    index: CocoIndex,
    attribute: str,
    bounds: tuple[float, float],
    among: Bool[np.ndarray, " images"],
) -> Bool[np.ndarray, " images"]:
    """The images of `among` whose rank in an attribute lies within `bounds`.

    Those of which the attribute is unknown have no rank.

    Args:
        field: where the spec says so, for messages.
        index: of the data set.
        attribute: one that is a number.
        bounds: lower and upper quantile, 0 to 1.
        among: the images that are ranked.

    Raises:
        SpecError: there is no such attribute, it is a name, unknown of all, or the same for all.
    """
    check_stratum(field, attribute)
    values = index.attribute_columns[attribute]
    known = among & np.isfinite(values)
    if among.any() and not known.any():
        problem = "is unknown of every image: none is annotated for all categories"
        remedy = "Leave the stratum out, or name a file that is annotated completely."
        raise SpecError(explain(field, attribute, problem, remedy))
    everywhere = values[np.isfinite(values)]
    if len(everywhere) > 1 and everywhere.min() == everywhere.max() and tuple(bounds) != (0, 1):
        problem = (
            f"is {everywhere[0]:g} in all {len(everywhere):,} images where it is known, so that no "
            f"part of them is more or less{_of_regions(index)}"
        )
        raise SpecError(explain(field, attribute, problem, "Use another attribute, or [0, 1]."))
    inside = np.zeros(len(among), bool)
    inside[known] = between(values[known], *bounds)
    return inside


def _of_regions(index: CocoIndex) -> str:
    counts = index.record["counts"]
    if 2 * counts["regions"] <= counts["objects"]:
        return ""
    regions, objects = counts["regions"], counts["objects"]
    return f" ({regions:,} of {objects:,} annotations are regions of many objects, by iscrowd)"


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
