"""The sufficient ratio against rules that can be worked out by hand, and its error rates."""

import numpy as np
import pandas as pd
import pytest

from mixlens.analysis.answer import sufficiency_sentence
from mixlens.analysis.recommendation import sufficient

RATIOS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])


def _draws(values: np.ndarray, noise: float, seed: int = 0, count: int = 1500) -> np.ndarray:
    return values + np.random.default_rng(seed).normal(0, noise, (count, len(values)))


def test_the_smallest_ratio_within_the_margin_of_the_best() -> None:
    values = np.array([0.50, 0.66, 0.695, 0.71, 0.70])
    found = sufficient(values, _draws(values, 1e-4), RATIOS)
    assert found.at == 0.5
    assert (found.low, found.high) == (0.5, 0.5)
    assert found.probability.tolist() == [0, 0, 1, 0, 0]
    assert found.gap == pytest.approx([-0.21, -0.05, -0.015, 0.0, -0.01])
    assert found.is_distinguishable
    assert sufficient(values, _draws(values, 1e-4), RATIOS, margin=0.06).at == 0.25


def test_exactly_at_the_margin_is_within_it() -> None:
    values = np.array([0.68, 0.70])
    found = sufficient(values, _draws(values, 1e-9), np.array([0.0, 1.0]), margin=0.02)
    assert found.at == 0.0


def test_a_doubtful_choice_has_a_wide_interval() -> None:
    values = np.array([0.50, 0.68, 0.69, 0.70, 0.71])
    found = sufficient(values, _draws(values, 0.02), RATIOS)
    assert found.probability.sum() == pytest.approx(1.0)
    assert found.low == 0.25
    assert found.high >= 0.75
    assert found.probability[0] == 0


def test_ratios_that_do_not_differ_are_rarely_told_apart() -> None:
    random = np.random.default_rng(3)
    told_apart = 0
    for trial in range(400):
        values = random.normal(0.7, 0.01, 5)
        told_apart += sufficient(
            values, _draws(values, 0.01, seed=trial, count=400), RATIOS
        ).is_distinguishable
    assert told_apart / 400 < 0.085  # 5 % is aimed at


def test_the_true_sufficient_ratio_is_mostly_inside_the_interval() -> None:
    truth = np.array([0.50, 0.64, 0.70, 0.70, 0.70])  # 0.5 is the smallest within 0.02
    random = np.random.default_rng(4)
    inside = 0
    for trial in range(400):
        values = truth + random.normal(0, 0.008, 5)
        found = sufficient(values, _draws(values, 0.008, seed=trial, count=400), RATIOS)
        inside += found.low <= 0.5 <= found.high
    assert inside / 400 > 0.93


def test_draws_without_any_complex_question_change_nothing() -> None:
    values = np.linspace(0.5, 0.6, len(RATIOS))
    draws = _draws(values, 0.02)
    with_gaps = np.vstack([np.full((3, len(RATIOS)), np.nan), draws])
    one, other = (sufficient(values, some, RATIOS) for some in (draws, with_gaps))
    assert np.isfinite(other.noise)
    assert (one.noise, one.low, one.high) == (other.noise, other.low, other.high)
    np.testing.assert_array_equal(one.probability, other.probability)


def test_one_ratio_is_its_own_answer() -> None:
    found = sufficient(np.array([0.7]), np.full((50, 1), 0.7), np.array([0.5]))
    assert (found.at, found.low, found.high, found.spread) == (0.5, 0.5, 0.5, 0.0)
    assert not found.is_distinguishable


def _table(values: list[float]) -> pd.DataFrame:
    """A recommendation table whose draws are sharp around these accuracies."""
    array = np.array(values)
    found = sufficient(array, _draws(array, 1e-4), RATIOS)
    return pd.DataFrame(
        {
            "level": [f"ratio={one:g}" for one in RATIOS],
            "at": RATIOS,
            "value": array,
            "simple_change": -0.06,
        }
    ).assign(
        is_sufficient=found.at == RATIOS,
        sufficient_low=found.low,
        sufficient_high=found.high,
        is_distinguishable=found.is_distinguishable,
        spread=found.spread,
        noise=found.noise,
        margin=0.02,
        simple_change_low=-0.09,
        simple_change_high=-0.03,
        covers="images and seeds",
    )


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            [0.5, 0.6, 0.7, 0.71, 0.7],
            "A ratio of 0.5 [0.5, 0.5] is enough: its accuracy on complex tasks (0.700) is within "
            "2 points of the best (0.710 at 0.75), at a cost of −0.060 [−0.090, −0.030] in "
            "accuracy on simple tasks against ratio 0.",
        ),
        (
            [0.5, 0.6, 0.7, 0.6, 0.6],
            "A ratio of 0.5 [0.5, 0.5] does best on complex tasks (accuracy 0.700), and no smaller "
            "one comes within 2 points of it, at a cost of",
        ),
        (
            [0.5, 0.6, 0.7, 0.8, 0.9],
            "Of the ratios tried only the highest, 1 [1, 1], reaches the best accuracy on complex "
            "tasks (0.900) to within 2 points, at a cost of",
        ),
        (
            [0.9, 0.8, 0.7, 0.6, 0.5],
            "The lowest ratio tried, 0 [0, 0], is already enough: with it accuracy on complex "
            "tasks is 0.900; the best is 0.900, at 0.",
        ),
    ],
    ids=["middle", "peak", "highest", "lowest"],
)
def test_every_outcome_has_its_sentence(values: list[float], sentence: str) -> None:
    assert sufficiency_sentence(_table(values), "ratio").startswith(sentence)
