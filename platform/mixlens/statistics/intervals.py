"""Intervals for means over held-out images, and for what several seeds make of them.

Two sources of noise decide how far a number of a sweep can be trusted: which images were held out,
and which seed the training ran with. Images are resampled as clusters (all questions about an
image stay together), with the same draw for every run, so that whatever is common to two runs
cancels in their difference. Seeds are too few to be resampled: with two of them a bootstrap sees
half of their variance. Their error is drawn from Student's t instead, scaled by the deviation of
the runs from the mean of their own level, pooled over levels: the textbook one-way random-effects
interval, exact for normal seed effects of equal variance. The part of seed noise that is specific
to an image is counted in both draws, so the intervals err towards too wide.

No resampling shows what no image showed. Where all answers are right, where all are wrong, and
where two models answer all alike, draws do not differ, though a few images prove nothing so exact.
One rule holds for means and for their differences (`unseen`, `spread`): of n images that agree, up
to 1 - 0.025^(1/n) of all images may not (Clopper and Pearson 1934), and such errors of the parts of
a sum add up as squares beside what the draws show (Zou and Donner 2008, "Construction of confidence
limits about effect measures"). Two means at their bound so differ by 0 give or take what either may
be off, which is within a fifth what the score intervals of Miettinen and Nurminen (1985) and of
Tango (1998, paired) say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]

CONFIDENCE = 0.95
TAIL = (1.0 - CONFIDENCE) / 2.0
RESAMPLES = 2000


@dataclass(frozen=True)
class Sums:
    """Per image, what a mean is made of: the sum of the values and how many there are.

    Attributes:
        numerator: [images, columns], sum of the values an image has (0 where it has none).
        denominator: [images, columns], number of values an image has.
    """

    numerator: Array
    denominator: Array

    @classmethod
    def of(cls, values: Array) -> "Sums":
        """One value an image, [images, columns]; a NaN is a value the image does not have."""
        there = ~np.isnan(values)
        return cls(np.where(there, values, 0.0), there.astype(float))

    @property
    def images(self) -> NDArray[np.int64]:
        """[columns] images that have a value at all."""
        return np.asarray((self.denominator > 0).sum(axis=0), dtype=np.int64)

    def mean(self) -> Array:
        """[columns] mean over all values; NaN where there is none."""
        return _divide(self.numerator.sum(axis=0), self.denominator.sum(axis=0))

    def replicates(self, weights: Array) -> Array:
        """[resamples, columns] the mean under each row of image weights [resamples, images]."""
        return _divide(weights @ self.numerator, weights @ self.denominator)

    def leave_one_out(self) -> Array:
        """[images, columns] the mean without each image."""
        return _divide(
            self.numerator.sum(axis=0) - self.numerator,
            self.denominator.sum(axis=0) - self.denominator,
        )


@dataclass(frozen=True)
class Unseen:
    """How far means in [0, 1] may be off because all images agree, where no draw shows it.

    Attributes:
        below: [levels, columns] how far each may lie below its value; 0 where draws say it.
        above: [levels, columns] how far above.
        images: [levels, columns] images that have a value.
        bounded: [columns] whether the values lie in [0, 1].
    """

    below: Array
    above: Array
    images: NDArray[np.int64]
    bounded: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        parts: Array,
        images: NDArray[np.int64],
        made_of: Sequence[Sequence[int]],
        bounded: NDArray[np.bool_],
    ) -> "Unseen":
        """Of means of parts, each of which may have all its answers right or wrong.

        Args:
            parts: [levels, parts] mean of each part.
            images: [levels, parts] its images.
            made_of: for each column the parts whose means are averaged into it.
            bounded: [columns] whether the values lie in [0, 1].
        """
        off = unseen(images)
        squares = [np.where(end, off, 0.0) ** 2 for end in (parts >= 1 - 1e-12, parts <= 1e-12)]
        below, above = (
            np.stack([square[:, list(some)].sum(axis=1) for some in made_of], axis=1)
            for square in squares
        )
        counts = np.array([len(some) for some in made_of])
        fewest = np.stack([images[:, list(some)].min(axis=1) for some in made_of], axis=1)
        below, above = (np.where(bounded, np.sqrt(end) / counts, 0.0) for end in (below, above))
        return cls(below, above, fewest, bounded)


@dataclass(frozen=True)
class Levels:
    """Means of several ratios (or of the base), each over its seeds, with draws of their error.

    Attributes:
        values: [levels, columns] the means.
        draws: [resamples, levels, columns] the same under resampling of images and seeds.
        seeds: [levels] runs in each level.
        freedom: degrees of freedom of the pooled seed variance; 0 when no level has two seeds, and
            then the draws hold the choice of images only.
        unseen: what no draw shows; none where no value lies in [0, 1].
    """

    values: Array
    draws: Array
    seeds: NDArray[np.int64]
    freedom: int
    unseen: Unseen | None = None

    @property
    def covers(self) -> str:
        """What the intervals cover, for tables and sentences."""
        return "images and seeds" if self.freedom else "images"

    def interval(self) -> tuple[Array, Array]:
        """[levels, columns] low and high."""
        low, high = percentiles(self.draws)
        if self.unseen is None:
            return low, high
        off = (self.unseen.below, self.unseen.above)
        low, high = spread(self.values, (low, high), off)
        bounded = self.unseen.bounded
        return np.where(bounded, np.maximum(low, 0.0), low), np.where(
            bounded, np.minimum(high, 1.0), high
        )

    def contrast(self, weights: Sequence[float] | Array) -> tuple[Array, Array, Array]:
        """[columns] value, low and high of a weighted sum of the levels."""
        value, draws = self.combined(weights)
        ends = spread(value, percentiles(draws), self.off(weights))
        return value, *self.possible(weights, ends)

    def combined(self, weights: Sequence[float] | Array) -> tuple[Array, Array]:
        """[columns] value and [resamples, columns] draws of a weighted sum of the levels."""
        combine = np.asarray(weights, dtype=float)
        used = combine != 0  # a value that is missing elsewhere does not matter
        draws = np.tensordot(self.draws[:, used], combine[used], axes=(1, 0))
        return combine[used] @ self.values[used], draws

    def off(self, weights: Sequence[float] | Array) -> tuple[Array, Array]:
        """[columns] how far below and above its value a weighted sum may lie, unseen by draws."""
        combine = np.asarray(weights, dtype=float)[:, None]
        below, above = self.off_of(np.flatnonzero(combine[:, 0]))
        down = np.where(combine > 0, below, above) * combine
        up = np.where(combine > 0, above, below) * combine
        return np.sqrt((down**2).sum(axis=0)), np.sqrt((up**2).sum(axis=0))

    def off_of(self, used: NDArray[np.int64]) -> tuple[Array, Array]:
        """[levels, columns] how far below and above each may be off beside the others of `used`.

        At its bound what `unseen` says. Else, if another answers every image alike, half of the
        variance of the difference that no image showed.
        """
        nothing = np.zeros(self.values.shape)
        if self.unseen is None:
            return nothing, nothing
        alike = nothing.copy()
        for place, one in enumerate(used):
            for other in used[place + 1 :]:
                same = np.abs(self.draws[:, one] - self.draws[:, other]).max(axis=0) <= 1e-12
                images = np.minimum(*self.unseen.images[[one, other]])
                share = np.where(same & self.unseen.bounded, unseen(images) / np.sqrt(2.0), 0.0)
                alike[[one, other]] = np.maximum(alike[[one, other]], share)
        own = (self.unseen.below > 0) | (self.unseen.above > 0)
        alike = np.where(own, 0.0, alike)
        return self.unseen.below + alike, self.unseen.above + alike

    def possible(
        self, weights: Sequence[float] | Array, ends: tuple[Array, Array]
    ) -> tuple[Array, Array]:
        """The ends of a weighted sum, cut to what values in [0, 1] can give."""
        if self.unseen is None:
            return ends
        combine = np.asarray(weights, dtype=float)
        least, most = np.minimum(combine, 0.0).sum(), np.maximum(combine, 0.0).sum()
        bounded = self.unseen.bounded
        low, high = ends
        return np.where(bounded, np.maximum(low, least), low), np.where(
            bounded, np.minimum(high, most), high
        )

    def loosened(self, used: NDArray[np.int64], seed: int = 0) -> Array:
        """[resamples, used, columns] draws of some levels with the errors that no image showed.

        Exponential ones, whose 97.5 % quantile is how far a level may be off.
        """
        below, above = (end[used] for end in self.off_of(used))
        random = np.random.default_rng([seed, 2])
        down, up = random.standard_exponential((2, len(self.draws), *below.shape))
        return self.draws[:, used] + (up * above - down * below) / np.log(1.0 / TAIL)


def unseen(images: NDArray[np.int64], confidence: float = CONFIDENCE) -> Array:
    """Largest share of all images that may differ from what each of so many images showed.

    The exact binomial (Clopper-Pearson) end, each image counted once. 1 without images.
    """
    return np.asarray(1.0 - ((1.0 - confidence) / 2.0) ** (1.0 / np.maximum(images, 1)))


def spread(
    value: Array, ends: tuple[Array, Array], off: tuple[Array, Array]
) -> tuple[Array, Array]:
    """Low and high that draws give, with what no draw shows added, as squares."""
    low, high = (np.maximum(side, 0.0) for side in (value - ends[0], ends[1] - value))
    return (
        np.where(off[0] > 0, value - np.hypot(low, off[0]), ends[0]),
        np.where(off[1] > 0, value + np.hypot(high, off[1]), ends[1]),
    )


def image_weights(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """[resamples, images] how often each draw with replacement takes each image.

    The same (images, resamples, seed) gives the same draws: that is what pairs runs.
    """
    generator = np.random.default_rng([seed, images])
    shares = np.full(images, 1.0 / images)
    return generator.multinomial(images, shares, size=resamples).astype(float)


def percentiles(draws: Array, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Low and high over axis 0 of `draws`; NaN draws (an empty resample) are left out."""
    tail = (1.0 - confidence) / 2.0
    shape = draws.shape[1:]
    flat = draws.reshape(len(draws), -1)
    levels = np.tile([[tail], [1.0 - tail]], (1, flat.shape[1]))
    low, high = _quantiles(np.sort(flat, axis=0), levels)
    return low.reshape(shape), high.reshape(shape)


