"""Figures of the probes, from table `probes` alone.

A stream is a colour and a kind of probe a line style; maps use cividis, as elsewhere, from what a
probe that finds nothing scores to the best score of the attribute.
"""

from math import isqrt
from textwrap import fill

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mixlens.probing.rare import WITHOUT
from mixlens.probing.targets import NOT_ESTIMABLE
from mixlens.report.style import BASE_BAND, BLUE, GREY, INK, ORANGE, new_figure

POOLED = -1
STREAMS = {"visual": (BLUE, "o"), "text": (ORANGE, "s")}
KINDS = {"linear": "-", "mlp": "--"}
SCORES = {"r2": "R²", "accuracy": "Accuracy"}
FLOOR = -0.2  # an R² below says no more than that the probe was misled
MAPS, MAP_LAYERS = 4, 7


def probe_curves(table: pd.DataFrame) -> Figure | None:
    """Score of every attribute over the layers, from the mean over an image's tokens.

    Visual and text stream in colours, linear probes as lines and networks dashed, each with its
    95 % interval as a band; chance dotted, the control tasks of all of them as a grey band.
    """
    pooled = table[table["position"] == POOLED]
    names, blank = _attributes(pooled)
    if not names:
        return None
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = new_figure(0.75 + 1.75 * lines)
    axes = figure.subplots(lines, columns, sharex=True, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(names):
            axis.remove()
            continue
        rows = pooled[pooled["attribute"] == names[place]].dropna(subset="value")
        _curves(axis, rows)
        axis.set_title(_words(names[place]).capitalize())
        if place + columns >= len(names):
            axis.set_xlabel("Decoder layer")
            axis.tick_params(labelbottom=True)
    shown = [stream for stream in STREAMS if stream in set(pooled["stream"])]
    handles = [Line2D([], [], color=STREAMS[one][0], marker=STREAMS[one][1], label=f"{one} tokens")
               for one in shown]  # fmt: skip
    handles += [
        Line2D([], [], color=INK, ls=dash, label="linear probe" if kind == "linear" else "network")
        for kind, dash in KINDS.items()
        if kind in set(pooled["kind"])
    ]
    handles.append(Line2D([], [], color=INK, ls=":", label="chance"))
    n = pooled.loc[pooled["value"].notna(), "n"]
    few, many = int(n.min()), int(n.max())
    text = f"{many} held-out images." if few == many else f"{few} to {many} held-out images."
    if blank:
        text += f" Not estimable: {', '.join(map(_words, blank))} (the table says why)."
    figure.legend(
        handles=[*handles, Patch(color=BASE_BAND, label="control tasks")],
        loc="outside lower center",
        ncols=6,
        title=fill(text, 110),
        title_fontproperties={"size": 8},
    )
    return figure


def without_rare_classes(table: pd.DataFrame) -> str:
    """What a caption says of categories whose rare classes were left out; nothing without any."""
    some = table[table["note"].str.startswith(WITHOUT)] if len(table) else table
    if some.empty:
        return ""
    names = ", ".join(map(_words, dict.fromkeys(some["attribute"])))
    return (
        f" Without the images of classes too rare to be in every fold: {names} (n from "
        f"{int(some['n'].min())}; notes in tables/probes.parquet name them)."
    )


def not_estimable(table: pd.DataFrame) -> str:
    """What a caption says of attributes that no probe could be scored on; nothing without any."""
    if table.empty:
        return ""
    empty = [
        (name, rows) for name, rows in table.groupby("attribute") if rows["value"].isna().all()
    ]
    whys = [
        f"{_words(name)} ({rows['note'].iloc[0].removeprefix(NOT_ESTIMABLE)})"
        for name, rows in empty
    ]
    return f" Not estimable: {', '.join(whys)}." if whys else ""


def probe_maps(table: pd.DataFrame) -> Figure | None:
    """Where in the image the attributes can be read: score of each position, layer by layer.

    Linear probes where there are any. Visual tokens stand where their patches do if their number is
    a square, else in a row; text tokens below them. Count first, then categories, then the rest;
    positions where nothing can be estimated are grey.
    """
    some = table[(table["position"] != POOLED) & table["stream"].isin(list(STREAMS))]
    kinds = [kind for kind in KINDS if kind in set(some["kind"])]
    if not kinds:
        return None
    some = some[some["kind"] == kinds[0]]
    names, _ = _attributes(some[some["stream"] == "visual"])
    scores = some.drop_duplicates("attribute").set_index("attribute")["score"]
    names.sort(key=lambda name: (name != "object_count", scores[name] != "accuracy"))
    names = names[:MAPS]
    layers = sorted(some.loc[some["stream"] == "visual", "layer"].unique())
    every = np.linspace(0, len(layers) - 1, min(MAP_LAYERS, len(layers))).round().astype(int)
    if not names:
        return None
    figure = new_figure(0.3 + 1.3 * len(names))
    axes = figure.subplots(len(names), len(every), squeeze=False)
    for line, name in enumerate(names):
        rows = some[some["attribute"] == name]
        bottom, top = rows["chance"].min(), rows["value"].max()
        images = []
        for column, layer in enumerate(layers[place] for place in every):
            axis = axes[line, column]
            at = rows[rows["layer"] == layer]
            images.append(_map(axis, at, bottom, max(top, bottom + 0.01)))
            if line == 0:
                axis.set_title(f"Layer {layer}", loc="center", weight="normal")
        axes[line, 0].set_ylabel(fill(_words(name).capitalize(), 14), fontsize=8.5)
        bar = figure.colorbar(images[0], ax=list(axes[line]), pad=0.01, fraction=0.03, extend="min")
        bar.set_label(SCORES[scores[name]])
        bar.outline.set_visible(False)
        bar.locator = mpl.ticker.MaxNLocator(4)
    return figure


def _curves(axis: Axes, rows: pd.DataFrame) -> None:
    controls = rows.groupby("layer")["control"].agg(["min", "max"])
    axis.fill_between(controls.index.to_numpy(dtype=float), controls["min"], controls["max"],
                      color=BASE_BAND, lw=0, zorder=0)  # fmt: skip
    chance = rows.groupby("layer")["chance"].mean()
    axis.plot(chance.index.to_numpy(dtype=float), chance, color=INK, ls=":", lw=1.2)
    for (stream, kind), line in rows.groupby(["stream", "kind"], sort=False):
        if stream not in STREAMS:
            continue
        colour, marker = STREAMS[stream]
        line = line.sort_values("layer")
        x = line["layer"].to_numpy(dtype=float)
        axis.fill_between(x, line["low"].astype(float), line["high"].astype(float),
                          color=colour, alpha=0.13, lw=0)  # fmt: skip
        axis.plot(x, line["value"], color=colour, ls=KINDS[kind], marker=marker, ms=3.2,
                  markevery=max(1, -(-len(line) // 10)))  # fmt: skip
    score = rows["score"].iloc[0]
    axis.set_ylabel(SCORES[score])
    bottom = FLOOR if score == "r2" else 0.0
    axis.set_ylim(max(bottom, min(0.0, axis.get_ylim()[0])), 1.03)
    axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(7, integer=True))
    axis.yaxis.set_major_locator(mpl.ticker.MultipleLocator(0.25))


def _map(axis: Axes, rows: pd.DataFrame, bottom: float, top: float) -> AxesImage:
    """The visual positions on their grid and, a line below, the text positions."""
    colours = mpl.colormaps["cividis"].with_extremes(bad="#d9d9d9")
    streams = {stream: rows[rows["stream"] == stream] for stream in STREAMS}
    first = next(some for some in streams.values() if len(some))
    count = int(first["position"].max()) + 1
    width = isqrt(count) if isqrt(count) ** 2 == count else count
    height = 0.0
    for stream in STREAMS:
        some = streams[stream].set_index("position")["value"]
        if some.empty:
            continue
        length = int(some.index.max()) + 1
        lines, across = -(-length // width), min(width, length)
        grid = np.full((lines, width), np.nan)
        grid.flat[some.index.to_numpy()] = some.to_numpy(dtype=float)
        # Grey is a position without a score; behind the last position there is nothing.
        there = (np.arange(grid.size) < length).astype(float).reshape(grid.shape)
        start = height + (0.6 if height else 0.0)
        height = start + lines
        image = axis.imshow(grid[:, :across], cmap=colours, vmin=bottom, vmax=top,
                            alpha=there[:, :across], extent=(0, across, height, start))  # fmt: skip
        if stream == "text":
            axis.text(across + 0.3, height - lines / 2, "text", fontsize=6.5, color=GREY,
                      va="center")  # fmt: skip
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_aspect("equal" if width * width == count else "auto")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    for side in axis.spines.values():
        side.set_visible(False)
    return image


def _attributes(table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Those with a score anywhere, and those without."""
    there = table["value"].notna().groupby(table["attribute"], sort=False).any().astype(bool)
    return [str(n) for n in there.index[there]], [str(n) for n in there.index[~there]]


def _words(name: str) -> str:
    return name.replace("_", " ")
