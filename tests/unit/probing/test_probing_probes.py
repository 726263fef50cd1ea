"""The table of probes: planted signals, noise, what cannot be estimated, and its intervals."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mixlens.errors import DataError, SpecError
from mixlens.probing.bootstrap import ratio_intervals
from mixlens.probing.linear import STRENGTHS
from mixlens.probing.probes import COLUMNS, POOLED, probe, probe_layer
from mixlens.probing.targets import fold_of_images
from mixlens.spec.measure import ProbeSpec

IMAGES, TOKENS, WIDTH = 150, 3, 16
LINEAR = ProbeSpec(kinds=("linear",))


@pytest.fixture(scope="module")
def planted() -> tuple[torch.Tensor, pd.DataFrame]:
    """States of noise; position 1 holds a number, a category and the two halves of an XOR."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(IMAGES, TOKENS, WIDTH, generator=generator)
    number = torch.randn(IMAGES, generator=generator)
    signs = torch.randn(IMAGES, 2, generator=generator).sign()
    kind = torch.randint(3, (IMAGES,), generator=generator)
    states[:, 1, 0] += 5 * number
    states[:, 1, 1:3] += 5 * signs
    states[:, 1, 3:6] += 5 * torch.nn.functional.one_hot(kind, 3)
    attributes = pd.DataFrame(
        {
            "kind": [f"k{int(one)}" for one in kind],
            "number": number.numpy(),
            "xor": ["same" if one else "other" for one in signs.prod(-1) > 0],
            "noise": torch.randn(IMAGES, generator=generator).numpy(),
        }
    )
    return states, attributes


@pytest.fixture(scope="module")
def table(planted: tuple[torch.Tensor, pd.DataFrame]) -> pd.DataFrame:
    states, attributes = planted
    exists = torch.ones(states.shape[:2], dtype=torch.bool)
    return probe_layer(states, exists, attributes, ProbeSpec())


def _row(table: pd.DataFrame, position: int, attribute: str, kind: str) -> pd.Series:
    rows = table[
        (table["position"] == position)
        & (table["attribute"] == attribute)
        & (table["kind"] == kind)
    ]
    assert len(rows) == 1
    return rows.iloc[0]


def test_a_signal_scores_where_it_stands_and_nowhere_else(table: pd.DataFrame) -> None:
    assert len(table) == (TOKENS + 1) * 4 * 2
    assert list(table.columns) == list(COLUMNS[2:])
    for kind in ("linear", "mlp"):
        here = _row(table, 1, "number", kind)
        assert here["value"] > 0.85
        assert here["low"] < here["value"] < here["high"]
        assert here["selectivity"] > 0.8
        assert _row(table, 1, "kind", kind)["value"] > 0.9
        for position in (0, 2):
            assert _row(table, position, "number", kind)["value"] < 0.1
            elsewhere = _row(table, position, "kind", kind)
            assert abs(elsewhere["value"] - 1 / 3) < 0.13
            assert abs(elsewhere["selectivity"]) < 0.17


def test_only_the_network_reads_an_xor(table: pd.DataFrame) -> None:
    linear, network = (_row(table, 1, "xor", kind) for kind in ("linear", "mlp"))
    assert linear["high"] < 0.65
    assert network["low"] > 0.65
    assert network["v_information"] > 0.1


def test_noise_scores_nothing(table: pd.DataFrame) -> None:
    rows = table[table["attribute"] == "noise"]
    assert (rows["value"] < 0.05).all()
    assert (rows["value"] > -0.3).all()
    assert (rows["low"] <= 0).all()
    assert (rows["selectivity"].abs() < 0.3).all()
    assert (rows["chance"] == 0).all()
    assert rows["v_information"].isna().all()


def test_chance_is_the_largest_class_and_information_is_bounded(
    table: pd.DataFrame, planted: tuple[torch.Tensor, pd.DataFrame]
) -> None:
    rows = table[table["attribute"] == "kind"]
    shares = planted[1]["kind"].value_counts(normalize=True)
    np.testing.assert_allclose(rows["chance"], shares.max())
    entropy = -(shares * np.log(shares)).sum()
    assert (rows["v_information"].dropna() < entropy).all()
    assert _row(table, 1, "kind", "mlp")["v_information"] > 0.5 * entropy
    # Linear probes: only for the pooled position, where the sum of three positions tells it too.
    linear = rows[rows["kind"] == "linear"].set_index("position")["v_information"]
    assert linear.notna().tolist() == [position == POOLED for position in linear.index]
    assert linear[POOLED] > 0.3 * entropy


