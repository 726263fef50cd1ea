"""Intervals against simulation, scipy and closed forms."""

import numpy as np
import pytest
from scipy import stats

from mixlens.statistics.intervals import (
    Sums,
    combine_seeds,
    image_intervals,
    image_weights,
)

RANDOM = np.random.default_rng(0)


def _covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    return float(((low <= truth) & (truth <= high)).mean())


def test_mean_and_replicates_are_those_of_the_resampled_questions() -> None:
    questions = [RANDOM.random(count) for count in (3, 1, 4, 2)]
    sums = Sums(
        np.array([[q.sum()] for q in questions]), np.array([[float(len(q))] for q in questions])
    )
    assert sums.mean()[0] == pytest.approx(np.concatenate(questions).mean())
    taken = [2, 2, 0, 3]
    weights = np.bincount(taken, minlength=4)[None].astype(float)
    expected = np.concatenate([questions[image] for image in taken]).mean()
    assert sums.replicates(weights)[0, 0] == pytest.approx(expected)
    without_second = np.concatenate([questions[image] for image in (0, 2, 3)]).mean()
    assert sums.leave_one_out()[1, 0] == pytest.approx(without_second)


def test_bca_agrees_with_scipy() -> None:
    values = np.random.default_rng(2).exponential(size=30)  # skewed: percentile is 4 % off
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=40000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    sums = Sums.of(values[:, None])
    mean, low, high = image_intervals(sums, image_weights(30, 40000))
    width = expected.high - expected.low
    assert mean[0] == pytest.approx(values.mean())
    assert low[0] == pytest.approx(expected.low, abs=0.015 * width)
    assert high[0] == pytest.approx(expected.high, abs=0.015 * width)


def test_clusters_are_covered_as_often_as_promised() -> None:
    # 1500 data sets as columns: 80 images, 4 questions each that share the image's difficulty.
    images, questions, sets = 80, 4, 1500
    right = RANDOM.beta(2, 2, size=(images, sets))
    hits = RANDOM.binomial(questions, right).astype(float)
    weights = image_weights(images, 1000)
    _, low, high = image_intervals(Sums(hits, np.full_like(hits, questions)), weights)
    assert 0.925 <= _covered(low, high, 0.5) <= 0.975
    # As if all questions were independent: the interval that must not be given.
    share = hits.sum(axis=0) / (images * questions)
    error = 1.96 * np.sqrt(share * (1 - share) / (images * questions))
    assert _covered(share - error, share + error, 0.5) < 0.9


def _sweep_of(seed_noise: float, sets: int, images: int = 60, seeds: int = 2):
    """Five ratios with a known effect of 0.3 from the lowest to the highest: values and draws."""
    difficulty = RANDOM.normal(0, 1.0, (1, images, sets))
    level = np.repeat(np.arange(5), seeds)
    effect = 0.3 * level / 4
    values = (
        effect[:, None, None]
        + difficulty
        + RANDOM.normal(0, seed_noise, (len(level), 1, sets))
        + RANDOM.normal(0, 0.3, (len(level), images, sets))
    )
    weights = image_weights(images, 800)
    sums = [Sums.of(run) for run in values]
    means = np.stack([run.mean() for run in sums])
    draws = np.stack([run.replicates(weights) for run in sums], axis=1)
    return means, draws, level


