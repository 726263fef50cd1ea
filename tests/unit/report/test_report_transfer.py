"""The part of a page on other images: its figure and tables show the numbers, its words fit."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from fake_measured import COCO, PHOTOS, FakeMeasured, write_transfer
from fake_sweep import FakeSweep

from mixlens.measurement import base_of, other_of
from mixlens.report import write_report
from mixlens.report.measured import report_model
from mixlens.report.style import STYLE
from mixlens.report.transfer import (
    transfer_captions,
    transfer_figure,
    transfer_grids,
    transfer_section,
    transfer_title,
)

FAKE = FakeMeasured(images=64, layers=5, parts=(), controls=False, transfer=-1.0)
SIDES = ("complex (scenes)", "photos (photographs)")
Made = tuple[str, dict[str, pd.DataFrame], list[str], Path]


@pytest.fixture(autouse=True)
def look() -> Iterator[None]:
    with mpl.rc_context(dict(STYLE)):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Page, tables, diagnosis and folder of a model that turns around on photographs."""
    folder = FAKE.write(tmp_path_factory.mktemp("runs"))
    path, tables, sentences = report_model(folder)
    return " ".join(path.read_text().split()), vars(tables), sentences, folder


def test_the_page_has_the_section_with_its_answer(made: Made) -> None:
    text, tables, sentences, folder = made
    assert "<h2>On photographs and scenes</h2>" in text
    section = text[text.index("<h2>On photographs and scenes") : text.index("<h2>Answers")]
    answer = next(one for one in sentences if "Trends of redundancy" in one)
    assert "reverse on photos (photographs)" in answer
    assert answer in section
    assert answer in text[: text.index("<h2>")]
    assert section.index('id="transfer"') < section.index('id="transfer_correlations"')
    assert section.count("<details>") == section.count("</details>") == 5
    for name in ("transfer", "transfer_summary", "transfer_correlations"):
        kept = pd.read_parquet(folder / "tables" / f"{name}.parquet")
        pd.testing.assert_frame_equal(kept, tables[name])
        assert len(kept)
    main = tables["transfer_summary"].iloc[0]
    assert (main["reverses"], main["trends"]) == (5, 5)  # one attribute, five layers


def test_the_figure_shows_both_correlations_of_every_layer(made: Made) -> None:
    _, tables, _, _ = made
    table = tables["transfer"]
    figure = transfer_figure(table, tables["transfer_summary"])
    assert figure is not None
    figure.draw_without_rendering()
    panels = {axis.get_title("left"): axis for axis in figure.axes if axis.get_title("left")}
    assert list(panels) == ["Object count", "Shape diversity /\ncategory diversity",
                            "Covered fraction", "Size mean", "Crowding"]  # fmt: skip
    main = table[(table["stream"] == "visual") & (table["metric"] == "redundancy_score")]
    rows = main[main["attribute"] == "shape_diversity"].sort_values("layer")
    axis = panels["Shape diversity /\ncategory diversity"]
    lines = [line.get_xydata() for line in axis.lines[2:]]  # behind the two axes
    across, up, points = lines[::3], lines[1::3], lines[2::3]
    np.testing.assert_allclose(np.concatenate(points), rows[["rho", "rho_there"]])
    for bars, along, other, side in ((across, 0, "rho_there", ""), (up, 1, "rho", "_there")):
        ends = rows[[f"low{side}", f"high{side}"]]
        np.testing.assert_allclose([one[:, along] for one in bars], ends)
        np.testing.assert_allclose([one[:, 1 - along] for one in bars], rows[[other, other]])
    marks = {line.get_marker() for line in axis.lines[4::3]}
    assert marks == {"X"}
    assert figure.get_supxlabel().endswith(SIDES[0])
    assert figure.get_supylabel().endswith(SIDES[1])


@pytest.mark.parametrize("attributes", [1, 3, 4, 7])
@pytest.mark.parametrize("layers", [1, 33])
def test_any_number_of_attributes_and_layers_is_drawn(attributes: int, layers: int) -> None:
    random = np.random.default_rng(0)
    rows = [
        {"stream": "visual", "layer": layer, "metric": "redundancy_score", "attribute": f"a{i}",
         "attribute_there": f"a{i}", "rho": rho, "low": rho - 0.1, "high": rho + 0.1,
         "rho_there": -rho, "low_there": -rho - 0.1, "high_there": -rho + 0.1, "verdict": "holds"}
        for layer in range(layers) for i in range(attributes)
        for rho in random.uniform(-0.5, 0.5, 1)
    ]  # fmt: skip
    summary = pd.DataFrame([{"here": "here", "there": "there"}])
    figure = transfer_figure(pd.DataFrame(rows), summary)
    assert figure is not None
    figure.draw_without_rendering()
    assert len([axis for axis in figure.axes if axis.get_title("left")]) == attributes
    unknown = pd.DataFrame(rows).assign(rho_there=np.nan)
    assert transfer_figure(unknown, summary) is None