def test_the_score_is_scikit_learns_with_the_same_folds(
    planted: tuple[torch.Tensor, pd.DataFrame],
) -> None:
    states, attributes = planted
    fold = fold_of_images(IMAGES, seed=4)
    exists = torch.ones(states.shape[:2], dtype=torch.bool)
    spec = ProbeSpec(kinds=("linear",), attributes=("number", "kind"))
    table = probe_layer(states, exists, attributes, spec, fold=fold)
    y = attributes["number"].to_numpy(dtype=float)
    hot = pd.get_dummies(attributes["kind"]).to_numpy(dtype=float)
    everywhere = torch.cat([states.double().mean(1, keepdim=True), states.double()], 1).numpy()
    model = make_pipeline(StandardScaler(), RidgeCV(alphas=[WIDTH * one for one in STRENGTHS]))
    for position in range(-1, TOKENS):
        x = everywhere[:, position + 1]
        left, spread, right = 0.0, 0.0, 0
        for train, test in PredefinedSplit(fold.numpy()).split():
            left += ((y[test] - model.fit(x[train], y[train]).predict(x[test])) ** 2).sum()
            spread += ((y[test] - y[train].mean()) ** 2).sum()
            answer = model.fit(x[train], hot[train]).predict(x[test]).argmax(1)
            right += (answer == hot[test].argmax(1)).sum()
        assert _row(table, position, "number", "linear")["value"] == pytest.approx(
            1 - left / spread
        )
        assert _row(table, position, "kind", "linear")["value"] == pytest.approx(right / IMAGES)


def test_the_order_of_images_does_not_matter(
    planted: tuple[torch.Tensor, pd.DataFrame],
) -> None:
    states, attributes = planted
    exists = torch.ones(states.shape[:2], dtype=torch.bool)
    fold = fold_of_images(IMAGES)
    order = torch.randperm(IMAGES, generator=torch.Generator().manual_seed(2))
    plain = probe_layer(states, exists, attributes, ProbeSpec(), fold=fold)
    other = probe_layer(
        states[order], exists, attributes.iloc[order.numpy()], ProbeSpec(), fold=fold[order]
    )
    linear = plain["kind"] == "linear"
    np.testing.assert_allclose(plain["value"][linear], other["value"][linear], rtol=1e-9)
    # 32-bit sums in another order, through 60 steps of training.
    np.testing.assert_allclose(plain["value"], other["value"], atol=0.03)
    np.testing.assert_allclose(plain["v_information"], other["v_information"], atol=0.03)


def test_more_features_than_images_are_not_optimistic() -> None:
    generator = torch.Generator().manual_seed(7)
    states = torch.randn(60, 8, 400, generator=generator)
    attributes = pd.DataFrame(
        {
            "number": torch.randn(60, generator=generator).numpy(),
            "coin": [f"c{int(one)}" for one in torch.randint(2, (60,), generator=generator)],
        }
    )
    table = probe_layer(states, torch.ones(60, 8, dtype=torch.bool), attributes, ProbeSpec())
    means = table.groupby(["attribute", "kind"])[["value", "selectivity"]].mean()
    assert (means.loc["number", "value"] < 0.02).all()
    assert ((means.loc["coin", "value"] - 0.5).abs() < 0.1).all()
    assert (means.loc["coin", "selectivity"].abs() < 0.12).all()


