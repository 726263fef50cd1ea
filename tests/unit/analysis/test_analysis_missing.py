"""What could not be estimated is said: where, in how many images, and what the others say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fake_measured import FakeMeasured
from fake_parts import part_of, table_file
from fake_sweep import FakeSweep

from mixlens.analysis import answer_sentences, build_tables, load_sweep
from mixlens.analysis.diagnosis import diagnose
from mixlens.analysis.measured import model_tables
from mixlens.analysis.measurement import load_measured
from mixlens.analysis.tables import Tables
from mixlens.analysis.transfer_answer import transfer_sentences
from mixlens.analysis.transfer_build import sides_of
from mixlens.design import asked_trials
from mixlens.measurement import base_of, trial_of

SCORE = "redundancy_score"


def _sweep(folder: Path, lost: dict[str, set[int | str]], **knobs) -> Tables:
    """Tables of a sweep in which a trial whose name begins so lost the layers or groups named."""
    fake = FakeSweep(**{"seeds": (0,), "images": 16, "layers": 3, "steps": 5} | knobs)
    root = fake.write(folder)
    spec = fake.spec(folder)
    for begin, what in lost.items():
        of_trials = [
            trial_of(spec, root, trial) for trial in asked_trials(spec) if trial.level.id == begin
        ]
        for measured in of_trials or [base_of(spec, root)]:
            for name in ("image_metrics", "pooled_metrics"):
                file = table_file(measured, name)
                table = pd.read_parquet(file)
                gone = (table["metric"] == SCORE) & (table["stream"] == "visual")
                gone &= table["layer"].isin([one for one in what if isinstance(one, int)])
                columns = [one for one in ("value", "low", "high") if one in table]
                table.loc[gone, columns] = np.nan
                table.to_parquet(file, index=False)
            file = table_file(measured, "examples")
            table = pd.read_parquet(file)
            gone = table["group"].isin([one for one in what if isinstance(one, str)])
            table.loc[gone, ["exact", "relaxed", "object_f1"]] = np.nan
            table.to_parquet(file, index=False)
    return build_tables(load_sweep(root))


@pytest.mark.case
def test_a_ratio_without_a_value_is_named_and_the_others_compared(tmp_path: Path):
    tables = _sweep(tmp_path, {"ratio=1": {0, 1, 2}}, ratios=(0.0, 0.5, 1.0))
    headline, *rest = answer_sentences(tables)
    assert headline.startswith("Raising the share of complex data from 0 to 0.5 ")
    assert headline.endswith(
        "The redundancy score of visual tokens could not be estimated at ratio 1 (0 of 16 images "
        "have a value at every layer)."
    )
    assert "Only one" not in " ".join([headline, *rest])
    # Accuracy was measured at all of them.
    row = tables.effects[(tables.effects["contrast"] == "difference")
                         & (tables.effects["subject"] == "coarse")].iloc[0]  # fmt: skip
    assert (row["level_from"], row["level_to"], row["n_runs"]) == ("ratio=0", "ratio=1", 3)


@pytest.mark.parametrize(
    ("lost", "start"),
    [
        ({"ratio=0": {1}}, "Raising the share of complex data from 0.5 to 1 "),
        ({"ratio=0.5": {2}}, "Raising the share of complex data from 0 to 1 "),
        (
            {"ratio=0": {0}, "ratio=1": {0}},
            "The redundancy of visual tokens could be estimated at one ratio only, 0.5, so the "
            "effect of the ratio is unknown; against the base model, fine-tuning changed",
        ),
        (
            {"ratio=0": {0}, "ratio=0.5": {1}, "ratio=1": {0}},
            "The effect of the ratio on the redundancy of visual tokens is unknown. The redundancy "
            "score of visual tokens could not be estimated at ratio 0 (0 of 16",
        ),
        (
            {"ratio=0": {0}, "ratio=1": {0}, "base": {0}},
            "The redundancy of visual tokens could be estimated at one ratio only, 0.5, so the "
            "effect of the ratio is unknown; nor could it be estimated for the base model.",
        ),
    ],
)
def test_whatever_is_missing_is_named(tmp_path: Path, lost: dict, start: str):
    tables = _sweep(tmp_path, lost, ratios=(0.0, 0.5, 1.0))
    headline = answer_sentences(tables)[0]
    assert headline.startswith(start)
    for name in set(lost) - {"base"}:
        assert f"{name.replace('=', ' ')} (0 of 16 images" in headline


def test_a_difference_rests_on_the_runs_it_is_made_of(tmp_path: Path):
    tables = _sweep(tmp_path, {"ratio=1": {0}}, ratios=(0.0, 0.5, 1.0), seeds=(0, 1))
    whole = _sweep(tmp_path / "whole", {}, ratios=(0.0, 0.5), seeds=(0, 1))
    for contrast in ("difference", "trend"):
        rows = [
            table.effects[(table.effects["contrast"] == contrast)
                          & (table.effects["subject"] == "visual")
                          & (table.effects["metric"] == SCORE)
                          & (table.effects["part"] == "mean")].iloc[0]
            for table in (tables, whole)
        ]  # fmt: skip
        assert rows[0]["level_to"] == rows[1]["level_to"]
        for name in ("value", "n_runs", "n_seeds"):
            assert rows[0][name] == pytest.approx(rows[1][name])


@pytest.mark.case
def test_an_arm_without_a_value_is_named_and_the_others_compared(tmp_path: Path):
    arms = (("coarse", 0.0), ("count", 0.5), ("relational", 1.0))
    tables = _sweep(tmp_path, {"relational": {0, 1, 2}}, arms=arms)
    headline = answer_sentences(tables)[0]
    assert "Along the arms, from coarse to count" in headline
    assert "could not be estimated at arm relational (0 of 16 images" in headline
    alone = _sweep(tmp_path / "one", {"relational": {0}, "count": {1}}, arms=arms)
    headline = answer_sentences(alone)[0]
    assert headline.startswith(
        "The redundancy of visual tokens could be estimated at one arm only, coarse, so the effect "
        "of the arm is unknown; against the base model, fine-tuning changed"
    )
    assert "arm count (0 of 16 images have a value at every layer) and arm relational" in headline


@pytest.mark.case
def test_a_task_group_without_scores_is_named(tmp_path: Path):
    lost = {"ratio=1": {"relational"}}
    tables = _sweep(tmp_path, lost, ratios=(0.0, 0.5, 1.0))
    text = " ".join(answer_sentences(tables))
    assert "relational accuracy" in text
    assert "From ratio 0 to 0.5, accuracy changes" in text
    assert "Relational accuracy could not be estimated at ratio 1 (0 of 16 images have a" in text
    assert (
        "Accuracy on complex tasks could not be estimated at ratio 1: left out of the cho" in text
    )
    table = tables.recommendation.set_index("at")
    assert table.loc[[0.0, 0.5], "probability"].sum() == pytest.approx(1)
    assert table.loc[1.0, ["value", "low", "gap", "probability"]].isna().all()
    assert (table.loc[1.0, "n_images"], table.loc[0.0, "n_images"]) == (0, 16)
    every = {f"ratio={ratio}": {"relational"} for ratio in ("0", "0.5", "1")}
    none = _sweep(tmp_path / "none", every, ratios=(0.0, 0.5, 1.0))
    text = " ".join(answer_sentences(none))
    assert "at ratio 0, 0.5 and 1, so no ratio can be recommended" in text


def _measured(folder: Path, **changed) -> list[str]:
    measured = load_measured(FakeMeasured(images=24, layers=3, **changed).write(folder))
    return diagnose(model_tables(measured.model, measured.controls))


@pytest.mark.case
def test_no_sentence_claims_what_its_test_does_not_find(tmp_path: Path):
    sentences = _measured(tmp_path)
    (told,) = [one for one in sentences if "with the number of objects" in one]
    assert told.startswith(
        "No correlation of the redundancy of visual tokens with the number of objects is beyond "
        "chance: the largest of 3, at layer "
    )
    assert "goes with" not in told


@pytest.mark.case
def test_what_is_beyond_chance_is_claimed_with_its_test(tmp_path: Path):
    folder = FakeMeasured(images=48, layers=3).write(tmp_path)
    file = table_file(part_of(folder), "image_metrics")
    table = pd.read_parquet(file)
    counts = pd.read_parquet(table_file(part_of(folder), "attributes"))
    counts = counts.set_index("example_id")["object_count"]
    some = (table["metric"] == SCORE) & (table["stream"] == "visual") & (table["layer"] == 2)
    table.loc[some, "value"] -= 0.5 * table.loc[some, "example_id"].map(counts)
    table.to_parquet(file, index=False)
    measured = load_measured(folder)
    sentences = diagnose(model_tables(measured.model, measured.controls))
    (told,) = [one for one in sentences if "goes with the number of objects" in one]
    assert "most at layer 2: Spearman −" in told
    assert "at equal ink fraction −" in told
    assert "0 are beyond chance" not in told


@pytest.mark.case
def test_layers_that_overflowed_are_named_in_the_diagnosis(tmp_path: Path):
    folder = FakeMeasured(images=24, layers=3).write(tmp_path)
    for name in ("image_metrics", "pooled_metrics"):
        file = table_file(part_of(folder), name)
        table = pd.read_parquet(file)
        table.loc[(table["stream"] == "visual") & (table["layer"] == 1), "value"] = np.nan
        if name == "pooled_metrics":
            table.loc[(table["stream"] == "visual") & (table["layer"] == 1), "n"] = 0
        table.to_parquet(file, index=False)
    measured = load_measured(folder)
    text = " ".join(diagnose(model_tables(measured.model, measured.controls)))
    assert text.count("not estimable at layer 1 (0 images)") == 2


@pytest.mark.case
def test_probes_and_deletion_without_a_value_are_named(tmp_path: Path):
    folder = FakeMeasured(images=24, layers=3).write(tmp_path)
    measured = load_measured(folder)
    tables = model_tables(measured.model, measured.controls)
    gone = tables.probes["attribute"] == "dominant_colour"
    gone |= (tables.probes["attribute"] == "object_count") & (tables.probes["layer"] == 2)
    tables.probes.loc[gone, ["value", "low", "high"]] = np.nan
    gone = (tables.deletion["policy"] == "norm") & (tables.deletion["share"] == 0.9)
    tables.deletion.loc[gone, ["against_random", "against_low", "against_high"]] = np.nan
    tables.deletion.loc[tables.deletion["group"] == "coarse", ["low", "high"]] = np.nan
    text = " ".join(diagnose(tables))
    assert "could it be estimated what a linear probe reads of dominant colour" in text
    assert "that could be estimated, layer 1" in text
    assert "1 more could not be estimated." in text
    assert "coarse at an unknown share, without intervals" in text


def test_transfer_says_how_many_could_not_be_compared_and_tests_the_largest(tmp_path: Path):
    folder = FakeMeasured(images=48, layers=2, transfer=1.0).write(tmp_path)
    file = table_file(part_of(folder, "transfer"), "image_metrics")
    table = pd.read_parquet(file)
    table.loc[(table["stream"] == "visual") & (table["layer"] == 1), "value"] = np.nan
    table.to_parquet(file, index=False)
    measured = load_measured(folder)
    tables = model_tables(
        measured.model, measured.controls, measured.transfer, sides_of(measured.spec)
    )
    first, strongest, *_ = transfer_sentences(tables.transfer, tables.transfer_summary)
    assert "more could not be estimated on both sides." in first
    assert "by max-T over either table" in strongest


@pytest.mark.case
def test_a_sweep_below_guessing_says_that_it_says_nothing(tmp_path: Path):
    tables = _sweep(tmp_path, {}, ratios=(0.0, 1.0))
    assert "Worse than guessing" not in " ".join(answer_sentences(tables))
    rows = (tables.sweep["subject"] == "relational") & (tables.sweep["metric"] == "exact")
    rows &= tables.sweep["level"].isin(["base", "ratio=0"])
    tables.sweep.loc[rows, ["value", "low", "high"]] = (0.0, 0.0, 0.206)
    (sentence,) = [one for one in answer_sentences(tables) if one.startswith("Worse than")]
    assert sentence.startswith(
        "Worse than guessing among the choices: relational before fine-tuning (0.000 [0.000, "
        "0.206] beside 0.50) and relational at ratio 0 (0.000 [0.000, 0.206] beside 0.50). Such a "
    )


@pytest.mark.case
def test_counts_that_are_unknown_are_in_no_bin(tmp_path: Path):
    """As of photographs that are not annotated for all categories."""
    folder = FakeMeasured(images=16, layers=2, parts=(), controls=False, groups=("coarse",)).write(
        tmp_path
    )
    file = table_file(part_of(folder), "attributes")
    facts = pd.read_parquet(file)
    whole = facts["object_count"]
    for unknown in (5, len(facts)):
        facts["object_count"] = whole.astype(float).where(np.arange(len(facts)) >= unknown)
        facts.to_parquet(file, index=False)
        table = model_tables(load_measured(folder).model, {}).by_count
        one = table[(table["metric"] == SCORE) & (table["layer"] == 0)]
        one = one[one["stream"] == "visual"]
        assert one["n"].sum() == len(facts) - unknown
