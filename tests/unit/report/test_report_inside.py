"""What a sweep's page shows of single models: tables of all runs, figures of the compared ones."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from fake_measured import FakeMeasured
from fake_sweep import FakeSweep

from mixlens.analysis import SweepResults, load_sweep
from mixlens.analysis.tables import write_tables
from mixlens.report.inside import inside_captions, inside_figures, inside_tables

SWEEP = FakeSweep(ratios=(0.0, 1.0), seeds=(0, 1), images=24, layers=3, steps=5)
PLANTED = FakeMeasured(images=24, layers=3)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> SweepResults:
    return load_sweep(SWEEP.write(tmp_path_factory.mktemp("plain")))


@pytest.fixture(scope="module")
def probed(plain: SweepResults) -> SweepResults:
    """The base has everything, a trial its probes."""
    found = PLANTED.tables()
    more = {name: found[name] for name in ("probes", "deleted", "embeddings", "attributes")}
    base, first, *others = plain.runs
    return replace(
        plain,
        base=replace(base, measured=replace(base.measured, **more)),
        trials=(
            replace(first, measured=replace(first.measured, probes=found["probes"])), *others
        ),
    )  # fmt: skip


def test_a_sweep_that_measures_no_more_has_counts_and_correlations(plain: SweepResults):
    tables = inside_tables(plain)
    assert tables.keys() == {"correlations", "nulls"}
    assert set(tables["correlations"]["attribute"]) == {"object_count", "ink_fraction"}
    assert list(inside_figures(plain, tables)) == ["count", "correlations"]


def test_what_was_measured_is_shown_in_the_order_of_the_page(probed: SweepResults, tmp_path: Path):
    tables = inside_tables(probed)
    assert tables.keys() == {"correlations", "nulls", "probes", "deletion"}
    assert set(tables["probes"]["run"]) == {probed.base.name, probed.trials[0].name}
    assert set(tables["deletion"]["run"]) == {probed.base.name}
    figures = inside_figures(probed, tables)
    assert list(figures) == ["count", "correlations", "probes", "deletion", "embedding"]
    assert figures.keys() == inside_captions(probed, tables).keys()
    assert b"ratio 0" in figures["probes"]
    assert b"ratio 0" not in figures["deletion"]
    write_tables(tmp_path, tables)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "probes.parquet"), tables["probes"])


def test_captions_name_what_is_held_fixed_and_the_images_that_were_used(plain: SweepResults):
    text = {
        name: caption[1] for name, caption in inside_captions(plain, inside_tables(plain)).items()
    }
    assert (
        "object count itself is held against ink only, and ink against object count"
        in (text["correlations"])
    )
    assert "n = 24 images" in text["correlations"]
    for asked, n in ((10, 10), (None, 24), (99, 24)):
        deletion = {"examples": asked}
        evaluation = {**plain.spec.evaluation.model_dump(), "deletion": deletion}
        content = {**plain.spec.model_dump(), "evaluation": evaluation}
        sweep = replace(plain, spec=type(plain.spec).model_validate(content))
        assert f"n = {n} images" in inside_captions(sweep, inside_tables(plain))["deletion"][1]
