"""Whether images that lie near each other are alike in an attribute."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import NDArray

from mixlens.statistics.intervals import CONFIDENCE, unseen

NEIGHBOURS = 10


@dataclass(frozen=True)
class Agreement:
    """How much more alike neighbours are than any two images.

    Attributes:
        value: 1 where all neighbours are alike, 0 where they are as different as any two images,
            below 0 where they are more different. NaN where it is not estimable.
        low: of its interval over images; NaN where it is not estimable.
        high: see `low`.
        n: images.
        without: [images] the value without each image.
        off: how far below 1 it may lie because no image showed otherwise; 0 where some did.
    """

    value: float
    low: float
    high: float
    n: int
    without: NDArray[np.float64]
    off: float = 0.0


def neighbour_agreement(
    points: Float[np.ndarray, "images width"],
    values: Shaped[np.ndarray, "images"],
    neighbours: int = NEIGHBOURS,
) -> Agreement:
    """1 - (mean difference of an image and its nearest neighbours) / (that of any two images).

    The difference is 0 or 1 for names, and squared for numbers: for these the value is 1 minus
    Geary's contiguity ratio (Geary 1954, "The contiguity ratio and statistical mapping") on the
    graph of neighbours, for names it is the purity of neighbourhoods corrected for chance.
    Neighbours are by Euclidean distance. Its interval is the jackknife's over images, in which the
    neighbours of the other images change too: with 40 to 160 images it held the true value in 96
    to 100 % of simulated samples, where a bootstrap that keeps the neighbours held it in 63 to
    93 %. Where all neighbours are alike no image moves it: the rule of `intervals` says how many of
    the images may have one that differs, and by no more than any two differ.

    Args:
        points: finite; at least `neighbours` + 3 of them, else nothing is estimable.
        values: a name or a number each; nothing is estimable where all are the same.
        neighbours: how many of each image.
    """
    from scipy.stats import t
    from sklearn.neighbors import NearestNeighbors

    n, k = len(points), neighbours
    if n < k + 3 or (values == values[0]).all() or (points == points[0]).all():
        return Agreement(np.nan, np.nan, np.nan, n, np.full(n, np.nan))
    if values.dtype.kind in "biuf":
        wide = values.astype(float)
        apart = (wide[:, None] - wide) ** 2
    else:
        apart = (values[:, None] != values).astype(float)

    search = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(points)
    near = search.kneighbors(return_distance=False)  # one more, which moves up for a lost one
    differences = np.take_along_axis(apart, near, axis=1)
    of_image, all_pairs = differences[:, :k].sum(1), apart.sum(1)
    value = 1 - (of_image.sum() / (n * k)) / (all_pairs.sum() / (n * (n - 1)))

    moved = np.zeros(n)
    np.add.at(moved, near[:, :k], differences[:, k:] - differences[:, :k])
    inner = (of_image.sum() - of_image + moved) / ((n - 1) * k)
    outer = (all_pairs.sum() - 2 * all_pairs) / ((n - 1) * (n - 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        without = 1 - inner / outer  # NaN where one image alone differs from all others
    off = 0.0
    if not of_image.any():
        off = float(unseen(np.array(n)) * apart.max() / (all_pairs.sum() / (n * (n - 1))))
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * _error(without)
    low, high = float(value - np.hypot(half, off)), min(1.0, float(value + half))
    return Agreement(float(value), low, high, n, without, off)


def agreement_gain(before: Agreement, after: Agreement) -> tuple[float, float, float]:
    """`after` less `before`, low and high, of the same images in the same order (paired)."""
    from scipy.stats import t

    assert before.n == after.n, "not the same images"
    gain = after.value - before.value
    half = float(t.ppf((1 + CONFIDENCE) / 2, before.n - 1)) * _error(after.without - before.without)
    return gain, gain - float(np.hypot(half, after.off)), gain + float(np.hypot(half, before.off))


def _error(without: NDArray[np.float64]) -> float:
    """Jackknife standard error, from the value without each image."""
    n = len(without)
    return float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))