def test_what_cannot_be_estimated_says_why() -> None:
    generator = torch.Generator().manual_seed(1)
    images = 40
    states = torch.randn(images, 4, 5, generator=generator)
    exists = torch.ones(images, 4, dtype=torch.bool)
    exists[19:, 1] = False  # 19 images have position 1
    states[~exists] = torch.nan
    states[:3, 2] = torch.inf  # position 2 is broken in three images
    attributes = pd.DataFrame(
        {
            "fixed": np.full(images, 4),
            "one_word": ["white"] * images,
            "rare": ["odd"] * 4 + ["usual"] * (images - 4),
            "number": np.r_[np.arange(20.0), np.nan, np.arange(19.0)],
            "local": np.r_[np.ones(30), np.arange(10.0)],
            "nobody": [np.nan] * images,
        }
    )
    exists[30:, 3] = False  # where position 3 exists, `local` is the same for all
    table = probe_layer(states, exists, attributes, ProbeSpec())
    same = "not estimable: the same for all images"
    few = "not estimable: 19 images, 20 are needed"

    def notes(attribute: str) -> list[str]:
        rows = table[(table["attribute"] == attribute) & (table["kind"] == "mlp")]
        return rows.sort_values("position")["note"].tolist()

    assert notes("fixed") == [same, same, few, same, same]
    assert notes("one_word") == [same, same, few, same, same]
    odd = "not estimable: only {} images are odd, 5 are needed"
    assert notes("rare") == [odd.format(1), odd.format(4), few, odd.format(1), odd.format(4)]
    assert notes("number") == ["", "", few, "", ""]
    assert notes("local") == ["", "", few, "", same]
    assert set(notes("nobody")) == {"not estimable: 0 images, 20 are needed"}
    blank = table["note"] != ""
    numbers = ["value", "low", "high", "chance", "control", "selectivity", "v_information"]
    assert table.loc[blank, numbers].isna().all(axis=None)
    assert table.loc[~blank, ["value", "low", "high", "control"]].notna().all(axis=None)
    # Images that lack the position, the attribute, or finite states are not counted.
    number = table[(table["attribute"] == "number") & (table["kind"] == "linear")]
    assert number.set_index("position")["n"].to_dict() == {-1: 36, 0: 39, 1: 19, 2: 36, 3: 29}


def test_probe_names_layers_and_refuses_what_it_cannot_know() -> None:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(30, 2, 5, generator=generator)
    exists = torch.ones(30, 2, dtype=torch.bool)
    attributes = pd.DataFrame({"a": np.arange(30.0), "b": np.arange(30.0) ** 2})
    spec = ProbeSpec(attributes=("b",), kinds=("linear",), every_position=False)
    places = [("visual", 0), ("visual", 1), ("text", 1)]
    table = probe(((place, states, exists) for place in places), attributes, spec)
    assert list(table.columns) == list(COLUMNS)
    assert list(zip(table["stream"], table["layer"], strict=True)) == places
    assert set(table["position"]) == {POOLED}
    assert set(table["attribute"]) == {"b"}
    assert table["layer"].dtype == table["position"].dtype == np.int32
    # The same states give the same row in every layer: folds, shuffles and draws are shared.
    assert len(table.drop(columns=["stream", "layer"]).drop_duplicates()) == 1
    assert list(probe([], attributes, LINEAR).columns) == list(COLUMNS)
    with pytest.raises(SpecError, match=r"got 'c'.*Known: a, b"):
        probe_layer(states, exists, attributes, ProbeSpec(attributes=("c",)))
    with pytest.raises(DataError, match="29 rows"):
        probe_layer(states, exists, attributes[:-1], LINEAR)


def test_chunks_of_positions_do_not_matter(
    planted: tuple[torch.Tensor, pd.DataFrame],
    table: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mixlens.probing.probes.ROOM", 1)
    states, attributes = planted
    exists = torch.ones(states.shape[:2], dtype=torch.bool)
    alone = probe_layer(states, exists, attributes, LINEAR)
    linear = table[table["kind"] == "linear"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, linear, rtol=1e-9)


def test_intervals_of_a_mean_cover_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(80, 3000, generator=generator, dtype=torch.float64)
    right = (draws < 0.7).double()
    flag = torch.ones(3000, dtype=torch.bool)
    value, low, high = ratio_intervals(right, torch.ones_like(right), flag)
    torch.testing.assert_close(value, right.mean(0))
    assert 0.92 < float(((low <= 0.7) & (high >= 0.7)).double().mean()) < 0.975
    # A ratio of two means of 2 and 4, both of them noisy.
    above = 2 + torch.randn(80, 3000, generator=generator, dtype=torch.float64)
    below = 4 + torch.randn(80, 3000, generator=generator, dtype=torch.float64)
    _, low, high = ratio_intervals(above, below, ~flag)
    assert 0.92 < float(((low <= 0.5) & (high >= 0.5)).double().mean()) < 0.975


def test_a_share_of_one_or_zero_is_not_certain() -> None:
    right = torch.tensor([[1.0, 0.0]]).repeat(30, 1).double()
    value, low, high = ratio_intervals(right, torch.ones_like(right), torch.ones(2).bool())
    exact = 0.025 ** (1 / 30)  # Clopper-Pearson
    np.testing.assert_allclose(value, [1, 0])
    np.testing.assert_allclose(low, [exact, 0])
    np.testing.assert_allclose(high, [1, 1 - exact])
