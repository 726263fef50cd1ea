"""Arms: their tables against direct computation, their contrasts, and what the answer says."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_sweep import FakeSweep
from scipy import stats

from mixlens.analysis import answer_sentences, build_tables, load_sweep
from mixlens.analysis.effect import AGAINST_BASE, DIFFERENCE, PAIR, TREND, together
from mixlens.analysis.results import SweepResults
from mixlens.analysis.tables import Tables
from mixlens.analysis.words import digits_of, with_interval
from mixlens.design import Trial
from mixlens.statistics.intervals import Levels, combine_seeds

# Not in the order of the alphabet, and the planted redundancy falls along it.
ARMS = (("relational", 0.0), ("coarse", 0.4), ("scene_graph", 0.7), ("attribute", 1.0))
NAMES = [name for name, _ in ARMS]
SMALL = FakeSweep(arms=ARMS, images=40, layers=6, steps=20)
SCORE = ("visual", "redundancy_score", "mean")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepResults:
    return load_sweep(SMALL.write(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def tables(sweep: SweepResults) -> Tables:
    return build_tables(sweep)


def _tables_of(fake: FakeSweep, folder: Path) -> Tables:
    return build_tables(load_sweep(fake.write(folder)))


def _effects(tables: Tables, contrast: str, key: tuple[str, str, str] = SCORE) -> pd.DataFrame:
    some = tables.effects.set_index(["subject", "metric", "part"]).sort_index().loc[[key]]
    return some[some["contrast"] == contrast]


def _row(tables: Tables, run: str, subject: str, metric: str, part: str = "") -> pd.Series:
    rows = tables.sweep
    (found,) = np.flatnonzero(
        rows["level"].eq(run) & rows["subject"].eq(subject)
        & rows["metric"].eq(metric) & rows["part"].eq(part)
    )  # fmt: skip
    return rows.iloc[found]


def _score(run, layers=range(6)) -> float:
    some = run.image_metrics
    some = some[(some["stream"] == "visual") & (some["metric"] == "redundancy_score")]
    return some[some["layer"].isin(layers)]["value"].mean()


def test_one_row_an_arm_with_its_seeds_combined(sweep: SweepResults, tables: Tables) -> None:
    table = tables.sweep
    assert table["level"].unique().tolist() == ["base", *NAMES]
    assert tables.levels["level"].tolist() == tables.levels["label"].tolist() == NAMES
    assert tables.levels["at"].tolist() == tables.levels["place"].tolist() == [0, 1, 2, 3]
    assert tables.levels["weight.coarse_data"].tolist() == [NAMES[i] == "coarse" for i in range(4)]
    assert (tables.levels["scale"] == "").all()
    for arm in NAMES:
        runs = [run for run in sweep.trials if run.level == arm]
        assert [run.seed for run in runs] == [0, 1]
        row = _row(tables, arm, *SCORE)
        assert row["value"] == pytest.approx(np.mean([_score(run) for run in runs]))
        assert row["low"] < row["value"] < row["high"]
        assert (row["n_images"], row["n_seeds"], row["covers"]) == (40, 2, "images and seeds")
        late = _row(tables, arm, "visual", "redundancy_score", "late")
        assert late["value"] == pytest.approx(np.mean([_score(run, (4, 5)) for run in runs]))
        asked = [run.examples[run.examples["group"] == "coarse"]["exact"].mean() for run in runs]
        coarse = _row(tables, arm, "coarse", "exact")
        assert coarse["value"] == pytest.approx(np.mean(asked))
    everything = _row(tables, "coarse", "all", "accuracy")["value"]
    headline = {"coarse": "exact", "attribute": "exact", "relational": "exact", "count": "exact",
                "scene_graph": "object_f1"}  # fmt: skip
    each = [_row(tables, "coarse", *key)["value"] for key in headline.items()]
    assert everything == pytest.approx(np.mean(each))
    for name in ("accuracy", "layers", "training", "examples", "image_metrics"):
        own = getattr(tables, name)
        assert set(own["level"]) - {"base"} == set(NAMES), name
    assert tables.recommendation.empty


def test_contrasts_are_those_of_the_means(tables: Tables) -> None:
    rows = tables.sweep.set_index(["subject", "metric", "part"]).sort_index().loc[[SCORE]]
    mean = rows.set_index("level")["value"]
    values = mean[NAMES].to_numpy()
    (difference,) = _effects(tables, DIFFERENCE).to_dict("records")
    assert difference["value"] == pytest.approx(values[3] - values[0])
    assert (difference["level_from"], difference["level_to"]) == ("relational", "attribute")
    (trend,) = _effects(tables, TREND).to_dict("records")
    assert trend["value"] == pytest.approx(np.polyfit(range(4), values, 1)[0])
    pairs = _effects(tables, PAIR)
    assert [tuple(pair) for pair in pairs[["level_from", "level_to"]].to_numpy()] == list(
        combinations(NAMES, 2)
    )
    for _, row in pairs.iterrows():
        assert row["value"] == pytest.approx(mean[row["level_to"]] - mean[row["level_from"]])
        assert (row["comparisons"], row["n_runs"], row["n_seeds"]) == (6, 4, 2)
    against = _effects(tables, AGAINST_BASE)
    assert against["level_to"].tolist() == NAMES
    assert against["value"].to_numpy() == pytest.approx(values - mean["base"])
    assert (against["comparisons"] == 4).all()
    assert (_effects(tables, DIFFERENCE)["comparisons"] == 1).all()
    assert set(tables.effects["contrast"]) == {DIFFERENCE, TREND, PAIR, AGAINST_BASE}
    # The pair of the ends is the same difference, held to a stricter standard.
    (ends,) = pairs[
        pairs["level_to"].eq("attribute") & pairs["level_from"].eq("relational")
    ].to_dict("records")
    assert ends["high"] - ends["low"] > 1.1 * (difference["high"] - difference["low"])


def test_planted_differences_lie_in_their_intervals(tables: Tables) -> None:
    # The mean over the layers moves by -0.05 x the planted share; places 0 to 3.
    trend = np.polyfit(range(4), [-0.05 * share for _, share in ARMS], 1)[0]
    (row,) = _effects(tables, TREND).to_dict("records")
    assert row["low"] < trend < row["high"] < 0
    share = dict(ARMS)
    for _, row in _effects(tables, PAIR).iterrows():
        planted = -0.05 * (share[row["level_to"]] - share[row["level_from"]])
        assert row["low"] < planted < row["high"]


def _levels(draws: np.ndarray) -> Levels:
    """Levels of mean zero with these draws, the base's being zero."""
    with_base = np.concatenate([np.zeros((len(draws), 1, draws.shape[2])), draws], axis=1)
    count = with_base.shape[1]
    return Levels(np.zeros(with_base.shape[1:]), with_base, np.full(count, 2), count - 1)


