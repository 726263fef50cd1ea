"""What all figures look like: size, colours, marks, and how one becomes an SVG."""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mixlens.statistics.intervals import Array

WIDTH = 7.4  # inches; the page shows an inch as 96 pixels, so 9 points are 12 pixels
INK, GREY, BASE_BAND = "#1a1a1a", "#6b6b6b", "#d9d9d9"
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")

STYLE: Mapping[str, object] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "axes.labelcolor": INK,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "mixlens",
}


def new_figure(height: float) -> Figure:
    """An empty figure of the page's width and this height, inches."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05, wspace=0.05, hspace=0.04)
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    FigureCanvasSVG(figure)
    return figure


def reads_at_edge(axis: Axes, main: Array, others: Sequence[tuple[str, str, Array]]) -> None:
    """Let an axis show `main`, and others only as far as they leave it readable.

    What would take more than half of the height away from `main` stays outside, and the edge says
    where it is, so that no far value flattens curves.

    Args:
        axis: drawn already.
        main: values that have to be seen well.
        others: name, colour and values of what need not.
    """
    known = main[np.isfinite(main)]
    if not known.size:
        return
    low, high = float(known.min()), float(known.max())
    room = max(high - low, 0.02 * max(abs(low), abs(high), 1e-12))
    least, most = low, high
    outside: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for name, colour, values in others:
        there = values[np.isfinite(values)]
        if not there.size:
            continue
        first, last = float(there.min()), float(there.max())
        if max(high, last) - min(low, first) <= 2.0 * room:
            least, most = min(least, first), max(most, last)
            continue
        is_above = last > high
        span = f"{first:.3g}" if f"{first:.3g}" == f"{last:.3g}" else f"{first:.3g} to {last:.3g}"
        outside[is_above].append((f"{name}: {span} {'↑' if is_above else '↓'}", colour))
    if not any(outside.values()):
        return
    lines = 0.1 * room  # of the height for each line at an edge
    pad = 0.06 * (most - least or room)
    axis.set_ylim(
        least - pad - lines * len(outside[False]), most + pad + lines * len(outside[True])
    )
    for is_above, texts in outside.items():
        for place, (text, colour) in enumerate(texts):
            axis.annotate(
                text, (1.0, 1.0 if is_above else 0.0), (-2, (-9 if is_above else 9) * place),
                xycoords="axes fraction", textcoords="offset points", ha="right",
                va="top" if is_above else "bottom", size=7, color=colour,
            )  # fmt: skip


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file, the same bytes for the same figure."""
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
