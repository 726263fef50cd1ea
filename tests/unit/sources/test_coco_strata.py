"""Images by quantile of an attribute."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from mixlens.sources.coco.strata import between


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.floats(0.05, 0.95))
def test_strata_that_meet_share_no_image_and_leave_none_out(values, cut):
    values = np.array(values)
    below, above = between(values, 0.0, cut), between(values, cut, 1.0)
    assert (below ^ above).all()
    if below.any() and above.any():
        assert values[below].max() < values[above].min()  # equal values stay together


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=40), st.floats(0, 0.5), st.floats(0.5, 1))
def test_the_place_of_a_value_is_its_mid_rank(values, low, high):
    values = np.array(values)
    place = (rankdata(values) - 0.5) / len(values)
    expected = (place >= low) & ((place < high) | (high == 1))
    near = np.isclose(place, low) | np.isclose(place, high)
    np.testing.assert_array_equal(between(values, low, high)[~near], expected[~near])


@pytest.mark.parametrize(("low", "high", "count"), [(0.75, 1, 25), (0, 0.25, 25), (0.4, 0.6, 20)])
def test_distinct_values_give_the_share_that_was_asked_for(low, high, count):
    values = np.random.default_rng(0).permutation(100).astype(float)
    inside = between(values, low, high)
    assert inside.sum() == count
    assert values[inside].min() == low * 100
