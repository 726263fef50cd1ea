"""The page of one measured model: what stands on it, and the shapes a measurement can have."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fake_measured import FakeMeasured

from mixlens.analysis import collect_provenance
from mixlens.analysis.diagnosis import diagnose
from mixlens.analysis.measured import ModelTables, model_tables
from mixlens.analysis.measurement import MeasuredModel, load_measured
from mixlens.report.examples import SHOWN
from mixlens.report.measured import draw_model, write_measured_report
from mixlens.report.model_captions import model_captions
from mixlens.report.model_comparison import deletion_compared, probes_compared
from mixlens.report.model_figures import control_profiles, count_curves, energy_profile
from mixlens.report.style import STYLE

FIGURES = ("energy", "count", "controls", "correlations", "probe_curves", "probe_maps",
           "embedding", "deletion")  # fmt: skip
TABLES = {"accuracy", "layers", "by_count", "correlations", "nulls", "probes", "deletion",
          "transfer", "transfer_summary", "transfer_correlations"}  # fmt: skip
FULL = FakeMeasured()
BARE = replace(FULL, parts=(), controls=False, layers=1, groups=("coarse",))


class _Page(HTMLParser):
    """The text of a page, its figures in order and its links; and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.links, self.open = "", [], []
        self.figures: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.links += [found[name] for name in ("src", "href") if name in found]
        if tag == "figure" and "id" in found:
            self.figures.append(found["id"] or "")
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with mpl.rc_context(dict(STYLE)):
        yield