def _pairs(count: int) -> list[np.ndarray]:
    unit = np.eye(count + 1)
    return [unit[1 + end] - unit[1 + start] for start, end in combinations(range(count), 2)]


@pytest.mark.parametrize("freedom", [4, np.inf])
def test_intervals_of_all_pairs_are_tukeys(freedom: float) -> None:
    random = np.random.default_rng(0)
    draws = random.standard_normal((60_000, 4, 2)) * [1.0, 3.0]
    if np.isfinite(freedom):
        draws *= np.sqrt(freedom / random.chisquare(freedom, size=(len(draws), 1, 1)))
    values, low, high = together(_levels(draws), _pairs(4))
    expected = stats.studentized_range.ppf(0.95, 4, freedom)  # of one mean's standard error
    assert values == pytest.approx(0.0)
    assert high[:, 0] == pytest.approx(np.full(6, expected), rel=0.03)
    assert high[:, 1] == pytest.approx(np.full(6, 3 * expected), rel=0.03)
    assert low == pytest.approx(-high)


def test_one_contrast_alone_keeps_its_own_interval() -> None:
    levels = _levels(np.random.default_rng(1).exponential(size=(4000, 2, 3)))
    (pair,) = _pairs(2)
    alone = levels.contrast(pair)
    for one, both in zip(alone, together(levels, [pair]), strict=True):
        assert both[0].tolist() == one.tolist()


