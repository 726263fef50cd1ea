"""Correlations against scipy, inverse matrices, enumeration and simulated families of tests."""

from itertools import permutations as orders

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mixlens.analysis.aligned import ranked_attributes
from mixlens.analysis.correlations import COLUMNS, correlate
from mixlens.analysis.permutations import Hypotheses, adjusted_p, largest_of_all, restrict
from mixlens.analysis.ranks import (
    interval,
    leave_one_out,
    multiple,
    p_value,
    partial,
    standard_ranks,
)
from mixlens.errors import DataError


def _long(metrics: dict[str, np.ndarray], layer: int = 0) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {
                "stream": "visual",
                "layer": layer,
                "metric": name,
                "example_id": [f"scenes/{image}" for image in range(len(values))],
                "value": values,
            }
        )
        for name, values in metrics.items()
    ]
    return pd.concat(frames, ignore_index=True)


def _facts(**attributes: object) -> pd.DataFrame:
    table = pd.DataFrame(attributes)
    table.insert(0, "example_id", [f"scenes/{image}" for image in range(len(table))])
    return table


def _scenes(images: int, seed: int = 0) -> tuple[dict[str, np.ndarray], pd.DataFrame]:
    """Metrics and attributes that depend on each other, with many ties among both."""
    random = np.random.default_rng(seed)
    count = random.integers(1, 8, images)
    ink = np.round(count / 20 + random.normal(0, 0.06, images), 2)
    occlusion = np.round(random.exponential(size=images) * count)
    metrics = {
        "redundancy_score": -count + random.normal(0, 2, images),
        "gini": np.round(ink * 10 + random.normal(0, 1, images)),
        "hoyer": random.normal(size=images),
    }
    return metrics, _facts(object_count=count, ink_fraction=ink, occlusion=occlusion)


def _row(table: pd.DataFrame, metric: str, attribute: str) -> pd.Series:
    some = table[(table["metric"] == metric) & (table["attribute"] == attribute)]
    assert len(some) == 1
    return some.iloc[0]


def _benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p)
    adjusted = p[order] * len(p) / np.arange(1, len(p) + 1)
    out = np.empty(len(p))
    out[order] = np.minimum(np.minimum.accumulate(adjusted[::-1])[::-1], 1.0)
    return out


def test_rho_and_q_agree_with_scipy_where_there_are_ties() -> None:
    metrics, facts = _scenes(30)
    table = correlate(_long(metrics), facts, permutations=50)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 9
    p = []
    for row in table.itertuples():
        expected = stats.spearmanr(metrics[row.metric], facts[row.attribute])
        assert row.rho == pytest.approx(expected.statistic, abs=1e-12)
        assert row.low < row.rho < row.high
        assert (row.n, row.note) == (30, "")
        p.append(expected.pvalue)
    assert table["q"].to_numpy() == pytest.approx(_benjamini_hochberg(np.array(p)), rel=1e-9)


def test_partial_results_agree_with_the_inverse_of_the_rank_correlations() -> None:
    metrics, facts = _scenes(40)
    table = correlate(_long(metrics), facts, permutations=50)
    given = {
        "object_count": ["ink_fraction"],
        "ink_fraction": ["object_count"],
        "occlusion": ["object_count", "ink_fraction"],
    }
    p = []
    for row in table.itertuples():
        assert row.given == ",".join(given[row.attribute])
        columns = [
            metrics[row.metric],
            facts[row.attribute],
            *(facts[g] for g in row.given.split(",")),
        ]
        precision = np.linalg.inv(np.corrcoef([stats.rankdata(column) for column in columns]))
        expected = -precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1])
        assert row.partial_rho == pytest.approx(expected, abs=1e-10)
        freedom = 40 - 2 - len(given[row.attribute])
        t = expected * np.sqrt(freedom / (1 - expected**2))
        p.append(2 * stats.t.sf(abs(t), freedom))
    assert table["partial_q"].to_numpy() == pytest.approx(
        _benjamini_hochberg(np.array(p)), rel=1e-6
    )


def test_the_jackknife_leaves_out_one_image_at_a_time() -> None:
    metrics, facts = _scenes(12)
    values = np.column_stack(
        [*(facts[name] for name in ("object_count", "occlusion")), metrics["gini"]]
    )
    without = leave_one_out(values, 2)
    for image in range(12):
        expected = stats.spearmanr(np.delete(values, image, axis=0)).statistic
        assert without[image] == pytest.approx(expected[:, :2], abs=1e-12)
    # Everything hangs on one image: without it nothing varies.
    single = np.column_stack([np.eye(6)[0], np.arange(6.0)])
    without = leave_one_out(single, 1)[:, 1, 0]
    assert without[0] == 0
    assert (without[1:] < 0).all()