def image_intervals(
    sums: Sums,
    weights: Array,
    confidence: float = CONFIDENCE,
    bounded: bool | NDArray[np.bool_] = False,
) -> tuple[Array, Array, Array]:
    """Mean, low and high of each column by the BCa cluster bootstrap over images.

    BCa (Efron 1987, "Better bootstrap confidence intervals") corrects the percentile interval for
    median bias and for a spread that changes with the value; its acceleration comes from the
    leave-one-image-out means. Fewer than two images give NaN ends, since nothing is known about
    their spread.

    Args:
        sums: what the means are made of.
        weights: draws of `image_weights`.
        confidence: coverage aimed at.
        bounded: [columns] whether the values lie in [0, 1]; see `widen_at_bounds`.
    """
    mean = sums.mean()
    draws = sums.replicates(weights)
    ordered = np.sort(draws, axis=0)
    finite = np.maximum((~np.isnan(ordered)).sum(axis=0), 1)
    # Rounding differs between a draw and the mean; near-equal counts as equal, half below.
    slack = 1e-12 * np.maximum(np.abs(mean), 1.0)
    below = (draws < mean - slack).sum(axis=0)
    equal = (np.abs(draws - mean) <= slack).sum(axis=0)
    share = np.clip((below + 0.5 * equal) / finite, 0.5 / finite, 1.0 - 0.5 / finite)
    bias = special.ndtri(share)

    without = sums.leave_one_out()
    without = np.where(sums.denominator > 0, without, np.nan)
    influence = np.nan_to_num(_nanmean(without) - without)
    spread = (influence**2).sum(axis=0)
    acceleration = _divide((influence**3).sum(axis=0), 6.0 * spread**1.5)
    acceleration = np.nan_to_num(acceleration)

    tail = (1.0 - confidence) / 2.0
    ends = []
    for level in (tail, 1.0 - tail):
        shifted = bias + special.ndtri(level)
        ends.append(special.ndtr(bias + shifted / (1.0 - acceleration * shifted)))
    low, high = _quantiles(ordered, np.stack(ends))

    low, high = (np.where(sums.images < 2, np.nan, end) for end in (low, high))
    low, high = widen_at_bounds(mean, low, high, sums.images, bounded, confidence)
    return mean, low, high