def test_an_arm_without_a_value_is_not_compared_and_costs_the_others_nothing() -> None:
    draws = np.random.default_rng(2).standard_normal((20_000, 4, 1))
    missing = _levels(draws)
    missing.values[4], missing.draws[:, 4] = np.nan, np.nan
    values, low, high = (part[:, 0] for part in together(missing, _pairs(4)))
    without = together(_levels(draws[:, :3]), _pairs(3))
    there = [place for place, pair in enumerate(_pairs(4)) if pair[4] == 0]
    assert high[there] == pytest.approx(without[2][:, 0])
    others = [place for place in range(6) if place not in there]
    assert np.isnan([values[others], low[others], high[others]]).all()


def test_what_never_varies_has_an_interval_of_no_width() -> None:
    values, low, high = together(_levels(np.zeros((100, 3, 1))), _pairs(3))
    assert (values == 0).all()
    assert (low == 0).all()
    assert (high == 0).all()


def test_arms_that_do_not_differ_are_rarely_told_apart() -> None:
    random = np.random.default_rng(5)
    told_apart, count = 0, 400
    for trial in range(count):
        # Eight runs whose seeds are all their difference, and a base.
        values = np.r_[0.0, random.normal(0.5, 0.01, 8)][:, None]
        draws = np.broadcast_to(values, (500, 9, 1)).copy()
        levels = combine_seeds(
            values, draws, [0, 1, 1, 2, 2, 3, 3, 4, 4], [True, *[False] * 4], seed=trial
        )
        _, low, high = together(levels, _pairs(4))
        told_apart += bool(((low > 0) | (high < 0)).any())
    assert told_apart / count < 0.085  # 5 % is aimed at


def test_complex_groups_that_end_less_redundant_are_said_to(tables: Tables) -> None:
    headline, means, pairs, against, accuracy, covers = answer_sentences(tables)
    assert headline.startswith(
        "Along the arms, from relational to attribute, visual tokens become less redundant: the "
        "redundancy score changes by −0.0"
    )
    assert "8 runs, 2 seeds an arm, 40 held-out images" in headline
    assert means.startswith("Trained on relational, the redundancy score of visual tokens is 0.")
    assert "; on coarse it is 0." in means
    assert "before fine-tuning it is 0." in means
    assert means.endswith("The means fall from each arm to the next.")
    assert pairs.startswith("Of the 6 pairs of arms ")
    assert "attribute − relational −0.0" in pairs
    assert against.startswith("Against the base model, fine-tuning changed redundancy on ")
    assert accuracy.startswith("From arm relational to attribute, accuracy changes: ")
    assert "scene-graph object F1 +0." in accuracy
    assert "seed noise unknown" not in headline
    assert "images and training seeds" in covers
    assert "at every arm" in covers


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (-0.4, 0.1, "−0.200 [−0.400, +0.100]"),
        (-0.21, -0.19, "−0.200 [−0.210, −0.190]"),
        (-0.204, -0.196, "−0.2000 [−0.2040, −0.1960]"),
        (-0.200012, -0.200001, "−0.200000 [−0.200012, −0.200001]"),
        (-0.2, -0.2, "−0.200 [−0.200, −0.200]"),
        (np.nan, np.nan, "−0.200 (no interval)"),
    ],
)
def test_decimals_are_those_that_the_interval_warrants(low: float, high: float, text: str) -> None:
    row = pd.Series({"value": -0.2, "low": low, "high": high})
    assert with_interval(row, digits_of(row), signed=True) == text