def test_a_row_with_missing_images_is_that_of_the_images_it_has() -> None:
    metrics, facts = _scenes(25)
    metrics["gini"][[3, 7, 20]] = np.nan
    facts["occlusion"] = facts["occlusion"].astype(float)
    facts.loc[[7, 11], "occlusion"] = np.nan
    table = correlate(_long(metrics), facts, permutations=50)
    for metric, attribute, gone in (
        ("gini", "object_count", [3, 7, 20]),
        ("gini", "occlusion", [3, 7, 11, 20]),
        ("hoyer", "occlusion", [7, 11]),
        ("hoyer", "ink_fraction", []),
    ):
        keep = np.setdiff1d(np.arange(25), gone)
        some = correlate(
            _long({metric: metrics[metric][keep]}),
            facts.iloc[keep].assign(example_id=[f"scenes/{i}" for i in range(len(keep))]),
            permutations=50,
        )
        full, alone = _row(table, metric, attribute), _row(some, metric, attribute)
        names = ["rho", "low", "high", "n", "partial_rho", "partial_low", "partial_high", "given"]
        for name in names:
            assert full[name] == pytest.approx(alone[name], abs=1e-12), name
        assert 0 < full["p"] <= 1


def test_values_that_order_alike_give_the_same_table() -> None:
    metrics, facts = _scenes(30)
    table = correlate(_long(metrics), facts, permutations=99)
    changed = correlate(
        _long({name: np.exp(values / 4) for name, values in metrics.items()}).sample(
            frac=1.0, random_state=0
        ),
        facts.assign(occlusion=facts["occlusion"] ** 3).iloc[::-1],
        permutations=99,
    )
    key = ["metric", "attribute"]
    pd.testing.assert_frame_equal(
        table.sort_values(key, ignore_index=True), changed.sort_values(key, ignore_index=True)
    )
    turned = correlate(_long(metrics), facts.assign(occlusion=-facts["occlusion"]), permutations=99)
    mine, other = _row(table, "hoyer", "occlusion"), _row(turned, "hoyer", "occlusion")
    assert (other["rho"], other["p"], other["q"]) == pytest.approx(
        (-mine["rho"], mine["p"], mine["q"])
    )
    assert (other["low"], other["high"]) == pytest.approx((-mine["high"], -mine["low"]))


def test_adjusted_p_counts_the_observed_order_as_one_more() -> None:
    largest = np.array([1.0, 2.0, 3.0, 3.0])
    p = adjusted_p(np.array([4.0, 3.0, 2.5, 0.5, np.nan]), largest)
    assert p[:4] == pytest.approx([1 / 5, 3 / 5, 3 / 5, 1.0])
    assert np.isnan(p[4])


def test_p_of_one_test_is_that_of_all_orders() -> None:
    x, y = np.array([1.0, 2.0, 2.0, 4.0, 5.0, 6.0]), np.array([2.0, 1.0, 3.0, 4.0, 4.0, 6.0])
    table = correlate(_long({"gini": x}), _facts(size_mean=y), permutations=20_000)
    observed = abs(stats.spearmanr(x, y).statistic)
    every = [abs(stats.spearmanr(x, y[list(order)]).statistic) for order in orders(range(6))]
    expected = np.mean(np.array(every) >= observed - 1e-9)
    assert 0.02 < expected < 0.2
    assert table["p"][0] == pytest.approx(expected, abs=4 * np.sqrt(expected / 20_000))


def test_copies_of_a_metric_or_attribute_cost_nothing() -> None:
    # Attributes change places together: five copies are one test, not five.
    metrics, facts = _scenes(20)
    score = metrics["redundancy_score"]
    one = correlate(_long({"a": score}), facts[["example_id", "occlusion"]], permutations=500)
    copies = {f"copy{i}": np.exp(facts["occlusion"] / (i + 4)) for i in range(5)}
    many = correlate(_long({"a": score, "b": score**3}), _facts(**copies), permutations=500)
    assert len(many) == 10
    assert 0.002 < one["p"][0] < 0.9
    assert many["p"].to_numpy() == pytest.approx(one["p"][0], abs=1e-12)


