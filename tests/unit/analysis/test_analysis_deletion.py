"""The table of deletion against means taken directly and differences that were planted."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from mixlens.analysis.deletion import DELETION_COLUMNS, bin_start, deletion_table, object_bin
from mixlens.probing.deletion import DELETED
from mixlens.report.deletion_figures import deletion_curves
from mixlens.report.style import STYLE, svg

IMAGES = 60
KEPT = {0.0: 64, 0.5: 32, 0.75: 16}


def planted(layers=(-1, 2), gain=0.3) -> pd.DataFrame:
    """Random answers: norm is right `gain` more often than random, in counting only."""
    random = np.random.default_rng(5)
    count = random.integers(1, 12, IMAGES)
    questions = [
        (image, group)
        for image in range(IMAGES)
        for group, times in (("count", 2), ("locate", 1 + image % 3))
        for _ in range(times)
    ]
    rows = []

    def ask(layer, policy, share, seed, right):
        for number, (image, group) in enumerate(questions):
            chance = right + (gain if policy == "norm" and group == "count" else 0)
            hit = float(random.random() < chance)
            rows.append(
                {
                    "layer": layer, "policy": policy, "share": share, "seed": seed,
                    "example_id": f"scenes/{image}", "object_count": float(count[image]),
                    "group": group, "kind": group, "exact": hit if group == "count" else 0.0,
                    "relaxed": hit, "tokens": 64, "tokens_kept": KEPT[share] + number % 2,
                    "prefill_s_per_image": 0.5 - share / 4 + (9 if image == 0 else 0),
                    "peak_bytes": 1000.0 * KEPT[share],
                }
            )  # fmt: skip

    ask(-1, "random", 0.0, -1, 0.6)
    for share in (0.5, 0.75):
        for layer in layers:
            for seed in (0, 1, 2):
                ask(layer, "random", share, seed, 0.5 - share / 4)
            ask(layer, "norm", share, -1, 0.5 - share / 4)
        ask(-1, "downsampling", share, -1, 0.2)
    return pd.DataFrame(rows)[DELETED.names]


@pytest.fixture(scope="module")
def results():
    return planted()


@pytest.fixture(scope="module")
def table(results):
    return deletion_table(results)


def row(table, layer, policy, share, seed=-1, group="all", objects="all"):
    found = table[
        (table["layer"] == layer) & (table["policy"] == policy) & (table["share"] == share)
        & (table["seed"] == seed) & (table["group"] == group) & (table["objects"] == objects)
    ]  # fmt: skip
    assert len(found) == 1
    return found.iloc[0]


def test_bins_of_object_counts():
    names = [object_bin(count) for count in (0, 1, 2, 3, 5, 6, 10, 20, 21, 100, 200, 201)]
    assert names == [
        "0", "1-2", "1-2", "3-5", "3-5", "6-10", "6-10", "11-20", "21-50", "51-100", "101-200",
        "over 200",
    ]  # fmt: skip
    assert sorted({*names, "all"}, key=bin_start) == ["all", *dict.fromkeys(names)]
    assert object_bin(np.nan) == ""


def test_every_cell_is_the_mean_over_its_questions(results, table):
    assert tuple(table.columns) == DELETION_COLUMNS
    results = results.assign(
        objects=results["object_count"].map(object_bin),
        score=results["relaxed"].where(results["group"] == "locate", results["exact"]),
    )
    checked = 0
    for one in table.itertuples():
        layer = -1 if one.share == 0 else one.layer
        some = results[
            (results["layer"] == layer)
            & (results["policy"] == one.policy)
            & (results["share"] == one.share)
        ]
        some = some if one.seed == -1 else some[some["seed"] == one.seed]
        some = some if one.group == "all" else some[some["group"] == one.group]
        some = some if one.objects == "all" else some[some["objects"] == one.objects]
        assert one.value == pytest.approx(some["score"].mean())
        assert one.n == some["example_id"].nunique()
        first = some.drop_duplicates(["seed", "example_id"])
        assert one.tokens_kept == pytest.approx(first["tokens_kept"].mean(), abs=1)
        assert one.low <= one.value <= one.high
        checked += 1
    # Groups and "all", by 4 bins and "all": one, two and two settings; seeds without the bins.
    cells, totals = 3 * 5, 3
    assert checked == 2 * cells + 4 * (2 * cells + 3 * totals) + 2 * cells


def test_nothing_deleted_stands_at_every_place(table):
    first, second = (row(table, layer, "random", 0.0) for layer in (-1, 2))
    assert first.drop("layer").equals(second.drop("layer"))
    assert first["note"] == "nothing deleted"
    assert first["tokens_kept"] >= 64


def test_differences_to_random_are_paired_and_cover_what_was_planted(results, table):
    covered = 0
    for layer in (-1, 2):
        for share in (0.5, 0.75):
            norm = row(table, layer, "norm", share, group="count")
            mean = row(table, layer, "random", share, group="count")["value"]
            seeds = [
                row(table, layer, "random", share, seed, group="count")["value"]
                for seed in (0, 1, 2)
            ]
            assert mean == pytest.approx(np.mean(seeds))
            assert norm["against_random"] == pytest.approx(norm["value"] - mean)
            assert norm["against_low"] < 0.3 < norm["against_high"]
            assert norm["against_low"] > 0.1
            other = row(table, layer, "norm", share, group="locate")
            covered += bool(other["against_low"] < 0 < other["against_high"])
    assert covered >= 3  # of four 95 % intervals


def test_what_images_share_cancels_in_a_difference():
    results = planted(layers=(-1,), gain=0.0)
    hard = results["example_id"].str.removeprefix("scenes/").astype(int) < IMAGES / 2
    results["exact"] = results["relaxed"] = np.where(hard, 0.0, 1.0)
    norm = results["policy"] == "norm"
    easier = norm & (results["example_id"].isin([f"scenes/{i}" for i in range(6)]))
    results.loc[easier, ["exact", "relaxed"]] = 1.0
    one = row(deletion_table(results), -1, "norm", 0.5)
    assert one["high"] - one["low"] > 0.2
    assert one["against_high"] - one["against_low"] < 0.8 * (one["high"] - one["low"])
    assert 0.02 < one["against_low"] < 0.1 < one["against_high"] < 0.25


def test_random_is_held_against_nothing_and_missing_values_are_explained(results):
    table = deletion_table(results[(results["layer"] == -1) | (results["policy"] == "random")])
    random = table[table["policy"] == "random"]
    assert random[["against_random", "against_low", "against_high"]].isna().all(axis=None)
    alone = deletion_table(planted(layers=(2,)))
    smaller = alone[alone["policy"] == "downsampling"]
    assert smaller["against_random"].isna().all()
    assert smaller["note"].str.contains("no random deletion at this layer").all()
    assert smaller["note"].str.contains("the image shrunk to give 3[0-9.]+ of 64").any()


def test_one_image_has_no_interval(results):
    one = deletion_table(results[results["example_id"] == "scenes/3"])
    both = one[(one["value"] > 0) & (one["value"] < 1) & (one["seed"] == -1)]
    assert len(both)
    assert both[["low", "high"]].isna().all(axis=None)
    assert one.loc[one["seed"] == -1, "note"].str.contains("no interval from one image").all()


def test_time_is_a_median_and_memory_a_mean(table):
    half = row(table, -1, "random", 0.5)
    assert half["prefill_s_per_image"] == pytest.approx(0.375)
    assert half["peak_bytes"] == 32000


def test_unknown_object_counts_are_in_all_alone(results):
    table = deletion_table(results.assign(object_count=np.nan))
    assert set(table["objects"]) == {"all"}


def test_no_results_give_an_empty_table():
    assert deletion_table(DELETED.empty_table()).empty
    assert deletion_curves(deletion_table(DELETED.empty_table())) is None


def test_the_figure_has_a_panel_for_what_there_is(table):
    with mpl.rc_context(dict(STYLE)):
        figure = deletion_curves(table)
        titles = [axis.get_title(loc="left")[3:] for axis in figure.axes]
        assert titles == [
            "Random deletion, by task",
            "Random deletion, by object count",
            "Random deletion, by place",
            "Policies against random",
            "Policies against random",
            "Time to read an image",
        ]
        first = figure.axes[0]
        lines = {line.get_label(): line for line in first.get_lines()}
        expected = [row(table, -1, "random", share, group="count")["value"] for share in KEPT]
        assert list(lines["counting"].get_ydata()) == pytest.approx(expected)
        assert [tick.get_text() for tick in first.get_xticklabels()] == ["0", "50", "75"]
        plain = deletion_curves(table[(table["policy"] == "random") & (table["layer"] == -1)])
        assert len(plain.axes) == 3
        assert svg(figure).startswith(b"<?xml")
