"""Max-T control of the family-wise error over a whole table of correlations.

Westfall and Young (1993, "Resampling-based multiple testing"), single step: the attributes of
whole images change places, so that metrics keep their dependence on each other and attributes
theirs, and the largest statistic of the table is kept. A row's adjusted p is the share of
permutations whose largest statistic reaches its own. What is tested is that no metric depends on
any attribute (in the partial table: on what the held attributes leave of it).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixlens.analysis.ranks import NOTHING_LEFT
from mixlens.statistics.intervals import Array

Order = NDArray[np.int32]

_CELLS = 1_000_000  # numbers that are held at a time


@dataclass(frozen=True)
class Hypotheses:
    """One attribute against several metrics of the same images.

    Attributes:
        images: [n] their places among all images.
        held: [n, rank] orthonormal basis of what is held fixed.
        attribute: [n] standard ranks less their fit to `held`, of unit length.
        metrics: [n, metrics] the same of the metrics, in single precision.
    """

    images: NDArray[np.int64]
    held: Array
    attribute: Array
    metrics: NDArray[np.float32]

    @classmethod
    def of(
        cls, images: NDArray[np.int64], held: Array, attribute: Array, metrics: Array
    ) -> "Hypotheses":
        """From standard ranks ([n, held], [n], [n, metrics]); `held` may depend on each other."""
        basis, size, _ = np.linalg.svd(held, full_matrices=False)
        basis = basis[:, size**2 > 1e-10]
        residual = _residual(np.column_stack([attribute, metrics]), basis)
        return cls(images, basis, residual[:, 0], residual[:, 1:].astype(np.float32))

    @property
    def scale(self) -> float:
        """What gives a correlation variance 1 under permutation, whatever n and what is held."""
        return float(np.sqrt(len(self.images) - 1 - self.held.shape[1]))

    def largest(self, shuffled: Order) -> Array:
        """[permutations] the largest |correlation| * scale under permutations of its images.

        With attributes held fixed, residuals change places and are fitted again (Freedman and Lane
        1983), which is exact in the limit of many images.

        Args:
            shuffled: [permutations, n] places among these n images.
        """
        moved = self.attribute[shuffled]
        left = 1.0 - ((moved @ self.held) ** 2).sum(axis=1)
        products = moved.astype(np.float32) @ self.metrics
        most = np.abs(products, out=products).max(axis=1)
        return np.asarray(self.scale * most / np.sqrt(np.maximum(left, NOTHING_LEFT)))


def largest_of_all(tests: Sequence[Hypotheses], images: int, permutations: int, seed: int) -> Array:
    """[permutations] the largest statistic of all tests, which see the same permutations.

    Tests that lack images follow each permutation on to the first image that they have: a uniform
    permutation of their own images that agrees with the shared one where it can.

    Args:
        tests: at least one.
        images: how many there are in all.
        permutations: how many to draw.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    size = max(1, _CELLS // max(images, *(some.metrics.shape[1] for some in tests)))
    alike: dict[bytes, list[Hypotheses]] = {}
    for some in tests:
        alike.setdefault(some.images.tobytes(), []).append(some)
    parts = []
    for first in range(0, permutations, size):
        block = min(size, permutations - first)
        shuffled = np.tile(np.arange(images, dtype=np.int32), (block, 1))
        generator.permuted(shuffled, axis=1, out=shuffled)
        top = np.zeros(block)
        for those in alike.values():
            own = restrict(shuffled, those[0].images)
            top = np.max([top, *(some.largest(own) for some in those)], axis=0)
        parts.append(top)
    return np.concatenate(parts)


def adjusted_p(statistic: Array, largest: Array) -> Array:
    """(1 + permutations whose largest statistic reaches it) / (1 + permutations); NaN stays."""
    # Products in single precision: what is equal up to rounding counts as reached.
    below = np.searchsorted(np.sort(largest), statistic * (1.0 - 1e-5), side="left")
    adjusted = (1.0 + len(largest) - below) / (1.0 + len(largest))
    return np.where(np.isnan(statistic), np.nan, adjusted)


def restrict(shuffled: Order, images: NDArray[np.int64]) -> Order:
    """[permutations, n] each permutation of all images, cut to some; see `largest_of_all`."""
    if len(images) == shuffled.shape[1]:
        return shuffled
    place = np.full(shuffled.shape[1], -1, dtype=np.int32)
    place[images] = np.arange(len(images), dtype=np.int32)
    target = shuffled[:, images]
    row, column = np.nonzero(place[target] < 0)
    while len(row):
        target[row, column] = followed = shuffled[row, target[row, column]]
        outside = place[followed] < 0
        row, column = row[outside], column[outside]
    return place[target]


def _residual(ranks: Array, basis: Array) -> Array:
    left = ranks - basis @ (basis.T @ ranks)
    squares = (left**2).sum(axis=0)
    return np.where(squares > NOTHING_LEFT, left / np.sqrt(np.maximum(squares, NOTHING_LEFT)), 0.0)