def test_fewer_images_follow_the_shared_permutation_uniformly() -> None:
    every = np.array(list(orders(range(5))), dtype=np.int32)
    some = np.array([0, 2, 3])
    own = restrict(every, some)
    found, times = np.unique(own, axis=0, return_counts=True)
    assert len(found) == 6
    assert (times == 20).all()
    same = np.isin(every[:, some], some)
    assert (some[own][same] == every[:, some][same]).all()
    assert (restrict(every, np.arange(5)) == every).all()


def _null_tables(tables: int, images: int, confounded: float) -> np.ndarray:
    """[tables, 2] smallest p and partial p of tables in which nothing depends on anything.

    With `confounded`, everything depends on the number of objects, and on nothing else.
    """
    random = np.random.default_rng(5)
    smallest = []
    for _ in range(tables):
        count = random.normal(size=images)
        common = random.normal(size=images)
        metrics = {
            f"m{i}": confounded * count + common + random.normal(size=images) for i in range(6)
        }
        metrics["m0"][random.random(images) < 0.2] = np.nan
        metrics["m1"] = np.round(metrics["m1"])
        shared = random.normal(size=images)
        facts = {
            f"a{i}": confounded * count + shared + random.normal(size=images) for i in range(3)
        }
        facts["a0"] = np.round(facts["a0"])
        table = correlate(
            _long(metrics), _facts(object_count=count, **facts), permutations=99, seed=len(smallest)
        )
        table = table[table["attribute"] != "object_count"]
        smallest.append((table["p"].min(), table["partial_p"].min()))
    return np.array(smallest)


def test_family_wise_error_is_held_and_used() -> None:
    p = _null_tables(tables=200, images=14, confounded=0.0)
    error = (p <= 0.05).mean(axis=0)
    assert (error <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 200)).all()
    assert (error >= 0.01).all()


def test_what_the_count_explains_is_found_whole_and_not_in_part() -> None:
    p = _null_tables(tables=120, images=40, confounded=2.0)
    whole, part = (p <= 0.05).mean(axis=0)
    assert whole > 0.95
    assert part <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 120)


def test_a_real_relation_is_found_in_a_large_table() -> None:
    random = np.random.default_rng(8)
    facts = _facts(
        object_count=random.normal(size=100),
        occlusion=random.normal(size=100),
        crowding=random.normal(size=100),
    )
    metrics = {f"m{i}": random.normal(size=100) for i in range(100)}
    metrics["m50"] = metrics["m50"] + facts["occlusion"].to_numpy()
    table = correlate(_long(metrics), facts, permutations=1000)
    found = table[table["p"] < 0.05]
    assert found[["metric", "attribute"]].to_numpy().tolist() == [["m50", "occlusion"]]
    assert found["p"].iloc[0] == pytest.approx(1 / 1001)
    assert found["partial_p"].iloc[0] == pytest.approx(1 / 1001)
    assert found["q"].iloc[0] < 1e-6


def test_fewer_images_do_not_drown_the_other_rows() -> None:
    # Five images reach |rho| = 1 by chance in every tenth permutation; 60 images at 0.6 do not.
    random = np.random.default_rng(3)
    occlusion = random.normal(size=60)
    few = np.where(np.arange(60) < 5, random.normal(size=60), np.nan)
    strong = occlusion + 1.2 * random.normal(size=60)
    table = correlate(
        _long({"few": few, "strong": strong}), _facts(occlusion=occlusion), permutations=999
    )
    assert _row(table, "strong", "occlusion")["p"] < 0.01


@pytest.mark.parametrize("spread", ["even", "fan"])
@pytest.mark.parametrize("images", [12, 40])
def test_intervals_cover_as_often_as_promised(spread: str, images: int) -> None:
    random = np.random.default_rng(images)

    def draw(n: int) -> np.ndarray:
        x = random.normal(size=n)
        noise = random.normal(size=n) * (1.5 * np.abs(x) if spread == "fan" else 1.3)
        third = random.normal(size=n) + x
        return np.column_stack([np.round(2 * x), third, x + noise])

    large = draw(400_000)
    whole, part = (_correlations(large, given)[0] for given in ([], [1]))
    hits = []
    for _ in range(500):
        values = draw(images)
        ends = []
        for given, truth in (([], whole), ([1], part)):
            rho, without = _correlations(values, given)
            low, high = interval(np.array([rho]), without[:, None], len(given))
            ends.append((low <= truth) & (truth <= high))
        hits.append(ends)
    covered = np.mean(hits, axis=0)
    assert (covered >= 0.93).all()
    assert (covered <= 0.995).all()


def _correlations(values: np.ndarray, given: list[int]) -> tuple[float, np.ndarray]:
    ranks = standard_ranks(values)
    rho = partial((ranks.T @ ranks)[:, :2], 0, given)[2]
    small = len(values) < 1000
    without = partial(leave_one_out(values, 2), 0, given)[:, 2] if small else np.zeros(0)
    return float(rho), without


