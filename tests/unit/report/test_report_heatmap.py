"""The heat map of correlations: every cell and mark is a number of the table."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from mixlens.analysis.correlations import COLUMNS
from mixlens.report.heatmap import SHOWN, correlation_heatmap

ATTRIBUTES = ("object_count", "crowding", "occlusion")


def _table(layers: int = 3) -> pd.DataFrame:
    """Random rows of two streams; the partial results of `crowding` are not estimable."""
    random = np.random.default_rng(0)
    keys = [
        (stream, layer, metric, attribute)
        for stream in ("visual", "text")
        for layer in range(layers)
        for metric in (*SHOWN, "hoyer")
        for attribute in ATTRIBUTES
    ]
    table = pd.DataFrame(keys, columns=["stream", "layer", "metric", "attribute"])
    for kind in ("", "partial_"):
        table[kind + "rho"] = random.uniform(-0.7, 0.3, len(table))
        table[kind + "p"] = random.choice([0.01, 0.05, 0.06, 1.0], len(table))
    table.loc[table["attribute"] == "crowding", ["partial_rho", "partial_p"]] = np.nan
    return table.reindex(columns=list(COLUMNS)).assign(given="object_count,ink_fraction")


def _panels(figure: Figure) -> list[tuple[np.ma.MaskedArray, set[tuple[int, int]], QuadMesh]]:
    """Values, marked cells and mesh of each panel, row by row."""
    panels = []
    for axis in figure.axes:
        if axis.get_title() in SHOWN.values():
            mesh = next(one for one in axis.collections if isinstance(one, QuadMesh))
            marks = {
                (int(y), int(x))
                for line in axis.lines
                for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
            }
            panels.append((mesh.get_array(), marks, mesh))
    return panels


@pytest.mark.parametrize("layers", [3, 33])
def test_cells_and_marks_are_those_of_the_table(layers: int) -> None:
    table = _table(layers)
    figure = correlation_heatmap(table)
    assert figure is not None
    figure.draw_without_rendering()
    panels = _panels(figure)
    assert len(panels) == 2 * len(SHOWN)
    expected = [(kind, metric) for kind in ("", "partial_") for metric in SHOWN]
    for (kind, metric), (values, marks, mesh) in zip(expected, panels, strict=True):
        rows = table[(table["stream"] == "visual") & (table["metric"] == metric)]
        assert values.shape == (3, layers)
        marked = set()
        for row in rows.to_dict("records"):
            place = (ATTRIBUTES.index(row["attribute"]), row["layer"])
            if np.isnan(row[kind + "rho"]):
                assert values.mask[place]
            else:
                assert values[place] == row[kind + "rho"]
            if row[kind + "p"] <= 0.05:
                marked.add(place)
        assert marks == marked
        assert marked
        # Zero is the middle of the colours, and every panel has the same ones.
        assert (mesh.norm.vmin, mesh.norm.vmax) == pytest.approx((-0.7, 0.7))


def test_the_first_line_is_on_top() -> None:
    figure = correlation_heatmap(_table())
    assert figure is not None
    first = figure.axes[0]
    assert first.get_ylim()[0] > first.get_ylim()[1]
    assert [label.get_text() for label in first.get_yticklabels()] == [
        "Object count", "Crowding", "Occlusion"
    ]  # fmt: skip
    assert [label.get_text() for label in first.get_xticklabels()] == ["0", "1", "2"]


def test_what_is_not_there_has_no_line_row_or_figure() -> None:
    table = _table()
    table.loc[table["attribute"] == "occlusion", ["rho", "p", "partial_rho", "partial_p"]] = np.nan
    table[["partial_rho", "partial_p"]] = np.nan
    figure = correlation_heatmap(table[table["metric"] != "gini"])
    assert figure is not None
    panels = _panels(figure)
    assert len(panels) == len(SHOWN) - 1
    assert panels[0][0].shape == (2, 3)
    assert correlation_heatmap(table.assign(rho=np.nan)) is None
    assert correlation_heatmap(table[table["stream"] == "text"]) is None
    assert correlation_heatmap(pd.DataFrame(columns=list(COLUMNS))) is None


@pytest.mark.parametrize(
    ("given", "title"),
    [
        (["object_count", "object_count,ink_fraction"], "b  Object count and ink held fixed"),
        (["covered_fraction", "object_count,covered_fraction"],
         "b  Object count and covered share held fixed"),
        (["object_count", "object_count"], "b  Object count held fixed"),
    ],
)  # fmt: skip
def test_the_title_says_what_is_held_fixed(given: list[str], title: str) -> None:
    table = _table()
    table["given"] = np.resize(given, len(table))
    figure = correlation_heatmap(table)
    assert figure is not None
    titles = [part._suptitle.get_text() for part in figure.subfigs]
    assert titles == ["a  Spearman correlation", title]
