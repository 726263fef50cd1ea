import threading
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixlens.errors import SpecError
from mixlens.mixture.schedule import LONGEST_PERIOD, Schedule, turns, whole_shares


def deviations(weights: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Realised - requested count of each component after each position, [components, positions]."""
    n = np.arange(1, len(component) + 1)
    realised = np.cumsum(component == np.arange(len(weights))[:, None], axis=1)
    return realised - weights[:, None] * n


def named(weights: list[float]) -> dict[str, float]:
    return {f"c{number:02d}": weight for number, weight in enumerate(weights)}


raw = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-3, 1.0), st.sampled_from([1e-3, 1 / 3, 0.5, 1.0])),
    min_size=1,
    max_size=25,
).filter(lambda weights: sum(weights) > 0)


@settings(max_examples=60, deadline=None)
@given(raw)
def test_every_prefix_has_the_requested_ratios_within_one_example(raw_weights):
    weights = np.array(raw_weights) / sum(raw_weights)
    shares = whole_shares(named(list(weights)))
    component, _ = Schedule(tuple(shares.values())).at(np.arange(3000))
    present = np.count_nonzero(weights)
    bound = 1 - 1 / (2 * present - 2) if present > 1 else 0.0
    # 3000 positions of weights that are met to half a millionth
    assert np.abs(deviations(weights, component)).max() <= bound + 2e-3
    assert not set(component) & set(np.flatnonzero(weights == 0))


@pytest.mark.parametrize(
    "weights",
    [
        [0.5, 0.5],
        [1 / 3, 2 / 3],
        [1 / 3, 1 / 3, 1 / 3],
        [1e-4, 1 - 1e-4],
        [0.1, 0.2, 0.3, 0.4],
        [0.999, 0.0005, 0.0005],
        [0.0, 1.0],
        [1 / 7] * 7,
        [1e-4, 1e-4, 0.2, 0.3, 0.4998],
        [0.123456, 0.876544],
    ],
)
def test_usual_weights_are_met_exactly_for_hundreds_of_thousands_of_positions(weights):
    shares = whole_shares(named(weights))
    period = sum(shares.values())
    np.testing.assert_allclose(np.array(list(shares.values())) / period, weights, atol=1e-12)
    component, _ = Schedule(tuple(shares.values())).at(np.arange(300_000))
    assert np.abs(deviations(np.array(weights), component)).max() < 1


def test_the_period_is_the_shortest():
    assert whole_shares({"a": 0.25, "b": 0.75}) == {"a": 1, "b": 3}
    assert whole_shares({"a": 1 / 3, "b": 2 / 3}) == {"a": 1, "b": 2}
    assert whole_shares({"a": 0.0, "b": 1.0}) == {"a": 0, "b": 1}
    # as sums come out of floating-point arithmetic, and out of six typed digits
    assert whole_shares({"a": 0.1 + 0.2, "b": 0.7}) == {"a": 3, "b": 7}
    assert sum(whole_shares({"a": 0.333333, "b": 0.666667}).values()) == LONGEST_PERIOD


def test_the_period_meets_itself():
    shares = (3, 5, 9)
    component = np.fromiter(turns(shares), int)
    np.testing.assert_array_equal(np.bincount(component), shares)
    endless, turn = Schedule(shares).at(np.arange(100))
    np.testing.assert_array_equal(endless, np.resize(component, 100))
    for c in range(3):
        np.testing.assert_array_equal(turn[endless == c], np.arange((endless == c).sum()))


@settings(max_examples=40, deadline=None)
@given(raw, st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_random_access_agrees_with_counting(raw_weights, positions):
    shares = tuple(whole_shares(named([w / sum(raw_weights) for w in raw_weights])).values())
    if sum(shares) > 20_000:  # the property is about access; long periods are slow to list
        shares = tuple(min(share, 50) for share in shares)
    schedule = Schedule(shares)
    component, turn = schedule.at(np.array(positions))
    for position, c, t in zip(positions, component, turn, strict=True):
        before, after = schedule.counts(position), schedule.counts(position + 1)
        assert before[c] == t
        np.testing.assert_array_equal(after - before, np.arange(len(shares)) == c)
        assert before.sum() == position


def test_access_order_does_not_matter():
    shares = tuple(whole_shares({"a": 0.123456, "b": 0.3, "c": 0.576544}).values())
    backwards = Schedule(shares)
    parts = [backwards.at(np.arange(first, first + 700)) for first in range(9100, -1, -700)]
    whole = Schedule(shares).at(np.arange(9800))
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts[::-1]]), whole[0])
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts[::-1]]), whole[1])
    assert list(whole[0]) == list(islice(turns(shares), 9800))


def test_the_table_never_exceeds_one_period_of_six_bytes_a_position():
    schedule = Schedule(tuple(whole_shares({"a": 0.123457, "b": 0.876543}).values()))
    for position in (0, 700_000, 10**15 + 999_999, 10**18):
        schedule.at(np.array([position]))
    assert len(schedule._component) == schedule.period == LONGEST_PERIOD
    assert schedule._component.nbytes + schedule._turn.nbytes == 6 * LONGEST_PERIOD


def test_threads_may_read_the_same_schedule():
    shares = tuple(whole_shares({"a": 0.123457, "b": 0.876543}).values())
    expected = Schedule(shares).at(np.arange(60_000))[0]
    shared, wrong = Schedule(shares), []

    def read(seed: int) -> None:
        for last in np.sort(np.random.default_rng(seed).integers(1, 60_000, 200)):
            if not np.array_equal(shared.at(np.arange(last))[0], expected[:last]):
                wrong.append(last)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 0.5, "b": 0.4}, "sum to 0.9"),
        ({"a": 1.2, "b": -0.2}, "weights.b.*-0.2"),
        ({"a": float("nan"), "b": 1.0}, "weights.a.*nan"),
        ({"a": 1e-8, "b": 0.7 - 1e-8, "c": 0.3}, "weights.a.*at least 1e-6"),
        ({}, "sum to 0"),
    ],
)
def test_weights_that_cannot_be_mixed_are_refused(weights, message):
    with pytest.raises(SpecError, match=message):
        whole_shares(weights)
