"""Tables of a simulated sweep against direct computation, and reading run directories."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_parts import table_file
from fake_sweep import FakeSweep

from mixlens.analysis import answer_sentences, build_tables, load_sweep
from mixlens.analysis.effect import AGAINST_BASE, DIFFERENCE, TREND, find_effect
from mixlens.analysis.results import SweepResults
from mixlens.analysis.tables import Tables
from mixlens.design import Layout, asked_trials
from mixlens.errors import DataError
from mixlens.measurement import base_of, trial_of

SMALL = FakeSweep(ratios=(0.0, 0.5, 1.0), images=40, layers=6, steps=20)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepResults:
    return load_sweep(SMALL.write(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def tables(sweep: SweepResults) -> Tables:
    return build_tables(sweep)


def _tables_of(fake: FakeSweep, folder: Path) -> Tables:
    return build_tables(load_sweep(fake.write(folder)))


def test_accuracy_is_the_mean_over_questions(sweep: SweepResults, tables: Tables) -> None:
    table = tables.accuracy.set_index(["run", "group", "metric"])
    for run in (sweep.base, sweep.trials[3]):
        for group, rows in run.examples.groupby("group"):
            row = table.loc[run.name, group, "exact"]
            assert row["value"] == pytest.approx(rows["exact"].mean())
            assert row["low"] <= row["value"] <= row["high"]
            assert row["n"] == 40
    assert table.loc[("base", "relational", "exact"), "chance"] == pytest.approx(0.5)
    assert table.loc[("base", "coarse", "exact"), "chance"] == pytest.approx(0.1)
    assert np.isnan(table.loc[("base", "scene_graph", "exact"), "chance"])
    # A score that a group does not have is no row, not a zero.
    assert ("base", "coarse", "object_f1") not in table.index
    assert not tables.accuracy.duplicated(["run", "group", "metric"]).any()


def test_layers_hold_single_image_means_and_pooled_scores(
    sweep: SweepResults, tables: Tables
) -> None:
    keys = ["stream", "layer", "metric"]
    run = sweep.trials[0]
    table = tables.layers[tables.layers["run"] == run.name].set_index(keys)
    means = run.image_metrics.groupby(keys)["value"].mean()
    assert table.loc[("visual", 2, "gini"), "value"] == pytest.approx(means["visual", 2, "gini"])
    pooled = run.pooled_metrics.set_index(keys).loc[("visual", 2, "redundancy_score")]
    row = table.loc[("visual", 2, "redundancy_score")]
    assert row[["value", "low", "high"]].tolist() == pooled[["value", "low", "high"]].tolist()
    excess = means["visual", 2, "redundancy_score"] - means["pixels", -1, "redundancy_score"]
    assert table.loc[("visual", 2, "redundancy_excess"), "value"] == pytest.approx(excess)
    assert table.index.is_unique
    assert set(tables.layers["stage"]) == {"base", "trained"}


def test_the_sweep_table_averages_seeds_and_depth(sweep: SweepResults, tables: Tables) -> None:
    keys = ["level", "subject", "metric", "part"]
    table = tables.sweep[tables.sweep["part"] != "layer"].set_index(keys).sort_index()
    runs = [run for run in sweep.trials if run.level == "ratio=0.5"]
    scores = [run.examples[run.examples["group"] == "relational"]["exact"].mean() for run in runs]
    row = table.loc[("ratio=0.5", "relational", "exact", "")]
    assert row["value"] == pytest.approx(np.mean(scores))
    assert (row["n_images"], row["n_seeds"], row["covers"]) == (40, 2, "images and seeds")

    def depth(run, layers):
        some = run.image_metrics
        some = some[(some["stream"] == "visual") & (some["metric"] == "redundancy_score")]
        return some[some["layer"].isin(layers)]["value"].mean()

    for part, layers in (("mean", range(6)), ("early", (0, 1)), ("late", (4, 5))):
        expected = np.mean([depth(run, layers) for run in runs])
        value = table.loc[("ratio=0.5", "visual", "redundancy_score", part), "value"]
        assert value == pytest.approx(expected)
    f1 = table.loc[("ratio=0.5", "scene_graph", "object_f1", ""), "value"]
    both = table.loc[("ratio=0.5", "complex", "accuracy", ""), "value"]
    assert both == pytest.approx((f1 + row["value"]) / 2)
    assert not tables.sweep.duplicated([*keys, "layer"]).any()


def test_effects_find_what_was_simulated(tables: Tables) -> None:
    row = find_effect(tables.effects, DIFFERENCE, "visual", "redundancy_score", "mean")
    assert row is not None
    assert row["low"] < -0.05 < row["high"] < 0
    slope = find_effect(tables.effects, TREND, "visual", "redundancy_score", "mean")
    assert slope is not None
    assert slope["low"] < -0.05 < slope["high"] < 0
    text = find_effect(tables.effects, DIFFERENCE, "text", "redundancy_score", "mean")
    assert text is not None
    assert text["low"] < 0 < text["high"]
    against = tables.effects[tables.effects["contrast"] == AGAINST_BASE]
    assert list(against["level_to"].unique()) == ["ratio=0", "ratio=0.5", "ratio=1"]
    assert find_effect(tables.effects, DIFFERENCE, "visual", "no such metric") is None


def test_the_answer_names_effect_and_sufficient_ratio(tables: Tables) -> None:
    sentences = answer_sentences(tables)
    assert sentences[0].startswith(
        "Raising the share of complex data from 0 to 1 lowered the redundancy score of visual "
    )
    assert "6 runs, 2 seeds a ratio, 40 held-out images" in sentences[0]
    assert any("A ratio of 0.5 [0.5, " in sentence for sentence in sentences)
    assert "images and training seeds" in sentences[-1]


def test_the_answer_says_when_nothing_happened(tmp_path: Path) -> None:
    nothing = replace(SMALL, effect=0.0, redundancy_change=0.0, seed_noise=0.05)
    sentences = answer_sentences(_tables_of(nothing, tmp_path))
    assert "did not change the redundancy score of visual tokens beyond the noise" in sentences[0]
    text = " ".join(sentences)
    assert "no ratio differs from another beyond the noise" in text
    assert "does not tell which ratio is enough" in text


def test_one_seed_says_what_the_interval_leaves_out(tmp_path: Path) -> None:
    tables = _tables_of(replace(SMALL, seeds=(3,)), tmp_path)
    assert set(tables.sweep["covers"]) == {"images"}
    sentences = answer_sentences(tables)
    assert "the noise of training is not in them" in sentences[-1]
    assert "(seed noise unknown)." in sentences[-2]


def test_one_ratio_is_compared_with_the_base_only(tmp_path: Path) -> None:
    tables = _tables_of(replace(SMALL, ratios=(0.5,)), tmp_path)
    assert set(tables.effects["contrast"]) == {AGAINST_BASE}
    sentences = answer_sentences(tables)
    assert "Only one ratio, 0.5, has finished" in sentences[0]
    assert "nothing to choose between" in " ".join(sentences)


def test_a_group_that_was_not_asked_is_left_out(tmp_path: Path) -> None:
    tables = _tables_of(replace(SMALL, groups=("coarse", "attribute")), tmp_path)
    assert set(tables.accuracy["group"]) == {"coarse", "attribute"}
    assert tables.recommendation.empty
    assert "No complex task group was measured" in " ".join(answer_sentences(tables))


def test_a_metric_without_values_is_blank_everywhere(tmp_path: Path) -> None:
    folder = SMALL.write(tmp_path)
    file = table_file(base_of(SMALL.spec(tmp_path), folder), "image_metrics")
    table = pd.read_parquet(file)
    table.loc[(table["metric"] == "gini") & (table["stream"] == "visual"), "value"] = np.nan
    table.to_parquet(file)
    tables = build_tables(load_sweep(folder))
    base = tables.layers[(tables.layers["run"] == "base") & (tables.layers["metric"] == "gini")]
    visual = base[base["stream"] == "visual"]
    assert visual[["value", "low", "high"]].isna().all(axis=None)
    assert (visual["n"] == 0).all()
    assert base[base["stream"] == "text"]["value"].notna().all()


def test_what_the_base_cannot_have_is_still_told_of_the_trials(
    sweep: SweepResults, tables: Tables
) -> None:
    # Such as the alignment with the base: the same numbers as before, but none of the base.
    metric = "gini"
    rows = sweep.base.image_metrics
    measured = replace(sweep.base.measured, image_metrics=rows[rows["metric"] != metric])
    base = replace(sweep.base, measured=measured)
    without = build_tables(replace(sweep, base=base))
    key = ["level", "subject", "metric", "part", "layer"]
    before, after = (
        table[table["metric"] == metric].set_index(key)["value"]
        for table in (tables.sweep, without.sweep)
    )
    assert after["base"].isna().all()
    for ratio in ("ratio=0", "ratio=0.5", "ratio=1"):
        assert before[ratio].notna().all()
        pd.testing.assert_series_equal(after[ratio], before[ratio])
    rows = without.effects[without.effects["metric"] == metric].set_index("contrast")
    assert rows.loc[[DIFFERENCE, TREND], "low"].notna().all()
    assert (rows.loc[[DIFFERENCE, TREND], "n_images"] == 40).all()
    assert rows.loc[AGAINST_BASE, "value"].isna().all()
    assert (rows.loc[AGAINST_BASE, "n_images"] == 0).all()


def test_tables_are_written_and_read_back(tables: Tables, tmp_path: Path) -> None:
    tables.write(tmp_path)
    assert {file.stem for file in tmp_path.glob("*.parquet")} == set(Tables.__dataclass_fields__)
    again = pd.read_parquet(tmp_path / "sweep.parquet")
    pd.testing.assert_frame_equal(again, tables.sweep, check_dtype=False)


def test_unfinished_and_stale_trials_are_not_read(tmp_path: Path) -> None:
    folder = replace(SMALL, unfinished=1).write(tmp_path)
    replace(SMALL, steps=25, ratios=(0.0,)).write(tmp_path / "other")
    stale = next((tmp_path / "other" / "fake" / "trials").iterdir())
    stale.rename(folder / "trials" / stale.name)  # of the same name, made by another sweep file
    sweep = load_sweep(folder)
    assert sweep.missing == ("ratio=1,seed=1",)
    assert [run.name for run in sweep.trials][:2] == ["ratio=0,seed=0", "ratio=0,seed=1"]
    assert len(sweep.trials) == 5
    assert "5 runs, 1 to 2 seeds a ratio" in answer_sentences(build_tables(sweep))[0]
    assert len(sweep.trials[0].training) == 4


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no sweep\.json"):
        load_sweep(tmp_path)
    folder = SMALL.write(tmp_path)
    spec = SMALL.spec(tmp_path)
    layout = Layout(folder)
    examples = table_file(trial_of(spec, folder, asked_trials(spec)[1]), "examples")
    table = pd.read_parquet(examples)
    table[table["example_id"] != table["example_id"].iloc[0]].to_parquet(examples)
    with pytest.raises(DataError, match="39 images, 39 of them also the base's"):
        load_sweep(folder)
    examples.write_bytes(b"PAR1 cut short")
    with pytest.raises(DataError, match=r"examples\.parquet.*damaged"):
        load_sweep(folder)
    for trial in asked_trials(spec):
        (layout.trial(trial) / "trained.json").unlink()
    with pytest.raises(DataError, match="0 of 6 trials finished"):
        load_sweep(folder)
    base = base_of(spec, folder).folder
    base.rename(base.with_name("base-of-another-sweep-file"))
    with pytest.raises(DataError, match="the measurement is not finished"):
        load_sweep(folder)
    (folder / "sweep.json").write_text('{"name": "x"}')
    with pytest.raises(DataError, match=r"sweep\.json.*damaged, or of another version"):
        load_sweep(folder)
