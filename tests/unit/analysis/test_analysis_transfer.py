"""Trends on two sets of images: closed forms, verdicts, coverage, and what chance does."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mixlens.analysis.correlations import correlate
from mixlens.analysis.ranks import interval, leave_one_out
from mixlens.analysis.transfer import COLUMNS, paired_attributes, transfer_table
from mixlens.analysis.transfer_answer import transfer_sentences
from mixlens.analysis.transfer_build import TRANSFER_TABLES, Sides, sides_of, transfer_tables
from mixlens.analysis.transfer_chance import SUMMARY, transfer_summary
from mixlens.spec import MeasureSpec

SIDES = ("complex (scenes)", "photos (photographs)")
MAIN = ("visual", 2, "redundancy_score")


def _facts(name: str, **columns: object) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    table.insert(0, "example_id", [f"{name}/{image}" for image in range(len(table))])
    return table


def _metrics(facts: pd.DataFrame, values: dict[tuple[str, int, str], np.ndarray]) -> pd.DataFrame:
    return pd.concat(
        [
            pd.DataFrame(
                {"stream": stream, "layer": layer, "metric": metric,
                 "example_id": facts["example_id"], "value": column}
            )
            for (stream, layer, metric), column in values.items()
        ],
        ignore_index=True,
    )  # fmt: skip


def _world(seed: int, images: int, slope: float, name: str = "here") -> tuple[pd.DataFrame, ...]:
    """Metrics of three streams that follow two of four attributes with this slope, and these."""
    random = np.random.default_rng(seed)
    facts = _facts(
        name,
        object_count=random.integers(1, 9, images),
        covered_fraction=random.random(images),
        occlusion=random.random(images),
        size_mean=random.random(images),
    )
    signal = facts["object_count"] / 3 + 3 * facts["occlusion"]
    keys = [(stream, layer, metric) for stream in ("pixels", "visual", "text")
            for layer in range(4) for metric in ("redundancy_score", "gini")]  # fmt: skip
    values = {key: slope * signal + random.normal(size=images) for key in keys}
    return _metrics(facts, values), facts


def _tables(
    here: tuple[pd.DataFrame, ...], there: tuple[pd.DataFrame, ...]
) -> dict[str, pd.DataFrame]:
    return transfer_tables(correlate(*here, permutations=200), here, there, Sides(*SIDES))


def _one(rho: float, low: float, high: float, p: float = 0.01, **more: object) -> pd.DataFrame:
    row = {"stream": "visual", "layer": 2, "metric": "redundancy_score",
           "attribute": "occlusion", "rho": rho, "low": low, "high": high, "n": 50, "p": p,
           "note": ""}  # fmt: skip
    return pd.DataFrame([row | more])


def test_the_same_images_on_both_sides_hold_everywhere() -> None:
    here = _world(0, 90, 1.0)
    tables = _tables(here, here)
    assert tables.keys() == TRANSFER_TABLES.keys()
    table = tables["transfer"]
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 24 * 4
    found = table[(table["low"] > 0) | (table["high"] < 0)]
    assert len(found) >= 24
    assert (found["verdict"] == "holds").all()
    assert (table.drop(found.index)["verdict"] == "neither").all()
    assert (table["difference"] == 0).all()
    assert (table["difference_low"] < 0).all()
    assert (table["difference_high"] > 0).all()
    for _, row in tables["transfer_summary"].iterrows():
        assert row["holds"] == row["trends"] > 0
        assert row["reverses"] == row["only_here"] == row["unclear"] == 0
        assert row["same_sign"] == 1
        assert row["holds_p"] <= 0.01
        assert row["reverses_p"] == 1


def test_a_flipped_sign_reverses_everywhere() -> None:
    here = _world(0, 90, 1.0)
    metrics, facts = here
    tables = _tables(here, (metrics.assign(value=-metrics["value"]), facts))
    table = tables["transfer"]
    found = table[(table["low"] > 0) | (table["high"] < 0)]
    assert (found["verdict"] == "reverses").all()
    np.testing.assert_allclose(table["rho_there"], -table["rho"], atol=1e-12)
    np.testing.assert_allclose(table["difference"], 2 * table["rho"], atol=1e-12)
    for _, row in tables["transfer_summary"].iterrows():
        assert row["reverses"] == row["trends"] > 0
        assert row["holds"] == row["beyond_both"] == row["same_sign"] == 0
        assert row["reverses_p"] <= 0.01
        assert row["holds_p"] == 1


def test_verdicts_follow_the_three_intervals() -> None:
    cases = {
        (0.5, 0.3, 0.7, 0.4, 0.1, 0.6): "holds",
        (-0.5, -0.7, -0.3, -0.4, -0.6, -0.1): "holds",
        (0.5, 0.3, 0.7, -0.4, -0.6, -0.1): "reverses",
        (0.5, 0.3, 0.7, 0.0, -0.2, 0.2): "only here",
        (-0.5, -0.7, -0.3, 0.1, -0.1, 0.3): "only here",
        (0.3, 0.1, 0.5, 0.1, -0.1, 0.3): "unclear",
        (0.1, -0.1, 0.3, 0.5, 0.3, 0.7): "only there",
        (0.1, -0.1, 0.3, 0.0, -0.2, 0.2): "neither",
        (0.5, 0.0, 0.7, 0.4, 0.1, 0.6): "only there",  # an end at 0 excludes nothing
        (np.nan, np.nan, np.nan, 0.4, 0.1, 0.6): "not estimable",
        (0.5, 0.3, 0.7, np.nan, np.nan, np.nan): "not estimable",
    }
    for (*first, rho, low, high), verdict in cases.items():
        (row,) = transfer_table(_one(*first), _one(rho, low, high)).to_dict("records")
        assert row["verdict"] == verdict, first
    # Zou's formula by hand: 0.5 [0.2, 0.6] less 0.0 [-0.3, 0.4].
    (row,) = transfer_table(_one(0.5, 0.2, 0.6), _one(0.0, -0.3, 0.4)).to_dict("records")
    assert row["difference"] == 0.5
    assert row["difference_low"] == pytest.approx(0.5 - np.sqrt(0.3**2 + 0.4**2))
    assert row["difference_high"] == pytest.approx(0.5 + np.sqrt(0.1**2 + 0.3**2))


def test_what_is_not_known_there_says_why() -> None:
    here = pd.concat([_one(0.5, 0.3, 0.7), _one(0.5, 0.3, 0.7, layer=3)])
    there = _one(np.nan, np.nan, np.nan, note="constant over all images")
    table = transfer_table(here, there).set_index("layer")
    assert table["verdict"].tolist() == ["not estimable"] * 2
    assert table["note"].to_dict() == {2: "constant over all images", 3: "not measured there"}
    assert table["n_there"].to_dict() == {2: 50, 3: 0}
    back = transfer_table(there, here).set_index("layer")
    assert back["note"].to_dict() == {2: "constant over all images"}
    # What is remarked on a partial result is no reason here.
    remark = _one(0.5, 0.3, 0.7, note="collinear with object_count (R = 0.97)")
    assert transfer_table(remark, remark)["note"].tolist() == [""]
    assert list(transfer_table(here, _one(0, 0, 0, attribute="other")).columns) == list(COLUMNS)


def test_attributes_go_by_name_or_by_what_they_are_there() -> None:
    scenes = ["object_count", "shape_diversity", "colour_diversity"]
    photos = ["category_diversity", "object_count", "size_spread"]
    assert paired_attributes(scenes, photos) == {
        "object_count": "object_count", "shape_diversity": "category_diversity"
    }  # fmt: skip
    assert paired_attributes(photos, scenes) == {
        "object_count": "object_count", "category_diversity": "shape_diversity"
    }  # fmt: skip
    assert paired_attributes(scenes, scenes) == {name: name for name in scenes}
    both = ["category_diversity", "shape_diversity"]
    assert paired_attributes(["shape_diversity"], both) == {"shape_diversity": "shape_diversity"}
    assert paired_attributes(both, ["shape_diversity"]) == {"shape_diversity": "shape_diversity"}
    table = transfer_table(
        _one(0.5, 0.3, 0.7, attribute="shape_diversity"),
        _one(0.4, 0.3, 0.7, attribute="category_diversity"),
    )
    assert table["attribute"].tolist() == ["shape_diversity"]
    assert table["attribute_there"].tolist() == ["category_diversity"]
    assert table["verdict"].tolist() == ["holds"]


@pytest.mark.parametrize("images", [(25, 25), (15, 80)])
def test_the_interval_of_a_difference_covers_as_often_as_promised(images: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(images))
    strength = (1.2, 0.4)
    # Of normal variables: Spearman = 6 / pi * asin(Pearson / 2).
    pearson = [one / np.hypot(1, one) for one in strength]
    truth = float(np.subtract(*[6 / np.pi * np.arcsin(one / 2) for one in pearson]))
    sides = []
    for n, slope in zip(images, strength, strict=True):
        rows = []
        for place in range(400):
            x = random.normal(size=n)
            values = np.column_stack([x, slope * x + random.normal(size=n)])
            rho = stats.spearmanr(values)[0]
            low, high = interval(np.array([rho]), leave_one_out(values, 1)[:, 1])
            rows.append(_one(rho, low[0], high[0], layer=place))
        sides.append(pd.concat(rows))
    table = transfer_table(*sides)
    hits = (table["difference_low"] <= truth) & (truth <= table["difference_high"])
    assert 0.93 <= hits.mean() <= 0.995


def test_unrelated_images_hold_as_often_as_chance_says() -> None:
    here = _world(1, 60, 1.0)
    correlations = correlate(*here, permutations=50)
    held, by_chance, small, same = [], [], [], []
    for seed in range(60):
        metrics, facts = _world(100 + seed, 40, 0.0, "there")
        table = transfer_table(correlations, correlate(metrics, facts, permutations=1))
        summary = transfer_summary(table, metrics, facts, SIDES, permutations=99, seed=seed)
        row = summary.set_index("scope").loc["all"]
        held.append(row["holds"])
        by_chance.append(row["chance_holds"])
        small.append(row["holds_p"])
        same.append(row["same_sign_p"])
    # 33 or so trends, each held at 2.5 %; by chance is an upper bound.
    assert np.mean(by_chance) == pytest.approx(0.025 * row["trends"], rel=0.35)
    assert 0.3 * np.mean(by_chance) < np.mean(held) < 1.4 * np.mean(by_chance)
    assert np.mean(np.array(small) <= 0.05) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 60)
    assert np.mean(np.array(same) <= 0.05) <= 0.05 + 2.6 * np.sqrt(0.05 * 0.95 / 60)
    assert 0.3 < np.mean(np.array(same) <= 0.5) < 0.7


def test_copies_of_a_trend_are_no_more_evidence_than_one() -> None:
    # Twenty layers that say the same hold together or not at all, which chance does as often.
    random = np.random.default_rng(4)
    facts = _facts("a", occlusion=random.normal(size=60))
    x = facts["occlusion"].to_numpy()
    here = correlate(
        _metrics(facts, {("visual", i, "redundancy_score"): x for i in range(20)}), facts, 50
    )
    weak = 0.6 * x + random.normal(size=60)
    metrics = _metrics(facts, {("visual", i, "redundancy_score"): weak for i in range(20)})
    table = transfer_table(here, correlate(metrics, facts, permutations=50))
    row = transfer_summary(table, metrics, facts, SIDES, permutations=2000).iloc[0]
    assert row["trends"] == row["holds"] == 20
    assert row["same_sign_p"] == pytest.approx(0.5, abs=0.05)
    # That any holds is as rare as the interval promises; it is they all or none.
    assert row["holds_p"] == pytest.approx(0.025, abs=0.012)
    assert row["chance_holds"] == pytest.approx(20 * row["holds_p"], abs=0.02)


def test_a_trend_and_its_opposite_are_one_by_chance_too() -> None:
    # Both hold or neither does. Without the sign of a trend always one of the two would.
    random = np.random.default_rng(7)
    x = random.normal(size=60)
    facts = _facts("a", occlusion=x, crowding=-x)
    here = correlate(_metrics(facts, {MAIN: x}), facts, permutations=50)
    metrics = _metrics(facts, {MAIN: x + random.normal(size=60)})
    table = transfer_table(here, correlate(metrics, facts, permutations=50))
    row = transfer_summary(table, metrics, facts, SIDES, permutations=1000).iloc[0]
    assert (row["trends"], row["holds"], row["same_sign"]) == (2, 2, 1)
    assert row["same_sign_p"] == pytest.approx(0.5, abs=0.06)
    assert row["chance_holds"] == pytest.approx(2 * 0.025, abs=0.03)


def test_attributes_that_have_nothing_in_common_count_each() -> None:
    random = np.random.default_rng(9)
    facts = _facts("a", **{f"a{i}": random.normal(size=150) for i in range(8)})
    metrics = _metrics(facts, {MAIN: facts.iloc[:, 1:].sum(axis=1)})
    correlations = correlate(metrics, facts, permutations=50)
    table = transfer_table(correlations, correlations)
    row = transfer_summary(table, metrics, facts, SIDES, permutations=3000).iloc[0]
    assert row["same_sign"] == 1
    # Eight coins that all fall alike; one coin would do so in half of all cases.
    assert row["trends"] == 8
    assert row["same_sign_p"] == pytest.approx(1 / 256, abs=0.004)


def test_missing_values_follow_the_shared_permutation() -> None:
    random = np.random.default_rng(2)
    facts = _facts("a", occlusion=random.normal(size=80), crowding=random.normal(size=80))
    facts.loc[:9, "crowding"] = np.nan
    x = facts["occlusion"].to_numpy()
    values = {("visual", i, "redundancy_score"): x + 0.1 * random.normal(size=80) for i in (0, 1)}
    values["visual", 1, "redundancy_score"][40:] = np.nan
    metrics = _metrics(facts, values)
    correlations = correlate(metrics, facts.assign(crowding=x), permutations=50)
    there = correlate(metrics, facts, permutations=50)
    table = transfer_table(correlations, there)
    assert table["n_there"].tolist() == [80, 70, 40, 30]
    row = transfer_summary(table, metrics, facts, SIDES, permutations=4000).iloc[0]
    assert row["trends"] == 4
    # Each of the four holds in 2.5 % of permutations, whatever images it lacks.
    assert row["chance_holds"] == pytest.approx(0.1, abs=0.03)
    assert row["chance_reverses"] == pytest.approx(0.1, abs=0.03)


def test_scopes_leave_out_the_pixels_and_what_is_unknown() -> None:
    here, there = _world(5, 70, 1.0), _world(6, 65, 1.0, "there")
    tables = _tables(here, (there[0], there[1].assign(size_mean=0.5)))
    table = tables["transfer"]
    summary = tables["transfer_summary"].set_index("scope")
    assert list(tables["transfer_summary"].columns) == [*SUMMARY, "other"]
    assert summary.loc["all", "tested"] == 2 * 4 * 2 * 3  # streams, layers, metrics, attributes
    assert summary.loc["redundancy", "tested"] == 4 * 3
    assert summary["n"].tolist() == [70, 70]
    assert summary["n_there"].tolist() == [65, 65]
    main = table[(table["stream"] == "visual") & (table["metric"] == "redundancy_score")]
    for verdict in ("holds", "reverses", "only here", "unclear"):
        name = verdict.replace(" ", "_")
        assert summary.loc["redundancy", name] == (main["verdict"] == verdict).sum()
    both = main[(main["p"] <= 0.05) & (main["p_there"] <= 0.05) & (main["verdict"] == "holds")]
    assert summary.loc["redundancy", "beyond_both"] == len(both) > 0


def _summary(**changes: object) -> pd.DataFrame:
    row = dict.fromkeys(SUMMARY, 0) | {
        "here": SIDES[0], "there": SIDES[1], "n": 70, "n_there": 65, "tested": 40, "trends": 10,
        "chance_holds": 0.26, "chance_holds_most": 2, "holds_p": 1.0, "chance_reverses": 0.24,
        "chance_reverses_most": 2, "reverses_p": 1.0,
    }  # fmt: skip
    return pd.DataFrame([row | {"scope": scope} | changes for scope in ("redundancy", "all")])


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"holds": 6, "holds_p": 0.01}, "mostly hold on photos"),
        ({"holds": 4, "holds_p": 0.01}, "partly hold on photos"),
        ({"holds": 1, "holds_p": 0.2}, "cannot be told from chance"),
        ({"holds": 1, "holds_p": 0.2, "only_here": 6}, "mostly do not hold"),
        ({"reverses": 6, "reverses_p": 0.01}, "reverse on photos"),
        ({"holds": 4, "holds_p": 0.01, "reverses": 4, "reverses_p": 0.02}, "and reverse in part"),
        ({"trends": 0}, "there is no trend that could hold"),
        ({"tested": 0, "trends": 0}, "can be estimated on both"),
    ],
)
def test_the_answer_says_what_the_numbers_allow(changes: dict, answer: str) -> None:
    empty = pd.DataFrame(columns=list(COLUMNS))
    first = transfer_sentences(empty, _summary(**changes))[0]
    assert answer in first
    if changes.get("trends", 1):
        assert "of 40 correlations" in first
        assert "10 exclude 0 on the 70 images of complex (scenes)" in first
        assert "on the 65 of photos (photographs)" in first
        assert f"{changes.get('holds', 0)} hold" in first
        assert "0.3 would hold (at most 2 in 95 % of permutations" in first


def test_sentences_name_the_largest_trends_and_the_family() -> None:
    table = pd.concat(
        [
            transfer_table(_one(rho, rho - 0.1, rho + 0.1, attribute=name),
                           _one(other, other - 0.1, other + 0.1, attribute=name))
            for name, rho, other in (("occlusion", 0.4, 0.3), ("size_mean", -0.6, -0.2),
                                     ("object_count", 0.3, -0.3))
        ],
        ignore_index=True,
    )  # fmt: skip
    sentences = transfer_sentences(table, _summary(holds=2, reverses=1, beyond_both=1))
    assert len(sentences) == 4
    assert (
        "The largest that holds is with size mean at layer 2, Spearman −0.60 [−0.70, −0.50] on "
        "complex (scenes) and −0.20 [−0.30, −0.10] on photos (photographs) (p = "
    ) in sentences[1]
    assert "; the largest that reverses is with object count" in sentences[1]
    assert sentences[1].count("by max-T over either table") == 2
    assert "of 40 correlations about 2 would exclude 0" in sentences[3]
    assert "1 has the same sign and is beyond chance" in sentences[3]
    assert transfer_sentences(table, pd.DataFrame()) == []


def test_sides_are_named_by_component_and_kind() -> None:
    spec = MeasureSpec.model_validate(
        {
            "name": "some",
            "data": {"coco": {"root": "/x", "train": {"annotations": "a.json"}}},
            "components": {
                "drawn": {"tasks": {"coarse": 1}},
                "taken": {"kind": "coco", "data": "coco", "tasks": {"coarse": 1}},
            },
            "evaluation": {"component": "taken", "transfer": "drawn", "examples": 8},
        }
    )
    found = sides_of(spec)
    assert found == Sides("taken (photographs)", "drawn (scenes)", from_other=True)
    turned = spec.evaluation.model_copy(update={"component": "drawn", "transfer": "taken"})
    found = sides_of(spec.model_copy(update={"evaluation": turned}))
    assert found == Sides("drawn (scenes)", "taken (photographs)", from_other=False)


def test_the_question_is_the_same_whichever_images_are_evaluated_on() -> None:
    scenes, photos = _world(1, 60, 1.0, "scenes"), _world(2, 50, 0.6, "photos")
    of_scenes, of_photos = (correlate(*one) for one in (scenes, photos))
    one = transfer_tables(of_scenes, scenes, photos, Sides("scenes", "photos"))
    other = transfer_tables(of_photos, photos, scenes, Sides("photos", "scenes", from_other=True))
    for name in ("transfer", "transfer_summary"):
        pd.testing.assert_frame_equal(
            one[name].drop(columns="other", errors="ignore"),
            other[name].drop(columns="other", errors="ignore"),
        )
    assert set(one["transfer_summary"]["here"]) == {"scenes"}
    assert set(one["transfer_summary"]["other"]) == {"photos"}
    assert set(other["transfer_summary"]["other"]) == {"scenes"}
    pd.testing.assert_frame_equal(one["transfer_correlations"], of_photos)
    pd.testing.assert_frame_equal(other["transfer_correlations"], of_scenes)