def test_a_perfect_order_of_few_images_is_not_certain() -> None:
    values = np.column_stack([np.arange(6.0), np.arange(6.0)])
    low, high = interval(np.array([1.0]), leave_one_out(values, 1)[:, 1])
    assert 0.0 < low[0] < 0.9
    assert high[0] == 1.0


def test_p_value_is_scipys() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 15))
    expected = stats.spearmanr(x, y)
    assert p_value(np.array(expected.statistic), 15) == pytest.approx(expected.pvalue)
    assert p_value(np.array(1.0), 15) == pytest.approx(0.0, abs=1e-30)


def test_multiple_correlation_is_that_of_least_squares() -> None:
    values = np.random.default_rng(1).normal(size=(30, 3)) @ np.array(
        [[1, 1, 0], [0, 1, 1], [0, 0, 1.0]]
    )
    ranks = standard_ranks(values)
    fit = ranks[:, 1:] @ np.linalg.lstsq(ranks[:, 1:], ranks[:, 0])[0]
    expected = np.sqrt((fit**2).sum())
    assert multiple(ranks.T @ ranks, 0, [1, 2]) == pytest.approx(expected)


def test_permuted_residuals_are_fitted_again() -> None:
    # By hand: permute the attribute's residual, regress the held ranks out anew, correlate.
    random = np.random.default_rng(4)
    ranks = standard_ranks(random.normal(size=(9, 4)) + random.normal(size=(9, 1)))
    tests = Hypotheses.of(np.arange(9), ranks[:, :1], ranks[:, 1], ranks[:, 2:])
    shuffled = np.stack([random.permutation(9) for _ in range(20)]).astype(np.int32)
    keep = np.eye(9) - ranks[:, :1] @ ranks[:, :1].T
    expected = []
    for order in shuffled:
        moved = keep @ (keep @ ranks[:, 1])[order]
        both = [np.corrcoef(moved, keep @ ranks[:, metric])[0, 1] for metric in (2, 3)]
        expected.append(np.sqrt(9 - 1 - 1) * np.abs(both).max())
    assert tests.largest(shuffled) == pytest.approx(np.array(expected), rel=1e-5)


def test_permutations_do_not_depend_on_the_size_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = standard_ranks(np.random.default_rng(4).normal(size=(9, 3)))
    tests = [Hypotheses.of(np.arange(9), ranks[:, :0], ranks[:, 0], ranks[:, 1:])]
    whole = largest_of_all(tests, 9, 50, seed=1)
    monkeypatch.setattr("mixlens.analysis.permutations._CELLS", 9 * 7)
    assert largest_of_all(tests, 9, 50, seed=1) == pytest.approx(whole)
    assert largest_of_all(tests, 9, 50, seed=2) != pytest.approx(whole)


def test_collinear_attributes_are_named_with_what_can_be_said() -> None:
    metrics, facts = _scenes(40)
    random = np.random.default_rng(0)
    facts["covered_fraction"] = facts["ink_fraction"] + random.normal(0, 0.005, 40)
    facts["ink_percent"] = 100 * facts["ink_fraction"]
    metrics["counter"] = facts["object_count"].to_numpy() ** 2.0
    table = correlate(_long(metrics), facts, permutations=50)
    near = _row(table, "gini", "covered_fraction")
    assert near["note"].startswith("collinear with object_count and ink_fraction (R = 0.9")
    assert near["partial_low"] < near["partial_rho"] < near["partial_high"]
    assert near["partial_p"] <= 1
    same = _row(table, "gini", "ink_percent")
    assert same["note"] == "follows from object_count and ink_fraction: no partial result"
    assert same[["partial_rho", "partial_low", "partial_p", "partial_q"]].isna().all()
    assert same["rho"] == pytest.approx(_row(table, "gini", "ink_fraction")["rho"])
    metric = _row(table, "counter", "occlusion")
    assert metric["note"] == "metric follows from what is held fixed: no partial result"
    assert np.isnan(metric["partial_rho"])
    assert _row(table, "gini", "occlusion")["note"] == ""


