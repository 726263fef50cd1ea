"""Figures of one measured model: its layers, its images by object count, and its controls."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mixlens.analysis.measured import MODEL
from mixlens.analysis.tables import EXCESS, REDUNDANCY
from mixlens.report.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    new_figure,
    reads_at_edge,
)
from mixlens.statistics.intervals import Array

ENERGY = {
    "gini": "Gini of token norms",
    "energy_entropy": "Energy entropy",
    "participation_ratio": "Participation ratio",
    "stable_rank": "Stable rank",
    "effective_rank": "Effective rank",
    REDUNDANCY: "Redundancy score",
}
COUNTED = {
    REDUNDANCY: "Redundancy score",
    EXCESS: "Redundancy above pixels",
    "participation_ratio": "Participation ratio",
    "gini": "Gini of token norms",
}
EMPTY = ("blank images", "noise images")  # controls without content
NULLS = {"gaussian": "iid Gaussian tokens", "pseudo_images": "tokens of different images"}
_DOTS: dict[str, Any] = {"gaussian": ":", "pseudo_images": (0, (1, 3))}


def energy_profile(layers: pd.DataFrame) -> Figure | None:
    """Fig. 1 of the study: how visual and text tokens spread energy and directions by layer."""
    own = layers[(layers["model"] == MODEL) & layers["value"].notna()]
    metrics = [metric for metric in ENERGY if metric in set(own["metric"])]
    if not metrics:
        return None
    figure = new_figure(0.5 + 1.95 * -(-len(metrics) // 3))
    axes = figure.subplots(-(-len(metrics) // 3), 3, sharex=True, squeeze=False)
    for axis, metric in _filled(axes, metrics):
        for stream, colour, marker in (("visual", BLUE, "o"), ("text", ORANGE, "s")):
            some = own[(own["stream"] == stream) & (own["metric"] == metric)]
            band(axis, some, "layer", colour, marker, "-")
        _without_input(axis, own[own["metric"] == metric])
        axis.set_title(ENERGY[metric])
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(7, integer=True))
    _below(figure.axes[-3:], "Decoder layer")
    figure.legend(
        handles=[
            Line2D([], [], color=BLUE, marker="o", label="visual tokens"),
            Line2D([], [], color=ORANGE, marker="s", label="text tokens"),
        ],
        loc="outside lower center", ncols=2,
    )  # fmt: skip
    return figure


def count_curves(by_count: pd.DataFrame) -> Figure | None:
    """Fig. 2 of the study: metrics of the visual tokens over the number of objects."""
    own = by_count[(by_count["stream"] == "visual") & by_count["value"].notna()]
    metrics = [metric for metric in COUNTED if metric in set(own["metric"])]
    if not metrics or own["objects"].nunique() < 2:
        return None
    layers = sorted(own["layer"].unique())
    shown = sorted({layers[0], layers[len(layers) // 2], layers[-1]})
    figure = new_figure(0.5 + 2.1 * -(-len(metrics) // 2))
    axes = figure.subplots(-(-len(metrics) // 2), 2, sharex=True, squeeze=False)
    for axis, metric in _filled(axes, metrics):
        for place, layer in enumerate(shown):
            some = own[(own["metric"] == metric) & (own["layer"] == layer)]
            colour = (BLUE, ORANGE, GREEN)[place]
            band(axis, some, "objects", colour, MARKERS[place], DASHES[place])
        axis.set_title(COUNTED[metric])
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(8, integer=True))
    _below(figure.axes[-2:], "Objects in the image")
    figure.legend(
        handles=[
            Line2D([], [], color=(BLUE, ORANGE, GREEN)[place], marker=MARKERS[place],
                   ls=DASHES[place], label=f"layer {layer}")
            for place, layer in enumerate(shown)
        ],
        loc="outside lower center", ncols=3,
    )  # fmt: skip
    return figure


def control_profiles(layers: pd.DataFrame, nulls: pd.DataFrame) -> Figure | None:
    """The visual tokens of the model beside random weights, empty images and tokens of chance."""
    visual = layers[(layers["stream"] == "visual") & layers["value"].notna()]
    metrics = [m for m in (REDUNDANCY, "participation_ratio") if m in set(visual["metric"])]
    names = [MODEL, *(name for name in visual["model"].unique() if name != MODEL)]
    if not metrics or (len(names) == 1 and nulls.empty):
        return None
    looks = {
        name: (colour, marker, dash)
        for name, colour, marker, dash in zip(
            names, (INK, BLUE, GREEN, ORANGE, "#CC79A7"), MARKERS, ("-", "--", "-.", "--", "-."),
            strict=False,
        )
    }  # fmt: skip
    figure = new_figure(3.3)
    axes = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        for name, (colour, marker, dash) in looks.items():
            some = visual[(visual["model"] == name) & (visual["metric"] == metric)]
            band(axis, some, "layer", colour, marker, dash)
        drawn = []
        for null, dots in _DOTS.items():
            if len(nulls):
                some = nulls[
                    (nulls["stream"] == "visual") & (nulls["metric"] == metric)
                    & (nulls["null"] == null)
                ].sort_values("layer")  # fmt: skip
                axis.plot(some["layer"], some["value"], color=GREY, ls=dots, lw=1.3)
                drawn.append((NULLS[null], GREY, some["value"].to_numpy(dtype=float)))
        own = visual[visual["metric"] == metric]
        empty = own["model"].isin(list(EMPTY))
        drawn += [
            (name, looks[name][0], _ends(own[own["model"] == name]))
            for name in names
            if name in EMPTY
        ]
        reads_at_edge(axis, _ends(own[~empty]), drawn)
        axis.set_title(ENERGY[metric])
        axis.set_xlabel("Decoder layer")
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(7, integer=True))
    handles = [
        Line2D([], [], color=colour, marker=marker, ls=dash, label=_label(name))
        for name, (colour, marker, dash) in looks.items()
    ]
    there = set(nulls["null"]) if len(nulls) else set()
    handles += [
        Line2D([], [], color=GREY, ls=dots, label=NULLS[null])
        for null, dots in _DOTS.items()
        if null in there
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _without_input(axis: Axes, rows: pd.DataFrame) -> None:
    """Let the decoder's input, which no layer has mixed yet, not stretch the axis of the layers."""
    is_input = rows["layer"] == rows["layer"].min()
    others = [
        (f"{stream} tokens, layer {some['layer'].iloc[0]}", colour, some["value"].to_numpy(float))
        for stream, colour in (("visual", BLUE), ("text", ORANGE))
        if len(some := rows[is_input & (rows["stream"] == stream)])
    ]
    reads_at_edge(axis, _ends(rows[~is_input & rows["stream"].isin(["visual", "text"])]), others)


