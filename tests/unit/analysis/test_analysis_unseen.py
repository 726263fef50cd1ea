"""Answers that all agree are no proof: widths against closed forms, and coverage by simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_sweep import FakeSweep

from mixlens.analysis import answer_sentences, build_tables, load_sweep
from mixlens.analysis.agreement import agreement_gain, neighbour_agreement
from mixlens.analysis.deletion import deletion_table
from mixlens.analysis.effect import together
from mixlens.analysis.tables import Tables
from mixlens.statistics.intervals import (
    Levels,
    Sums,
    Unseen,
    combine_seeds,
    difference_intervals,
    image_weights,
    unseen,
)

SCORES = ["exact", "relaxed", "object_f1", "object_precision", "object_recall"]
RANDOM = np.random.default_rng(0)


def levels_of_answers(answers: np.ndarray, resamples: int = 1000) -> Levels:
    """Of [levels, images, columns] scores in [0, 1], a run a level."""
    levels, images, columns = answers.shape
    weights = image_weights(images, resamples)
    sums = [Sums.of(one) for one in answers]
    values = np.stack([one.mean() for one in sums])
    draws = np.stack([one.replicates(weights) for one in sums], axis=1)
    found = combine_seeds(values, draws, list(range(levels)), [False] * levels)
    counts = np.full((levels, columns), images)
    made_of = [(column,) for column in range(columns)]
    parts = Unseen.of(values, counts, made_of, np.ones(columns, dtype=bool))
    return Levels(found.values, found.draws, found.seeds, found.freedom, parts)


def newcombe(right: tuple[float, float], images: int) -> tuple[float, float]:
    """Newcombe 1998, method 10, without correlation: from the Wilson limits of both shares."""
    z2 = 1.959964**2
    ends = []
    for count in right:
        share = count / images
        middle, half = (
            (share + z2 / 2 / images),
            np.sqrt(share * (1 - share) * z2 / images + z2**2 / 4 / images**2),
        )
        ends.append(((middle - half) / (1 + z2 / images), (middle + half) / (1 + z2 / images)))
    (low, high), (low_of_other, high_of_other) = ends
    one, other = (count / images for count in right)
    return (
        one - other - np.hypot(one - low, high_of_other - other),
        one - other + np.hypot(high - one, other - low_of_other),
    )


def tango(images: int) -> float:
    """Tango 1998 where no pair differs: z² = n d² / (d (1 - d)), so d = z² / (n + z²)."""
    return 1.959964**2 / (images + 1.959964**2)


@pytest.mark.case
@pytest.mark.parametrize("images", [8, 16, 50, 192])
@pytest.mark.parametrize("right", [(1, 1), (0, 0), (0, 1)])
def test_two_levels_at_their_bounds_differ_as_the_score_interval_says(images: int, right: tuple):
    answers = np.stack([np.full((images, 1), float(share)) for share in right])
    levels = levels_of_answers(answers)
    value, low, high = (part[0] for part in levels.contrast((1.0, -1.0)))
    expected = newcombe(tuple(images * share for share in right), images)
    assert value == right[0] - right[1]
    assert low == pytest.approx(max(expected[0], -1), abs=0.2 * unseen(np.array(images)))
    assert high == pytest.approx(min(expected[1], 1), abs=0.2 * unseen(np.array(images)))
    # As uncertain as its ends, and by the same rule.
    level_low, level_high = (end[:, 0] for end in levels.interval())
    if right[0] == right[1]:
        assert high - low == pytest.approx(2 * (level_high - level_low)[0])


@pytest.mark.case
@pytest.mark.parametrize("images", [8, 16, 50, 192])
def test_models_that_answer_all_images_alike_differ_as_the_paired_score_says(images: int):
    answers = RANDOM.integers(0, 2, (images, 1)).astype(float)
    answers[:2, 0] = (0.0, 1.0)
    levels = levels_of_answers(np.stack([answers, answers]))
    value, low, high = (part[0] for part in levels.contrast((1.0, -1.0)))
    assert value == 0
    assert high == -low == pytest.approx(unseen(np.array(images)))
    assert high == pytest.approx(tango(images), rel=0.15)
    # Each level by itself is as before.
    plain = Levels(levels.values, levels.draws, levels.seeds, levels.freedom)
    np.testing.assert_array_equal(levels.interval(), plain.interval())


@pytest.mark.parametrize(("first", "second"), [(0.99, 0.99), (1.0, 0.97), (0.99, 0.9), (0.5, 0.5)])
@pytest.mark.parametrize("images", [16, 64])
def test_differences_are_covered_also_near_the_bounds(first: float, second: float, images: int):
    """Columns are 1500 sweeps; before, 0.99 against 0.97 of 16 images was held in a quarter."""
    random = np.random.default_rng([images, int(100 * first), int(100 * second)])
    shares = np.array([first, second])[:, None, None]
    answers = (random.random((2, images, 1500)) < shares).astype(float)
    levels = levels_of_answers(answers, 600)
    _, low, high = levels.contrast((1.0, -1.0))
    covered = (low <= first - second) & (first - second <= high)
    assert covered.mean() >= 0.93
    plain = Levels(levels.values, levels.draws, levels.seeds, levels.freedom)
    _, plain_low, plain_high = plain.contrast((1.0, -1.0))
    assert ((low <= plain_low) & (high >= plain_high)).all()


def test_paired_models_are_covered_where_few_images_tell_them_apart():
    """Both right on 90 %; in one image of 40 just one of them, the first twice as often."""
    random = np.random.default_rng(3)
    images, sets, differ = 30, 1500, 0.025
    lot = random.random((images, sets))
    both = (random.random((images, sets)) < 0.9).astype(float)
    answers = np.stack([np.where(lot < differ * 2 / 3, 1.0, both), both.copy()])
    answers[1][lot < differ * 2 / 3] = 0.0
    answers[0][(lot >= differ * 2 / 3) & (lot < differ)] = 0.0
    answers[1][(lot >= differ * 2 / 3) & (lot < differ)] = 1.0
    levels = levels_of_answers(answers, 400)
    _, low, high = levels.contrast((1.0, -1.0))
    truth = differ / 3
    plain = Levels(levels.values, levels.draws, levels.seeds, levels.freedom).contrast((1.0, -1.0))
    # Not 95 %: with one such image the bootstrap knows one direction only.
    assert ((low <= truth) & (truth <= high)).mean() > 0.85
    assert ((plain[1] <= truth) & (truth <= plain[2])).mean() < 0.6


def test_other_contrasts_stay_what_they_were():
    answers = (RANDOM.random((3, 40, 5)) < 0.7).astype(float)
    levels = levels_of_answers(answers)
    plain = Levels(levels.values, levels.draws, levels.seeds, levels.freedom)
    for weights in ((1.0, -1.0, 0.0), (-0.5, 0.0, 0.5), (1.0, -2.0, 1.0)):
        np.testing.assert_allclose(levels.contrast(weights), plain.contrast(weights), atol=1e-12)


def test_a_mean_of_groups_is_as_uncertain_as_its_groups():
    images = np.array([[16, 40]])
    parts = np.array([[1.0, 0.6]])
    found = Unseen.of(parts, images, [(0,), (1,), (0, 1)], np.ones(3, dtype=bool))
    share = unseen(np.array(16))
    np.testing.assert_allclose(found.below, [[share, 0.0, share / 2]])
    np.testing.assert_allclose(found.above, np.zeros((1, 3)))
    unbounded = Unseen.of(parts, images, [(0,)], np.zeros(1, dtype=bool))
    assert not unbounded.below.any()


@pytest.mark.case
def test_several_contrasts_at_once_are_wider_than_each_alone():
    levels = levels_of_answers(np.ones((3, 20, 1)))
    pairs = [np.array(pair) for pair in ((1.0, -1.0, 0.0), (1.0, 0.0, -1.0), (0.0, 1.0, -1.0))]
    _, low, high = together(levels, pairs)
    alone = levels.contrast(pairs[0])
    assert (low < alone[1]).all()
    assert (high > alone[2]).all()
    # Bonferroni: each tail is shared by three.
    assert high[0, 0] == pytest.approx(1 - (0.025 / 3) ** (1 / 20), rel=0.15)


@pytest.mark.case
def test_deletion_that_costs_no_answer_is_no_proof_either():
    images = [f"image {place}" for place in range(16)]
    rows = [
        {"layer": -1, "policy": policy, "share": share, "seed": seed, "example_id": name,
         "group": "coarse", "object_count": 3, "exact": 1.0, "relaxed": 1.0, "tokens": 64,
         "tokens_kept": 64.0, "prefill_s_per_image": 0.1, "peak_bytes": np.nan}
        for policy, share, seed in (("random", 0.0, 0), ("random", 0.5, 0), ("norm", 0.5, -1))
        for name in images
    ]  # fmt: skip
    table = deletion_table(pd.DataFrame(rows))
    row = table[(table["policy"] == "norm") & (table["group"] == "all")].iloc[0]
    off = float(unseen(np.array(16)))
    assert (row["against_random"], row["value"], row["high"]) == (0.0, 1.0, 1.0)
    assert row["low"] == pytest.approx(1 - off)
    assert (row["against_low"], row["against_high"]) == pytest.approx((-off, off))


def test_paired_differences_of_scores_follow_the_same_rule():
    asked = np.ones((20, 4))
    first, second = np.ones((20, 4)), np.ones((20, 4))
    second[:, 1] = 0.0
    first[:, 2] = second[:, 2] = np.arange(20) % 2
    second[:10, 3] = 0.0
    weights = image_weights(20)
    value, low, high = difference_intervals(Sums(first, asked), Sums(second, asked), weights)
    off = float(unseen(np.array(20)))
    np.testing.assert_allclose(value, [0, 1, 0, 0.5])
    np.testing.assert_allclose(low[:3], [-off, 1 - np.sqrt(2) * off, -off])
    np.testing.assert_allclose(high[:3], [off, 1, off])
    assert low[3] < 0.5 - off


@pytest.mark.case
def test_neighbours_that_are_all_alike_leave_some_doubt():
    points = np.concatenate([RANDOM.normal(0, 0.1, (20, 2)), RANDOM.normal(9, 0.1, (20, 2))])
    names = np.repeat(["red", "blue"], 20)
    whole = neighbour_agreement(points, names)
    assert whole.value == whole.high == 1.0
    any_two = 20 / 39  # of the 39 others, 20 have the other name
    assert whole.low == pytest.approx(1 - unseen(np.array(40)) / any_two)
    gain, low, high = agreement_gain(whole, whole)
    assert gain == 0
    assert high == -low == pytest.approx(1 - whole.low)


@pytest.fixture(scope="module")
def all_right(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """A sweep whose every answer is right; tokens differ."""
    fake = FakeSweep(ratios=(0.0, 1.0), seeds=(0, 1), images=16, layers=3, steps=5)
    folder = fake.write(tmp_path_factory.mktemp("runs"))
    for file in folder.glob("**/examples.parquet"):
        table = pd.read_parquet(file)
        scored = table[SCORES].notna()
        table[SCORES] = table[SCORES].where(~scored, 1.0)
        table.to_parquet(file, index=False)
    return build_tables(load_sweep(folder))


@pytest.mark.case
def test_no_number_of_a_sweep_is_certain_because_all_is_right(all_right: Tables):
    off = float(unseen(np.array(16)))
    effects = all_right.effects
    for group in ("coarse", "relational"):
        rows = effects[(effects["subject"] == group) & (effects["metric"] == "exact")]
        assert set(rows["contrast"]) == {"difference", "trend", "against base"}
        assert (rows["low"] < 0).all()
        assert (rows["high"] > 0).all()
        row = rows[rows["contrast"] == "difference"].iloc[0]
        assert (row["low"], row["high"]) == pytest.approx((-off, off))
    sweep = all_right.sweep
    level = sweep[(sweep["subject"] == "coarse") & (sweep["metric"] == "exact")]
    np.testing.assert_allclose(level["low"], 1 - off)
    np.testing.assert_allclose(level["high"], 1.0)


@pytest.mark.case
def test_the_recommendation_knows_what_no_image_showed(all_right: Tables):
    table = all_right.recommendation
    # Complex accuracy is the mean of two groups, each of which may be off by as much.
    off = float(unseen(np.array(16)) / np.sqrt(2))
    np.testing.assert_allclose(table["low"], 1 - off)
    assert 0.5 * off < table["noise"].iloc[0] < 1.2 * off
    assert not table["is_distinguishable"].any()
    assert (table["gap_low"] < -0.3 * off).all()
    assert (table["probability"] > 0.02).all()
    assert (table["simple_change_low"].iloc[1], table["simple_change_high"].iloc[1]) == (
        pytest.approx((-off, off))
    )
    text = " ".join(answer_sentences(all_right))
    assert "noise alone makes differences up to 0.000" not in text
    assert "0.000 [0.000, 0.000]" not in text


def test_the_arms_of_a_sweep_are_judged_alike(tmp_path: Path):
    arms = (("coarse", 0.0), ("count", 0.5), ("relational", 1.0))
    fake = FakeSweep(
        arms=arms, seeds=(0,), images=16, layers=3, steps=5, groups=("coarse", "count")
    )
    folder = fake.write(tmp_path)
    for file in folder.glob("**/examples.parquet"):
        table = pd.read_parquet(file)
        table.assign(exact=0.0, relaxed=0.0).to_parquet(file, index=False)
    effects = build_tables(load_sweep(folder)).effects
    some = effects[effects["metric"] == "exact"]
    assert set(some["contrast"]) == {"difference", "trend", "pair", "against base"}
    assert (some["high"] - some["low"] > 0.1).all()
