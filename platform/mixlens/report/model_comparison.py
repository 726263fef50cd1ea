"""Base and fine-tuned models side by side: what can be read, and what can be done without."""

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mixlens.analysis.words import GROUP_NAMES
from mixlens.probing.probes import POOLED
from mixlens.probing.settings import SEEDLESS
from mixlens.report.model_figures import band
from mixlens.report.style import BLUE, GREY, INK, ORANGE, new_figure
from mixlens.spec import ENCODER

_LOOKS = ((INK, "o", "--"), (BLUE, "s", "-"), (ORANGE, "^", "-"))


def probes_compared(probes: Mapping[str, pd.DataFrame]) -> Figure | None:
    """Linear probes of the mean token by layer: a row a stream, a column an attribute."""
    tables = {
        name: table[(table["position"] == POOLED) & (table["kind"] == "linear")]
        for name, table in probes.items()
    }
    first = next(iter(tables.values()))
    estimable = first[first["value"].notna()]
    attributes = list(dict.fromkeys(estimable["attribute"]))[:5]
    streams = [name for name in ("visual", "text") if name in set(estimable["stream"])]
    if not attributes:
        return None
    figure = new_figure(0.6 + 1.75 * len(streams))
    axes = figure.subplots(len(streams), len(attributes), sharex=True, squeeze=False)
    for line, stream in enumerate(streams):
        for column, attribute in enumerate(attributes):
            axis = axes[line, column]
            for table, look in zip(tables.values(), _LOOKS, strict=False):
                some = table[(table["stream"] == stream) & (table["attribute"] == attribute)]
                band(axis, some.sort_values("layer"), "layer", *look)
            own = first[(first["stream"] == stream) & (first["attribute"] == attribute)]
            axis.axhline(float(own["chance"].iloc[0]), color=GREY, ls=":", lw=1.2)
            if line == 0:
                score = {"r2": "R²", "accuracy": "accuracy"}[str(own["score"].iloc[0])]
                axis.set_title(f"{str(attribute).replace('_', ' ')}\n{score}", fontsize=8.5)
            if column == 0:
                axis.set_ylabel(f"{stream} tokens")
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
            axis.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
    for axis in axes[-1]:
        axis.set_xlabel("Layer")
    _legend(figure, list(tables), "chance")
    return figure


def deletion_compared(deletion: Mapping[str, pd.DataFrame]) -> Figure | None:
    """Accuracy with visual tokens deleted at random behind the encoder, a panel a task group."""
    tables = {
        name: table[
            (table["policy"] == "random")
            & (table["layer"] == ENCODER)
            & (table["seed"] == SEEDLESS)
            & (table["objects"] == "all")
        ]
        for name, table in deletion.items()
    }
    first = next(iter(tables.values()))
    groups = [group for group in dict.fromkeys(first["group"]) if group != "all"]
    if not groups:
        return None
    columns = min(3, len(groups))
    figure = new_figure(0.6 + 1.9 * -(-len(groups) // columns))
    axes = figure.subplots(-(-len(groups) // columns), columns, sharey=True, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(groups):
            axis.remove()
            continue
        for table, look in zip(tables.values(), _LOOKS, strict=False):
            some = table[table["group"] == groups[place]].sort_values("share")
            band(axis, some.assign(percent=100 * some["share"]), "percent", *look)
        axis.set_title(GROUP_NAMES.get(str(groups[place]), str(groups[place])).capitalize())
        axis.set_ylim(-0.03, 1.03)
        axis.set_xlabel("Visual tokens deleted, %")
        if place % columns == 0:
            axis.set_ylabel("Accuracy")
    _legend(figure, list(tables), None)
    return figure


def _legend(figure: Figure, names: list[str], chance: str | None) -> None:
    handles = [
        Line2D([], [], color=colour, marker=marker, ls=dash, label=name)
        for name, (colour, marker, dash) in zip(names, _LOOKS, strict=False)
    ]
    if chance:
        handles.append(Line2D([], [], color=GREY, ls=":", label=chance))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