def _ends(rows: pd.DataFrame) -> Array:
    """All that is drawn of them: values and bands."""
    return rows[["value", "low", "high"]].to_numpy(dtype=float).ravel()


def _filled(axes: np.ndarray, metrics: list[str]) -> list[tuple[Axes, str]]:
    """Axes and what each shows; those left over are removed."""
    for axis in axes.flat[len(metrics) :]:
        axis.remove()
    return list(zip(axes.flat, metrics, strict=False))


def _label(model: str) -> str:
    return "this model" if model == MODEL else model


def _below(axes: list[Axes], label: str) -> None:
    """Name and ticks of the x axis, also where the panel that would hold them was removed."""
    for axis in axes:
        axis.set_xlabel(label)
        axis.tick_params(labelbottom=True)


def band(axis: Axes, rows: pd.DataFrame, x: str, colour: str, marker: str, dash: str) -> None:
    """Values with their interval as a band."""
    rows = rows.sort_values(x)
    at = rows[x].to_numpy(dtype=float)
    low, high = (rows[end].to_numpy(dtype=float) for end in ("low", "high"))
    axis.plot(at, rows["value"], color=colour, marker=marker, ls=dash, ms=3.5)
    axis.fill_between(at, low, high, color=colour, alpha=0.18, lw=0)
