"""What a page shows can be read: widths of tables, marks that occur, ticks, far values, numbers."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fake_measured import FakeMeasured
from fake_sweep import FakeSweep
from matplotlib.figure import Figure

from mixlens.analysis.diagnosis import below_chance, diagnose
from mixlens.analysis.measured import ModelTables, model_tables
from mixlens.analysis.measurement import MeasuredModel, load_measured
from mixlens.analysis.transfer_build import sides_of
from mixlens.report import write_report
from mixlens.report.correlation_grids import correlation_grids
from mixlens.report.heatmap import correlation_heatmap, marks_words
from mixlens.report.measured import write_measured_report
from mixlens.report.model_captions import model_captions
from mixlens.report.model_figures import control_profiles, count_curves, energy_profile
from mixlens.report.style import STYLE, new_figure, reads_at_edge
from mixlens.report.transfer import transfer_figure


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with mpl.rc_context(dict(STYLE)):
        yield


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> MeasuredModel:
    fake = FakeMeasured(images=24, layers=4, transfer=1.0)
    return load_measured(fake.write(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def tables(measured: MeasuredModel) -> ModelTables:
    return model_tables(
        measured.model, measured.controls, measured.transfer, sides_of(measured.spec)
    )


@pytest.fixture(scope="module")
def page(measured: MeasuredModel, tables: ModelTables) -> str:
    return write_measured_report(measured, tables, diagnose(tables)).read_text()


def legend(figure: Figure) -> list[str]:
    """All that the legends of a figure explain."""
    parts = [figure, *figure.subfigs]
    legends = [one for part in parts for one in part.legends]
    legends += [axis.get_legend() for axis in figure.axes if axis.get_legend()]
    return [text.get_text() for one in legends for text in one.get_texts()]


@pytest.mark.parametrize("fake", [FakeSweep, FakeMeasured])
def test_every_table_stands_in_a_box_that_scrolls_and_wide_ones_may_break(
    fake: type, page: str, tmp_path: Path
):
    if fake is FakeSweep:
        some = FakeSweep(seeds=(0,), images=12, layers=3, steps=5, ratios=(0.0, 1.0))
        page = write_report(some.write(tmp_path))[0].read_text()
    assert re.search(r"\.table \{[^}]*overflow-x: auto", page)
    assert re.search(r"\.many \.interval \{ white-space: normal", page)
    tables = re.findall(r"<table.*?</table>", page, flags=re.DOTALL)
    boxed = re.findall(r'<figure class="table">\s*<table', page)
    examples = page.count('<article class="example">')
    assert len(tables) == len(boxed) + examples
    wide = 0
    for table in tables:
        columns = len(re.findall("<th scope=.col", table))
        assert ('class="many"' in table) == (columns > 6 and "<caption>" in table)
        wide += columns > 6
    assert wide


def test_only_marks_that_occur_are_explained(tables: ModelTables):
    own = tables.correlations[tables.correlations["stream"] == "visual"].copy()
    own[["p", "partial_p"]] = 1.0
    own[["rho", "partial_rho"]] = own[["rho", "partial_rho"]].fillna(0.0)
    assert legend(correlation_heatmap(own)) == []
    assert marks_words(own).startswith("No cell is beyond chance (p ≤ 0.05 by a max-T")
    gini = own["metric"] == "gini"
    marked = own.assign(p=own["p"].where(~gini, 0.01))
    assert legend(correlation_heatmap(marked)) == ["beyond chance: p ≤ 0.05 over the whole table"]
    assert marks_words(marked).startswith("Marked cells are beyond chance")
    unknown = own.assign(rho=own["rho"].where(~(gini & (own["layer"] == 0))))
    assert legend(correlation_heatmap(unknown)) == ["not estimable"]


def test_verdicts_controls_and_nulls_that_do_not_occur_are_not_explained(tables: ModelTables):
    shown = legend(transfer_figure(tables.transfer, tables.transfer_summary))
    main = tables.transfer[tables.transfer["metric"] == "redundancy_score"]
    assert ("reverses" in shown) == (main["verdict"] == "reverses").any()
    assert "holds" in shown
    nulls = tables.nulls[tables.nulls["null"] == "gaussian"]
    words = legend(control_profiles(tables.layers, nulls))
    assert "iid Gaussian tokens" in words
    assert "tokens of different images" not in words
    shown = tables.layers[~tables.layers["model"].str.contains("noise")]
    caption = model_captions(replace(tables, layers=shown), 24)["controls"][1]
    assert "Blank images:" in caption
    assert "noise" not in caption


@pytest.mark.case
def test_counts_have_whole_ticks(tables: ModelTables):
    for axis in count_curves(tables.by_count).axes:
        ticks = axis.get_xticks()
        np.testing.assert_array_equal(ticks, np.round(ticks))


@pytest.mark.case
def test_a_null_far_away_does_not_flatten_the_curves(tables: ModelTables):
    far = tables.nulls.copy()
    ratio = far["metric"] == "participation_ratio"
    far.loc[ratio, "value"] = 61.0
    figure = control_profiles(tables.layers, far)
    axis = next(one for one in figure.axes if one.get_title(loc="left") == "Participation ratio")
    visual = tables.layers[(tables.layers["stream"] == "visual")
                           & (tables.layers["metric"] == "participation_ratio")]  # fmt: skip
    low, high = axis.get_ylim()
    span = visual["value"].max() - visual["value"].min()
    assert span > 0.5 * (high - low)
    assert high < 61
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["iid Gaussian tokens: 61 ↑", "tokens of different images: 61 ↑"]


@pytest.mark.case
def test_images_without_content_do_not_flatten_the_model(tables: ModelTables):
    layers = tables.layers.copy()
    blank = (layers["model"] == "blank images") & (layers["metric"] == "redundancy_score")
    layers.loc[blank, ["value", "low", "high"]] = (9.0, 8.9, 9.1)
    figure = control_profiles(layers, tables.nulls)
    axis = next(one for one in figure.axes if one.get_title(loc="left") == "Redundancy score")
    assert axis.get_ylim()[1] < 1
    assert [text.get_text() for text in axis.texts] == ["blank images: 8.9 to 9.1 ↑"]


@pytest.mark.case
def test_the_decoders_input_does_not_stretch_the_axis_of_the_layers(tables: ModelTables):
    layers = tables.layers.copy()
    first = (layers["stream"] == "text") & (layers["layer"] == 0)
    first &= layers["metric"] == "effective_rank"
    before = energy_profile(layers)
    layers.loc[first, ["value", "low", "high"]] = (812.4, 810.0, 815.0)
    figure = energy_profile(layers)
    for one, other in zip(before.axes, figure.axes, strict=True):
        if other.get_title(loc="left") == "Effective rank":
            low, high = other.get_ylim()
            rest = layers[(layers["metric"] == "effective_rank") & (layers["layer"] > 0)
                          & (layers["model"] == "model")
                          & layers["stream"].isin(["visual", "text"])]  # fmt: skip
            assert np.ptp(rest["value"]) > 0.5 * (high - low)
            assert [text.get_text() for text in other.texts] == ["text tokens, layer 0: 812 ↑"]
        else:
            assert one.get_ylim() == other.get_ylim()
            assert not other.texts


def test_the_edge_names_what_lies_below_and_near_values_stay_inside():
    axis = new_figure(2).subplots()
    main = np.array([1.0, 2.0, np.nan])
    others = [("near", "k", np.array([2.5])), ("low", "k", np.array([-50.0, -40.0])),
              ("nothing", "k", np.array([np.nan]))]  # fmt: skip
    reads_at_edge(axis, main, others)
    low, high = axis.get_ylim()
    assert low > -1
    assert high > 2.5
    assert [text.get_text() for text in axis.texts] == ["low: -50 to -40 ↓"]
    empty = new_figure(2).subplots()
    reads_at_edge(empty, np.array([np.nan]), others)
    assert not empty.texts


def test_the_heat_map_has_its_numbers(tables: ModelTables, page: str):
    first, *folded = correlation_grids(tables.correlations)
    assert not first.is_folded
    assert all(table.is_folded for table in folded)
    table = tables.correlations
    table = table[(table["stream"] == "visual") & (table["metric"] == "redundancy_score")]
    rows = {row[0]: row[1:] for row in first.grid.rows}
    assert set(rows) == {name.replace("_", " ") for name in table["attribute"]}
    one = table[(table["attribute"] == "shape_diversity") & (table["layer"] == 0)].iloc[0]
    star = " *" if one["p"] <= 0.05 else ""
    expected = f"{one['rho']:+.2f}{star}\n[{one['low']:+.2f}, {one['high']:+.2f}]"
    assert rows["shape diversity"][0] == expected.replace("-", "−")
    assert first.caption.replace("&", "&amp;") in page
    assert correlation_grids(table.assign(rho=np.nan)) == []


@pytest.mark.case
def test_accuracy_below_guessing_has_its_sentence(tables: ModelTables, page: str):
    assert not list(below_chance(tables.accuracy))
    assert "<p>Worse than guessing" not in page
    worse = tables.accuracy.copy()
    mine = (worse["model"] == "model") & (worse["group"] == "coarse")
    worse.loc[mine, ["value", "low", "high", "chance"]] = (0.0, 0.0, 0.03, 0.35)
    (sentence,) = below_chance(worse)
    assert sentence.startswith(
        "Worse than guessing among the choices: coarse (0.000 [0.000, 0.030] beside 0.35, n = "
    )
    assert "does not answer with the words that are asked for" in sentence
    assert list(below_chance(pd.DataFrame())) == []


def test_a_measured_model_shows_some_of_its_images(measured: MeasuredModel, page: str):
    assert page.count('<article class="example">') == 4
    assert page.count('alt="Held-out image complex/') == 4
    first = measured.model.examples.sort_values("example_id").iloc[0]
    assert first["question"] in page
    assert first["example_id"] in page