def _made(fake: FakeMeasured, runs_dir: Path) -> tuple[MeasuredModel, ModelTables, _Page]:
    folder = fake.write(runs_dir)
    collect_provenance("python jobs/measure.py 'my file.yaml'").write(folder)
    measured = load_measured(folder)
    tables = model_tables(measured.model, measured.controls)
    path = write_measured_report(measured, tables, diagnose(tables))
    assert path == folder / "report.html"
    return measured, tables, _Page(path.read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[MeasuredModel, ModelTables, _Page]:
    return _made(FULL, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> tuple[MeasuredModel, ModelTables, _Page]:
    return _made(BARE, tmp_path_factory.mktemp("bare"))


def test_every_figure_and_table_is_there(made: tuple[MeasuredModel, ModelTables, _Page]):
    measured, tables, page = made
    assert {file.stem for file in (measured.folder / "figures").iterdir()} == set(FIGURES)
    assert page.figures == list(FIGURES)
    places = [page.text.index(f"Figure {place}.") for place in range(1, len(FIGURES) + 1)]
    assert places == sorted(places)
    files = list((measured.folder / "tables").iterdir())
    assert {file.stem for file in files} == TABLES
    for file in files:
        pd.testing.assert_frame_equal(pd.read_parquet(file), getattr(tables, file.stem))
    assert page.headings[:5] == [
        "Inside the layers", "What goes with what", "What can be read", "What it does without",
        "Answers",
    ]  # fmt: skip


def test_it_needs_nothing_else(made: tuple[MeasuredModel, ModelTables, _Page]):
    measured, _, page = made
    assert page.open == []
    assert len(page.links) == len(FIGURES) + SHOWN
    assert all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"@import|<script|url\(", (measured.folder / "report.html").read_text())


def test_the_diagnosis_stands_first_and_the_recipe_last(
    made: tuple[MeasuredModel, ModelTables, _Page],
):
    measured, tables, page = made
    at = -1
    for sentence in diagnose(tables):
        assert page.text.index(sentence) > at
        at = page.text.index(sentence)
    assert at < page.text.index("Figure 1.")
    recipe = page.text[page.text.index("Recipe") :]
    assert "python jobs/measure.py 'my file.yaml'" in recipe
    assert measured.spec.model_digest() in recipe
    assert not re.search(r"\bnan\b", page.text[: page.text.index("Recipe")], re.IGNORECASE)


def test_the_tables_on_the_page_show_the_numbers_of_the_tables(
    made: tuple[MeasuredModel, ModelTables, _Page],
):
    _, tables, page = made
    start = page.text.index("above its pixels")
    shown = page.text[start : page.text.index("What goes with what")]
    assert shown.index("blank images") < shown.index("random model")
    visual = tables.layers[tables.layers["stream"] == "visual"]
    visual = visual.set_index(["model", "layer", "metric"])
    score = "redundancy_score"
    for layer in range(FULL.layers):
        line = shown[shown.index(f"layer {layer}") :]
        at = 0
        for name, metric in (("model", score), ("model", "redundancy_excess"),
                             ("blank images", score), ("random model", score)):  # fmt: skip
            row = visual.loc[(name, layer, metric)]
            cell = f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
            assert cell in line[at:]
            at += line[at:].index(cell) + len(cell)
        assert at < 150  # all of them in this line
    answers = page.text[page.text.index("Answers") :]
    row = tables.accuracy.query("model == 'model' and group == 'coarse'").iloc[0]
    assert f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in answers
    assert "blank images" in answers
    assert "random model" not in answers.split("What these numbers")[0]
    # Chance of the counting and coarse questions, and of those with two answers.
    assert re.search(r"chance\s*0\.10\s*0\.10\s*0\.50", answers)


def test_captions_say_how_many_images_and_what_is_held_fixed(
    made: tuple[MeasuredModel, ModelTables, _Page],
):
    measured, tables, page = made
    captions = model_captions(tables, len(measured.model.attributes))
    assert captions.keys() == set(FIGURES)
    for name in ("energy", "count", "controls", "correlations", "probe_curves"):
        assert f"n = {FULL.images} images" in captions[name][1]
    assert "n = 16 images" in captions["deletion"][1]
    assert "object count itself is held against ink only" in captions["correlations"][1]
    assert "ink against object count only" in captions["correlations"][1]
    for title, text in captions.values():
        assert title in page.text
        assert text in page.text


def test_captions_fit_photographs_too(made: tuple[MeasuredModel, ModelTables, _Page]):
    _, tables, _ = made
    renamed = tables.correlations.replace({"attribute": {"ink_fraction": "covered_fraction"}})
    captions = model_captions(replace(tables, correlations=renamed), 24)
    assert "object count and covered share held fixed" in captions["correlations"][1]
    assert "more of the image covered" in captions["count"][1]
    assert not any("scene" in title + text for title, text in captions.values())
    notes = tables.probes["note"].mask(
        tables.probes["attribute"] == "dominant_colour", "without 2 images of 1 class"
    )
    fewer = tables.probes.assign(note=notes, n=tables.probes["n"] - (notes != "") * 2)
    text = model_captions(replace(tables, probes=fewer), 24)["probe_curves"][1]
    assert "too rare to be in every fold: dominant colour (n from 22" in text
    assert "too rare" not in model_captions(tables, 24)["probe_curves"][1]


def test_keys_and_values_are_called_what_they_are(made: tuple[MeasuredModel, ModelTables, _Page]):
    _, tables, _ = made
    assert "cross-attention" not in model_captions(tables, 24)["energy"][1]
    layers = tables.layers
    second = sorted(set(layers["layer"][layers["stream"] == "text"]))[1]
    beside = layers[(layers["stream"] != "visual") | (layers["layer"] != second)]
    text = model_captions(replace(tables, layers=beside), 24)["energy"][1]
    assert "its visual tokens are the keys and values that a block reads" in text


def test_what_was_not_measured_is_left_out(bare: tuple[MeasuredModel, ModelTables, _Page]):
    measured, _, page = bare
    assert page.figures == ["energy", "count", "correlations"]
    assert {file.stem for file in (measured.folder / "figures").iterdir()} == set(page.figures)
    assert {file.stem for file in (measured.folder / "tables").iterdir()} == TABLES
    assert "What can be read" not in page.headings
    assert "What it does without" not in page.headings
    assert page.text.index("Figure 3.") > 0
    assert "Figure 4." not in page.text
    assert "Controls" in page.text
    assert "none" in page.text[page.text.index("Controls") :][:20]
    assert not re.search(r"\bnan\b", page.text[: page.text.index("Recipe")], re.IGNORECASE)


def test_a_page_without_any_figure_still_has_its_tables(
    bare: tuple[MeasuredModel, ModelTables, _Page], tmp_path: Path
):
    measured, tables, _ = bare
    unknown = tables.layers.assign(value=np.nan, low=np.nan, high=np.nan)
    nothing = replace(
        tables, layers=unknown, by_count=tables.by_count.iloc[:0],
        correlations=tables.correlations.iloc[:0],
    )  # fmt: skip
    moved = replace(measured, folder=tmp_path)
    page = _Page(write_measured_report(moved, nothing, diagnose(nothing)).read_text())
    assert page.figures == []
    assert page.headings[:2] == ["Inside the layers", "Answers"]
    assert "–" in page.text[page.text.index("above its pixels") :]
    assert draw_model(moved, nothing) == {}


def test_the_redundancy_table_stays_in_its_section_without_figures_there(
    bare: tuple[MeasuredModel, ModelTables, _Page], tmp_path: Path
):
    measured, tables, _ = bare
    unknown = tables.layers.assign(value=np.nan, low=np.nan, high=np.nan)
    some = replace(tables, layers=unknown, by_count=tables.by_count.iloc[:0])
    moved = replace(measured, folder=tmp_path)
    page = _Page(write_measured_report(moved, some, []).read_text())
    assert page.figures == ["correlations"]
    assert page.headings[:2] == ["Inside the layers", "What goes with what"]
    assert page.text.index("above its pixels") < page.text.index("What goes with what")


def test_text_from_outside_is_not_html(
    made: tuple[MeasuredModel, ModelTables, _Page], tmp_path: Path
):
    measured, tables, _ = made
    spec = measured.spec.model_copy(update={"model": "<script>alert(1)</script>"})
    some = replace(tables, probes=pd.DataFrame(), deletion=pd.DataFrame())
    odd = replace(measured, folder=tmp_path, spec=spec, model=replace(measured.model,
                  embeddings=None))  # fmt: skip
    text = write_measured_report(odd, some, ["<b>bold</b>"]).read_text()
    assert "<script>" not in text
    assert "&lt;b&gt;bold" in text


def test_one_control_or_none(made: tuple[MeasuredModel, ModelTables, _Page]):
    _, tables, _ = made
    for names, labels in (
        (["model", "blank images"], ["this model", "blank images"]),
        (["model"], ["this model"]),
    ):
        some = tables.layers[tables.layers["model"].isin(names)]
        figure = control_profiles(some, tables.nulls)
        assert figure is not None
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == [
            *labels, "iid Gaussian tokens", "tokens of different images",
        ]  # fmt: skip
        for axis in figure.axes:
            assert len(axis.collections) == len(names)  # bands
            assert len(axis.lines) == len(names) + 2
            assert all(line.get_xdata().tolist() == [0, 1, 2] for line in axis.lines)
    assert control_profiles(some, tables.nulls.iloc[:0]) is None


def test_profiles_show_the_values_of_their_stream(made: tuple[MeasuredModel, ModelTables, _Page]):
    _, tables, _ = made
    figure = energy_profile(tables.layers)
    assert figure is not None
    panels = {axis.get_title("left"): axis for axis in figure.axes}
    assert len(panels) == 6
    own = tables.layers.query("model == 'model' and metric == 'gini'").sort_values("layer")
    for line, stream in zip(panels["Gini of token norms"].lines, ("visual", "text"), strict=True):
        rows = own[own["stream"] == stream]
        assert line.get_xdata().tolist() == rows["layer"].tolist()
        assert line.get_ydata().tolist() == rows["value"].tolist()
    counts = count_curves(tables.by_count)
    assert counts is not None
    (legend,) = counts.legends
    assert [t.get_text() for t in legend.get_texts()] == ["layer 0", "layer 1", "layer 2"]
    assert counts.axes[0].lines[0].get_xdata().tolist() == [3, 4, 5, 6]


def test_one_layer_one_count_and_few_metrics(made: tuple[MeasuredModel, ModelTables, _Page]):
    _, tables, _ = made
    figure = energy_profile(tables.layers[tables.layers["layer"] <= 0])
    assert figure is not None
    assert all(line.get_xdata().tolist() == [0] for axis in figure.axes for line in axis.lines)
    counts = count_curves(tables.by_count[tables.by_count["layer"] == 0])
    assert counts is not None
    assert len(counts.axes[0].lines) == 1
    assert count_curves(tables.by_count[tables.by_count["objects"] == 3]) is None
    assert count_curves(tables.by_count.iloc[:0]) is None
    assert energy_profile(tables.layers.assign(value=np.nan)) is None
    # Without pixels there are three panels; the one without a neighbour below names its ticks.
    three = count_curves(tables.by_count[tables.by_count["metric"] != "redundancy_excess"])
    assert three is not None
    assert len(three.axes) == 3
    for axis in three.axes[-2:]:
        assert axis.get_xlabel() == "Objects in the image"
        assert axis.xaxis.get_tick_params()["labelbottom"]


def test_models_side_by_side(made: tuple[MeasuredModel, ModelTables, _Page]):
    _, tables, _ = made
    worse = tables.probes.assign(value=tables.probes["value"] - 0.3)
    figure = probes_compared({"base model": tables.probes, "ratio 1": worse})
    assert figure is not None
    assert len(figure.axes) == 4  # two streams, two attributes
    base, other, chance = figure.axes[0].lines
    assert base.get_ydata().tolist() == pytest.approx([0.5, 0.6, 0.7])
    assert other.get_ydata().tolist() == pytest.approx([0.2, 0.3, 0.4])
    assert chance.get_ydata()[0] == 0.2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["base model", "ratio 1", "chance"]
    assert probes_compared({"base model": tables.probes.assign(value=np.nan)}) is None

    figure = deletion_compared({"base model": tables.deletion, "ratio 1": tables.deletion})
    assert figure is not None
    assert [axis.get_title("left") for axis in figure.axes] == ["Coarse", "Counting", "Relational"]
    line = figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [0, 50, 90]
    assert line.get_ydata().tolist() == pytest.approx([0.8, 0.55, 0.35])
    only_all = tables.deletion[tables.deletion["group"] == "all"]
    assert deletion_compared({"base model": only_all}) is None