def difference_intervals(first: Sums, second: Sums, weights: Array) -> tuple[Array, Array, Array]:
    """Value, low and high of the mean of `first` less that of `second`, values in [0, 1].

    Paired: both have the same values of the same images. By BCa, and by the rule of this module
    where draws say nothing.
    """
    assert (first.denominator == second.denominator).all(), "both have to have the same values"
    apart = first.numerator - second.numerator
    value, low, high = image_intervals(Sums(apart, first.denominator), weights)
    off = unseen(first.images)
    means = first.mean(), second.mean()
    top, bottom = ([mean >= 1 - 1e-12 for mean in means], [mean <= 1e-12 for mean in means])
    alike = (np.abs(apart) <= 1e-12).all(axis=0) & ~(top[0] | bottom[0])
    below = off * np.sqrt(top[0] * 1.0 + bottom[1] + alike)
    above = off * np.sqrt(bottom[0] * 1.0 + top[1] + alike)
    low, high = spread(value, (low, high), (below, above))
    return value, np.maximum(low, -1.0), np.minimum(high, 1.0)


def widen_at_bounds(
    mean: Array,
    low: Array,
    high: Array,
    images: NDArray[np.int64],
    bounded: bool | NDArray[np.bool_],
    confidence: float = CONFIDENCE,
) -> tuple[Array, Array]:
    """Intervals of values in [0, 1], cut to it, and wide enough where all values are 0 or all 1.

    There no resample differs, though a few images cannot prove an accuracy of exactly 1: the exact
    binomial (Clopper-Pearson) end for that many images stands in, each image counted once.
    """
    off = unseen(images, confidence)
    known = bounded & (images > 0)
    top, bottom = known & (mean >= 1.0 - 1e-12), known & (mean <= 1e-12)
    low = np.where(top, 1.0 - off, np.where(bottom, 0.0, low))
    high = np.where(bottom, off, np.where(top, 1.0, high))
    return np.where(bounded, np.maximum(low, 0.0), low), np.where(
        bounded, np.minimum(high, 1.0), high
    )


