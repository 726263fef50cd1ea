"""Figures of the probes: what they show, and what they do when there is little to show."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from mixlens.probing.probes import COLUMNS
from mixlens.report.probe_figures import not_estimable, probe_curves, probe_maps
from mixlens.report.style import STYLE, svg

SCORES = {"object_count": "r2", "dominant_colour": "accuracy", "blur": "r2", "crowding": "r2"}


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with mpl.rc_context(dict(STYLE)):
        yield


def _table(visual: int = 9, text: int = 4, layers: int = 3) -> pd.DataFrame:
    rows = []
    for stream, positions in (("visual", visual), ("text", text)):
        for layer in range(layers):
            for position in range(-1, positions):
                for attribute, score in SCORES.items():
                    for kind in ("linear", "mlp"):
                        value = 0.01 * (position + 1) + 0.1 * layer + 0.3 * (score == "accuracy")
                        if attribute == "blur":
                            value = np.nan
                        if (stream, position, kind) == ("text", -1, "mlp"):
                            value -= 5
                        rows.append(
                            {
                                "stream": stream,
                                "layer": layer,
                                "position": position,
                                "attribute": attribute,
                                "kind": kind,
                                "score": score,
                                "value": value,
                                "low": value - 0.1,
                                "high": value + 0.1,
                                "n": 90 if position == 2 else 100,
                                "chance": 0.25 if score == "accuracy" else 0.0,
                                "control": value - value,
                                "selectivity": value,
                                "v_information": np.nan,
                                "note": "",
                            }
                        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_curves_are_the_scores_of_the_pooled_position() -> None:
    table = _table()
    figure = probe_curves(table)
    assert figure is not None
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert sorted(titles) == ["Crowding", "Dominant colour", "Object count"]
    axis = figure.axes[titles.index("Dominant colour")]
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in axis.lines]
    assert any(np.allclose(line, 0.25) for line in lines)  # chance
    assert any(np.allclose(line, [0.3, 0.4, 0.5]) for line in lines)
    assert len(lines) == 1 + 4
    # A network that is far off does not flatten all the others.
    assert figure.axes[titles.index("Object count")].get_ylim()[0] >= -0.2
    legend = figure.legends[0].get_title().get_text()
    assert "100 held-out images" in legend
    assert "Not estimable: blur" in legend
    assert svg(figure)


@pytest.mark.parametrize(("visual", "shape"), [(9, (3, 3)), (7, (1, 7))])
def test_maps_put_every_position_in_its_place(visual: int, shape: tuple[int, int]) -> None:
    figure = probe_maps(_table(visual))
    assert figure is not None
    assert svg(figure)
    panel = figure.axes[2]  # object count, last of three layers
    assert figure.axes[0].get_ylabel() == "Object count"
    assert figure.axes[3].get_ylabel() == "Dominant\ncolour"
    grid, below = (np.asarray(image.get_array()) for image in panel.images)
    assert grid.shape == shape
    np.testing.assert_allclose(grid.flat, 0.2 + 0.01 * np.arange(1, visual + 1))
    np.testing.assert_allclose(below.flat[:4], 0.2 + 0.01 * np.arange(1, 5))
    low, high = panel.images[0].get_clim()
    assert low == 0
    assert high == pytest.approx(0.2 + 0.01 * visual)


def test_blank_tables_give_no_figure() -> None:
    table = _table()
    assert probe_curves(table[table["attribute"] == "blur"]) is None
    assert probe_maps(table[table["attribute"] == "blur"]) is None
    assert probe_maps(table[table["position"] == -1]) is None
    assert probe_maps(table[table["stream"] == "text"]) is None
    figure = probe_curves(table[table["layer"] == 0])
    assert figure is not None
    assert svg(figure)


def test_what_could_not_be_probed_is_told_with_its_reason() -> None:
    table = _table()
    blur = table["attribute"] == "blur"
    table.loc[blur, "note"] = "not estimable: 12 images of classes with 5 or more, 20 are needed"
    table.loc[(table["attribute"] == "crowding") & (table["layer"] == 0), "value"] = np.nan
    told = not_estimable(table)
    assert told == " Not estimable: blur (12 images of classes with 5 or more, 20 are needed)."
    assert not_estimable(table[~blur]) == not_estimable(pd.DataFrame()) == ""