ENDS = (-1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("seed_noise", [0.0, 0.1])
def test_effects_are_covered_with_two_seeds(seed_noise: float) -> None:
    means, draws, level = _sweep_of(seed_noise, sets=400)
    combined = combine_seeds(means, draws, level, [False] * 5)
    assert combined.freedom == 5
    assert combined.covers == "images and seeds"
    _, low, high = combined.contrast(ENDS)
    # Image-specific seed noise is counted twice, so the interval may be too wide, never too narrow.
    assert _covered(low, high, 0.3) >= 0.92
    low, high = combined.interval()
    assert _covered(low[0], high[0], 0.0) >= 0.92
    if seed_noise:
        _, low, high = combined.contrast(ENDS)
        assert _covered(low, high, 0.3) <= 0.985
        # What images alone would claim:
        single = combine_seeds(means[::2], draws[:, ::2], level[::2], [False] * 5)
        _, low, high = single.contrast(ENDS)
        assert single.covers == "images"
        assert _covered(low, high, 0.3) < 0.8


def test_pairing_by_image_narrows_a_difference() -> None:
    means, draws, level = _sweep_of(0.0, sets=20)
    paired = combine_seeds(means[::2], draws[:, ::2], level[::2], [False] * 5)
    _, low, high = paired.contrast(ENDS)
    shuffled = draws[:, ::2].copy()
    shuffled[:, -1] = RANDOM.permutation(shuffled[:, -1], axis=0)
    unpaired = combine_seeds(means[::2], shuffled, level[::2], [False] * 5)
    _, wide_low, wide_high = unpaired.contrast(ENDS)
    # Image difficulty has variance 1, what is specific to a run 0.09: a factor of about 3.5.
    assert np.median((wide_high - wide_low) / (high - low)) > 2.5


def test_seed_error_is_students_t() -> None:
    # No image noise at all: the interval must be the textbook one for two means of two.
    values = np.array([[0.1], [0.3], [0.6], [0.9]])
    draws = np.repeat(values[None], 200_000, axis=0)
    levels = combine_seeds(values, draws, [0, 0, 1, 1], [False, False])
    value, low, high = levels.contrast((-1.0, 1.0))
    pooled = np.sqrt((0.1**2 * 2 + 0.15**2 * 2) / 2)
    reach = stats.t.ppf(0.975, 2) * pooled * np.sqrt(1 / 2 + 1 / 2)
    assert value[0] == pytest.approx(0.55)
    assert high[0] - low[0] == pytest.approx(2 * reach, rel=0.02)


def test_a_fixed_level_has_no_seed_error() -> None:
    values = np.array([[0.5], [0.1], [0.3]])
    draws = np.repeat(values[None], 500, axis=0)
    low, high = combine_seeds(values, draws, [0, 1, 1], [True, False]).interval()
    assert low[0] == high[0] == 0.5
    assert high[1] > low[1]


def test_all_right_is_not_certain() -> None:
    ones = Sums.of(np.ones((30, 1)))
    mean, low, high = image_intervals(ones, image_weights(30, 200), bounded=True)
    exact = stats.binomtest(30, 30).proportion_ci(method="exact")
    assert (mean[0], high[0]) == (1.0, 1.0)
    assert low[0] == pytest.approx(exact.low)
    zeros = Sums.of(np.zeros((30, 1)))
    _, low, high = image_intervals(zeros, image_weights(30, 200), bounded=True)
    assert (low[0], high[0]) == (0.0, pytest.approx(1 - exact.low))


def test_degenerate_columns_have_defined_answers() -> None:
    values = np.full((20, 4), np.nan)
    values[:, 0] = 3.5  # constant
    values[4, 1] = 2.0  # one image only
    values[:2, 2] = 1.0, 2.0  # two images: most resamples of 20 hold neither or one
    mean, low, high = image_intervals(Sums.of(values), image_weights(20, 500))
    assert (mean[0], low[0], high[0]) == (3.5, 3.5, 3.5)
    assert mean[1] == 2.0
    assert np.isnan([low[1], high[1]]).all()
    assert 1.0 <= low[2] <= 1.5 <= high[2] <= 2.0
    assert np.isnan([mean[3], low[3], high[3]]).all()


def test_draws_depend_on_their_seed_alone() -> None:
    assert (image_weights(50) == image_weights(50)).all()
    assert (image_weights(50, seed=1) != image_weights(50)).any()
    assert (image_weights(50).sum(axis=1) == 50).all()
