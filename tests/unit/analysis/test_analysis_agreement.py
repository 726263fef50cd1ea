"""Agreement of neighbours against other implementations, direct deletion and planted answers."""

import numpy as np
import pytest
from scipy import stats
from sklearn.neighbors import KNeighborsClassifier

from mixlens.analysis.agreement import agreement_gain, neighbour_agreement

COLOURS = np.array(["red", "green", "blue", "grey", "black"])


def names(n, spread, seed):
    """Clusters of five names, `spread` deviations apart."""
    random = np.random.default_rng(seed)
    kind = random.integers(0, 5, n)
    return np.eye(5, 16)[kind] * spread + random.normal(size=(n, 16)), COLOURS[kind]


def numbers(n, slope, seed):
    random = np.random.default_rng(seed)
    count = random.integers(1, 11, n)
    points = random.normal(size=(n, 16))
    points[:, 0] += slope * count / 3
    return points, count


def direct(points, values, k):
    """By loops, from the definition."""
    n = len(points)
    difference = (lambda a, b: float(a != b)) if values.dtype.kind == "U" else (
        lambda a, b: float(a - b) ** 2
    )  # fmt: skip
    near, every = [], []
    for i in range(n):
        others = [j for j in range(n) if j != i]
        others.sort(key=lambda j: np.linalg.norm(points[i] - points[j]))
        near += [difference(values[i], values[j]) for j in others[:k]]
        every += [difference(values[i], values[j]) for j in others]
    return 1 - np.mean(near) / np.mean(every)


@pytest.mark.parametrize("kind", [names, numbers])
@pytest.mark.parametrize("k", [1, 4])
def test_it_is_its_definition(kind, k):
    points, values = kind(25, 1.5, 1)
    found = neighbour_agreement(points, values, k)
    assert found.value == pytest.approx(direct(points, values, k), abs=1e-12)
    assert found.n == 25
    for image in range(25):
        rest = np.arange(25) != image
        expected = direct(points[rest], values[rest], k)
        assert found.without[image] == pytest.approx(expected, abs=1e-12)
    pseudo = 25 * found.value - 24 * found.without
    error = stats.sem(pseudo)
    half = stats.t.ppf(0.975, 24) * error
    assert found.low == pytest.approx(found.value - half, rel=1e-9)
    assert found.high == pytest.approx(min(1, found.value + half), rel=1e-9)


def test_names_with_one_neighbour_agree_as_often_as_it_predicts():
    points, values = names(120, 2, 3)
    search = KNeighborsClassifier(1).fit(points, values)
    near = search.kneighbors(return_distance=False)[:, 0]  # of the others
    accuracy = (values[near] == values).mean()
    share = np.unique(values, return_counts=True)[1]
    chance = (share * (share - 1)).sum() / (120 * 119)
    expected = (accuracy - chance) / (1 - chance)  # Cohen's correction
    assert neighbour_agreement(points, values, 1).value == pytest.approx(expected, abs=1e-12)


def test_the_best_and_the_worst():
    points, values = names(60, 1000, 4)
    assert neighbour_agreement(points, values, 3).value == 1
    assert neighbour_agreement(points, values, 3).high == 1
    line = np.arange(40.0)[:, None]
    turns = np.array(["a", "b"] * 20)
    assert neighbour_agreement(line, turns, 1).value == pytest.approx(1 - 1 / (20 / 39))


def test_nothing_depends_on_scale_rotation_or_order():
    points, values = numbers(60, 1, 5)
    one = neighbour_agreement(points, values)
    turn = stats.ortho_group.rvs(16, random_state=0)
    order = np.random.default_rng(0).permutation(60)
    for other in (
        neighbour_agreement(points * 1e4, values),
        neighbour_agreement(points @ turn + 3, values),
        neighbour_agreement(points, values * -7.0 + 2),
        neighbour_agreement(points[order], values[order]),
    ):
        np.testing.assert_allclose(
            (other.value, other.low, other.high), (one.value, one.low, one.high), atol=1e-9
        )


@pytest.mark.parametrize(("kind", "strength"), [(names, 0), (names, 1.5), (numbers, 1.5)])
def test_intervals_hold_the_true_value(kind, strength):
    found = [neighbour_agreement(*kind(80, strength, 9000 + seed)) for seed in range(300)]
    truth = np.mean([one.value for one in found])
    if strength == 0:
        assert abs(truth) < 0.01
    held = np.mean([one.low <= truth <= one.high for one in found])
    assert held > 0.92  # 0.95 but for the chance of 300 draws
    spread = np.std([one.value for one in found])
    width = np.mean([one.high - one.low for one in found])
    assert width < 8.5 * spread  # 3.92 if it were exact: wide on the safe side, not beyond use


def test_a_gain_is_paired():
    points, values = numbers(120, 1, 7)
    same = neighbour_agreement(points, values)
    assert agreement_gain(same, same) == (0, 0, 0)
    better = points.copy()
    better[:, 0] += values
    after = neighbour_agreement(better, values)
    gain, low, high = agreement_gain(same, after)
    assert gain == pytest.approx(after.value - same.value)
    assert 0 < low < gain < high
    assert high - low < (after.high - after.low) + (same.high - same.low)


def test_what_cannot_be_estimated_is_nan():
    points, values = names(20, 1, 8)
    for found in (
        neighbour_agreement(points[:12], values[:12]),
        neighbour_agreement(points, np.full(20, "red")),
        neighbour_agreement(np.ones((20, 16)), values),
    ):
        assert np.isnan([found.value, found.low, found.high]).all()
        assert np.isnan(found.without).all()
    assert np.isfinite(neighbour_agreement(points[:13], values[:13]).low)
    lonely = np.where(np.arange(20) == 5, "red", "blue")
    found = neighbour_agreement(points, lonely)
    assert np.isfinite(found.value)
    assert np.isnan(found.low)  # without the one red image nothing differs