def test_what_cannot_be_estimated_says_why() -> None:
    metrics, facts = _scenes(20)
    metrics["rank"] = np.full(20, 3.0)
    metrics["lidar"] = np.where(np.arange(20) < 3, metrics["gini"], np.nan)
    metrics["alpha_req"] = np.full(20, np.nan)
    metrics["twonn"] = np.where(np.arange(20) < 5, np.arange(20.0), np.nan)
    facts["crowding"] = 0.5
    facts["dominant_colour"] = "red"
    assert ranked_attributes(facts) == (
        ["object_count", "ink_fraction", "occlusion", "crowding"],
        ["dominant_colour"],
    )
    table = correlate(_long(metrics), facts, permutations=50)
    assert len(table) == 7 * 4
    assert "dominant_colour" not in set(table["attribute"])
    notes = {
        ("rank", "occlusion"): "metric constant over all images",
        ("gini", "crowding"): "constant over all images",
        ("lidar", "occlusion"): "3 images, fewer than 4",
        ("alpha_req", "occlusion"): "0 images, fewer than 4",
        ("twonn", "occlusion"): "5 images, fewer than 6 for a partial result",
    }
    for (metric, attribute), note in notes.items():
        row = _row(table, metric, attribute)
        assert row["note"] == note
        assert row[["partial_rho", "partial_low", "partial_high", "partial_p"]].isna().all()
        whole = row[["rho", "low", "high", "p", "q"]]
        assert whole.notna().all() if metric == "twonn" else whole.isna().all()
    # The rest is as if those were not there, but for the adjustment to fewer tests.
    some = correlate(_long({"gini": metrics["gini"]}), facts, permutations=50)
    assert _row(some, "gini", "occlusion")["rho"] == _row(table, "gini", "occlusion")["rho"]
    words = correlate(_long(metrics), facts[["example_id", "dominant_colour"]])
    assert words.empty
    assert list(words.columns) == list(COLUMNS)


def test_without_something_to_hold_fixed_there_is_no_partial_result() -> None:
    metrics, facts = _scenes(20)
    table = correlate(_long(metrics), facts.assign(object_count=3, ink_fraction=0.5), 50)
    row = _row(table, "gini", "occlusion")
    assert (row["given"], row["note"]) == ("", "nothing to hold fixed")
    assert np.isnan(row["partial_rho"])
    assert not np.isnan(row["p"])


def test_photographs_hold_the_covered_share_in_place_of_ink() -> None:
    metrics, facts = _scenes(30)
    photos = facts.rename(columns={"ink_fraction": "covered_fraction"})
    table, other = correlate(_long(metrics), photos, 50), correlate(_long(metrics), facts, 50)
    row = _row(table, "gini", "occlusion")
    assert row["given"] == "object_count,covered_fraction"
    assert row["partial_rho"] == _row(other, "gini", "occlusion")["partial_rho"]
    assert _row(table, "gini", "covered_fraction")["given"] == "object_count"
    # Scenes have both: ink is held, and the covered share is an attribute like others.
    both = correlate(_long(metrics), facts.assign(covered_fraction=facts["occlusion"]), 50)
    assert _row(both, "gini", "covered_fraction")["given"] == "object_count,ink_fraction"
    none = correlate(_long(metrics), facts, 50, held=())
    assert set(none["note"]) == {"nothing to hold fixed"}


@pytest.mark.case
def test_an_image_of_which_nothing_is_known_takes_only_itself_away() -> None:
    """As one that lost an annotation: what is held fixed is unknown of it as well."""
    metrics, facts = _scenes(30)
    others = _long(metrics)
    others = others[~others["example_id"].isin(["scenes/0", "scenes/1"])]
    known = correlate(others, facts.iloc[2:], 50)
    numbers = ["object_count", "ink_fraction", "occlusion"]
    facts[numbers] = facts[numbers].astype(float)
    facts.loc[:1, numbers] = np.nan
    table = correlate(_long(metrics), facts, 50)
    assert set(table["n"]) == {28}
    assert table["given"].tolist() == known["given"].tolist()
    for name in ("rho", "partial_rho", "low", "high"):
        assert table[name].tolist() == pytest.approx(known[name].tolist()), name
    facts[numbers] = np.nan
    nothing = correlate(_long(metrics), facts, 50)
    assert nothing["rho"].isna().all()


def test_images_without_attributes_and_values_given_twice_are_named() -> None:
    metrics, facts = _scenes(20)
    with pytest.raises(DataError, match=r"scenes/19.*not there"):
        correlate(_long(metrics), facts.iloc[:19])
    with pytest.raises(DataError, match=r"scenes/0.*twice"):
        correlate(_long(metrics), pd.concat([facts, facts.iloc[:1]]))
    with pytest.raises(DataError, match=r"scenes/0.*twice"):
        correlate(pd.concat([_long(metrics), _long(metrics)]), facts)