def combine_seeds(
    values: Array,
    draws: Array,
    level: Sequence[int],
    fixed: Sequence[bool],
    seed: int = 0,
) -> Levels:
    """Means of each level over its runs, with the error of their seeds added to the draws.

    Args:
        values: [runs, columns] mean of each run over all images.
        draws: [resamples, runs, columns] the same under shared draws of images.
        level: [runs] the level, 0 to levels - 1, that each run is a seed of.
        fixed: [levels] levels without seeds, such as the base model: no seed error is added.
        seed: of the draws of the seed error.
    """
    index = np.asarray(level)
    # Not as a matrix product: a value that one level has not would be missing in all.
    runs_of = [np.flatnonzero(index == one) for one in range(int(index.max()) + 1)]
    runs = np.array([len(some) for some in runs_of])
    means = np.stack([values[some].mean(axis=0) for some in runs_of])
    combined = np.stack([draws[:, some].mean(axis=1) for some in runs_of], axis=1)
    freedom = int((runs - 1).sum())
    if freedom:
        several = runs[index] > 1
        variance = ((values - means[index])[several] ** 2).sum(axis=0) / freedom
        random = np.random.default_rng([seed, 1])
        normal = random.standard_normal((len(draws), len(runs)))
        t = normal * np.sqrt(freedom / random.chisquare(freedom, size=(len(draws), 1)))
        seeded = ~np.asarray(fixed)
        scale = (t / np.sqrt(runs))[:, seeded, None]
        combined[:, seeded] += scale * np.sqrt(variance)
    return Levels(means, combined, runs.astype(np.int64), freedom)


def _divide(numerator: Array, denominator: Array) -> Array:
    out = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator != 0)


def _nanmean(values: Array) -> Array:
    there = ~np.isnan(values)
    return _divide(np.where(there, values, 0.0).sum(axis=0), there.sum(axis=0).astype(float))


def _quantiles(ordered: Array, levels: Array) -> Array:
    """Linear quantiles of columns sorted with NaN last: levels [q, columns] -> [q, columns]."""
    finite = (~np.isnan(ordered)).sum(axis=0)
    position = levels * np.maximum(finite - 1, 0)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, np.maximum(finite - 1, 0))
    columns = np.arange(ordered.shape[1])
    below, above = ordered[lower, columns], ordered[upper, columns]
    return below + (above - below) * (position - lower)