def test_tables_give_sign_size_interval_and_verdict(made: Made) -> None:
    _, tables, _, _ = made
    first, every, *others = transfer_grids(tables["transfer"], tables["transfer_summary"])
    assert not first.is_folded
    assert all(one.is_folded for one in (every, *others))
    assert len(others) == 4
    assert first.grid.head == ("", *SIDES, "difference", "verdict")
    assert len(first.grid.rows) == 3 * 5
    assert len(every.grid.rows) == 5 * 5
    rows = {row[0]: row[1:] for row in every.grid.rows}
    assert [row for row in first.grid.rows if row[0].startswith("layer 4")] == [
        row for row in every.grid.rows if row[0].startswith("layer 4")
    ]
    assert {row[0].split(",")[0] for row in first.grid.rows} == {"layer 0", "layer 2", "layer 4"}
    row = tables["transfer"].set_index(["stream", "layer", "metric", "attribute"]).loc[
        ("visual", 2, "redundancy_score", "shape_diversity")
    ]  # fmt: skip

    def minus(value: float) -> str:
        return f"{value:+.2f}".replace("-", "−")

    assert rows["layer 2, shape diversity / category diversity"] == (
        f"{minus(row['rho'])}\n[{minus(row['low'])}, {minus(row['high'])}]",
        f"{minus(row['rho_there'])}\n[{minus(row['low_there'])}, {minus(row['high_there'])}]",
        f"{minus(row['difference'])}\n[{minus(row['difference_low'])}, "
        f"{minus(row['difference_high'])}]",
        "reverses",
    )


def test_captions_name_what_only_one_side_knows_and_what_is_held_fixed(made: Made) -> None:
    text, tables, _, _ = made
    captions = transfer_captions(tables)
    words = captions["transfer"][1]
    assert "Known of complex (scenes) only: ink fraction." in words
    assert "Known of photos (photographs) only: crowd fraction." in words
    assert "n = 64 images of complex (scenes)" in words
    held = captions["transfer_correlations"][1]
    assert "object count and covered share held fixed" in held
    assert "object count and ink held fixed" in text  # of the scenes
    assert transfer_captions({"transfer": pd.DataFrame()}) == {}


def test_without_other_images_there_is_no_section(tmp_path: Path) -> None:
    plain = FakeMeasured(images=24, layers=2, parts=(), controls=False, groups=("coarse",))
    path, tables, sentences = report_model(plain.write(tmp_path))
    assert tables.transfer.empty
    assert tables.transfer_summary.empty
    text = path.read_text()
    assert "<h2>On photographs" not in text
    assert "<h2>Data</h2>" not in text
    assert not any("Trends of redundancy found" in one for one in sentences)
    assert transfer_section("On other images", vars(tables), []) is None


def test_an_attribute_that_is_constant_there_is_no_trend(made: Made) -> None:
    _, tables, _, _ = made
    there = tables["transfer_correlations"]
    crowd = there[there["attribute"] == "crowd_fraction"]
    assert (crowd["note"] == "constant over all images").all()
    assert crowd["rho"].isna().all()


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    sweep = FakeSweep(
        ratios=(0.0, 1.0), seeds=(0,), images=24, layers=3, steps=10, photos=PHOTOS, coco=COCO
    )
    folder = sweep.write(tmp_path_factory.mktemp("runs"))
    spec = sweep.spec(folder.parent)
    write_transfer(base_of(spec, folder), other_of(spec, folder), 1.0)
    return " ".join(write_report(folder)[0].read_text().split()), folder


def test_a_sweep_shows_the_transfer_of_its_base(sweep_page: tuple[str, Path]) -> None:
    text, folder = sweep_page
    assert "<h2>On photographs and scenes: the base model</h2>" in text
    section = text[text.index("<h2>On photographs and scenes") : text.index("<h2>Held-out images")]
    assert "hold on photos (photographs)" in section
    assert "<h2>Data</h2>" in text
    assert text.index('id="transfer_correlations"') < text.index('id="training"')
    places = [text.index(f"Figure {place}.") for place in range(1, text.count("<b>Figure ") + 1)]
    assert places == sorted(places)
    names = {file.stem for file in (folder / "tables").iterdir()}
    assert names >= {"transfer", "transfer_summary", "transfer_correlations", "left_out"}
    # It trains on scenes alone, of which none is replaced.
    assert "replaced" not in names
    assert "In training" not in text[text.index("<h2>Data") : text.index("<h2>Tables")]
    assert {file.stem for file in (folder / "figures").iterdir()} >= {
        "transfer", "transfer_correlations"
    }  # fmt: skip


def test_the_title_says_which_images_are_compared() -> None:
    spec = FAKE.spec(Path("/tmp"))
    assert transfer_title(spec) == "On photographs and scenes"
    scenes = spec.components["complex"]
    alike = spec.model_copy(update={"components": {"complex": scenes, "photos": scenes}})
    assert transfer_title(alike) == "On other images"