def test_the_other_way_round_is_said_as_plainly(tmp_path: Path) -> None:
    sentences = answer_sentences(_tables_of(replace(SMALL, arms=ARMS[::-1]), tmp_path))
    assert "visual tokens become more redundant: " in sentences[0]
    assert sentences[1].endswith("The means rise from each arm to the next.")


def test_nothing_planted_is_within_the_noise(tmp_path: Path) -> None:
    nothing = replace(SMALL, effect=0.0, redundancy_change=0.0, seed_noise=0.05)
    sentences = answer_sentences(_tables_of(nothing, tmp_path))
    assert sentences[0].startswith(
        "Along the arms, from relational to attribute, visual tokens do not become less redundant "
        "beyond the noise: "
    )
    assert "none differs in redundancy beyond the noise; the largest difference is " in sentences[2]
    assert "changed redundancy on no arm beyond the noise: " in sentences[3]
    assert "accuracy changes in no task group beyond the noise: " in sentences[4]


def test_means_that_turn_are_not_called_a_row(tmp_path: Path) -> None:
    arms = tuple(zip(NAMES, (0.0, 1.0, 0.2, 0.9), strict=True))
    sentences = answer_sentences(_tables_of(replace(SMALL, arms=arms), tmp_path))
    assert "The means do not run in one direction along the arms." in sentences[1]


def test_the_verdict_is_the_trends_and_not_that_of_the_two_ends(tmp_path: Path) -> None:
    # The ends are alike, and still the later arms lie below the earlier ones.
    arms = tuple(zip(NAMES, (0.4, 0.0, 1.0, 0.5), strict=True))
    headline = answer_sentences(_tables_of(replace(SMALL, arms=arms), tmp_path))[0]
    assert "visual tokens become less redundant: " in headline
    assert "], by itself within the noise (8 runs" in headline


def test_an_arm_of_several_task_groups_has_their_mean(tmp_path: Path) -> None:
    fake = replace(SMALL, arms=(("coarse", 0.0), ("coarse-count", 1.0)), seeds=(0,))
    sweep = load_sweep(fake.write(tmp_path))
    assert sweep.groups_of(sweep.levels[1]) == ("coarse", "count")
    tables = build_tables(sweep)
    each = [_row(tables, "coarse-count", group, "exact")["value"] for group in ("coarse", "count")]
    own = _row(tables, "coarse-count", "coarse+count", "accuracy")["value"]
    assert own == pytest.approx(np.mean(each))
    # Two arms: the trend is their difference.
    difference, trend = (_effects(tables, name).iloc[0] for name in (DIFFERENCE, TREND))
    assert trend["value"] == pytest.approx(difference["value"])
    sentences = answer_sentences(tables)
    assert "seed noise unknown" in sentences[0]
    assert "no arm has a second seed" in sentences[-1]


def test_unfinished_arms_are_left_out_and_one_alone_is_compared_with_the_base(
    tmp_path: Path,
) -> None:
    sweep = load_sweep(replace(SMALL, unfinished=3).write(tmp_path))
    assert [level.id for level in sweep.levels] == ["relational", "coarse", "scene_graph"]
    assert sweep.missing == ("scene_graph,seed=1", "attribute,seed=0", "attribute,seed=1")
    tables = build_tables(sweep)
    assert "5 runs, 1 to 2 seeds an arm" in answer_sentences(tables)[0]
    assert len(_effects(tables, PAIR)) == 3
    one = load_sweep(replace(SMALL, unfinished=6).write(tmp_path / "one"))
    tables = build_tables(one)
    assert set(tables.effects["contrast"]) == {AGAINST_BASE}
    sentences = answer_sentences(tables)
    assert "Only one arm, relational, has finished" in sentences[0]
    assert sentences[1].startswith("Against the base model, ")


def test_trials_belong_to_their_arms(sweep: SweepResults) -> None:
    assert sweep.level_of_trials() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [level.label for level in sweep.levels] == NAMES
    assert all(isinstance(trial.trial, Trial) for trial in sweep.trials)
