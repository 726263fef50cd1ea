"""Which measures of the tokens go with which attributes of the image, by layer, as a heat map."""

from collections.abc import Collection, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mixlens.analysis.correlations import LEVEL, held_of
from mixlens.analysis.tables import REDUNDANCY
from mixlens.report.style import BASE_BAND, INK, new_figure
from mixlens.statistics.intervals import Array

STREAM = "visual"
SHOWN = {
    REDUNDANCY: "Redundancy",
    "participation_ratio": "Particip. ratio",
    "effective_rank": "Effective rank",
    "gini": "Gini of norms",
    "stable_rank": "Stable rank",
}
_KINDS = ("", "partial_")
_CELL_HEIGHT = 0.165  # inches

_HELD = {"object_count": "object count", "ink_fraction": "ink", "covered_fraction": "covered share"}


def held_fixed(attributes: Collection[str]) -> str:
    """What the partial correlations of images with these attributes are, for captions."""
    one, other = (_HELD[name] for name in held_of(attributes))
    return (
        f"with {one} and {other} held fixed ({one} itself is held against {other} only, and "
        f"{other} against {one} only)"
    )


def area_words(attributes: Collection[str]) -> str:
    """What more objects also mean more of, for captions: `ink` of scenes, else what is covered."""
    return "ink" if "ink_fraction" in attributes else "of the image covered"


def correlation_heatmap(table: pd.DataFrame) -> Figure | None:
    """Fig. 3 of the study: attributes by layers, a panel a metric of the visual tokens.

    The second row of panels holds the partial correlations. A dot marks a correlation whose p,
    adjusted over the whole table, is at most 0.05; grey cells could not be estimated.

    Args:
        table: `correlations`; see `mixlens.analysis.correlations`.
    """
    own = table[table["stream"] == STREAM]
    # An attribute that is constant over all images would be an empty line.
    own = own[own.groupby("attribute")["rho"].transform("count") > 0]
    metrics = [metric for metric in SHOWN if own.loc[own["metric"] == metric, "rho"].notna().any()]
    if not metrics:
        return None
    own = own[own["metric"].isin(metrics)]
    attributes = list(dict.fromkeys(own["attribute"]))
    layers = sorted(own["layer"].unique())
    most = np.nanmax(own[["rho", "partial_rho"]].abs().to_numpy(dtype=float))
    norm = CenteredNorm(0.0, max(0.1, np.ceil(10 * most) / 10))
    kinds = [kind for kind in _KINDS if own[kind + "rho"].notna().any()]
    heights = [0.65 + _CELL_HEIGHT * len(attributes)] * len(kinds)
    heights[-1] += 0.5  # the name of the layers' axis and the legend
    figure = new_figure(sum(heights))
    rows = figure.subfigures(len(kinds), 1, squeeze=False, height_ratios=heights)[:, 0]
    for place, (row, kind) in enumerate(zip(rows, kinds, strict=True)):
        title = _title(own["given"]) if kind else "Spearman correlation"
        row.suptitle(f"{'ab'[place]}  {title}", x=0.01, ha="left", size=9.5, weight="bold")
        axes = row.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axis, metric in zip(axes, metrics, strict=True):
            cells = own[own["metric"] == metric].pivot(
                index="attribute", columns="layer", values=[kind + "rho", kind + "p"]
            )
            cells = cells.reindex(index=attributes)
            rho, p = (
                cells[kind + name].reindex(columns=layers).to_numpy(dtype=float)
                for name in ("rho", "p")
            )
            mesh = _panel(axis, rho, p, norm)
            _layer_ticks(axis, layers)
            axis.set_title(SHOWN[metric], loc="center", weight="normal", size=8.5)
        axes[0].set_yticks(np.arange(len(attributes)) + 0.5, [_words(name) for name in attributes])
        axes[len(axes) // 2].set_xlabel("Decoder layer" if place == len(kinds) - 1 else "")
        bar = row.colorbar(mesh, ax=list(axes), pad=0.01, fraction=0.03, aspect=3 * len(attributes))
        bar.outline.set_visible(False)
        bar.locator = mpl.ticker.MaxNLocator(5)
    marked, unknown = _marks(own, kinds)
    handles: list[Artist] = []
    if marked:
        words = f"beyond chance: p ≤ {LEVEL:g} over the whole table"
        handles.append(Line2D([], [], ls="", marker="o", ms=3.5, color=INK, label=words))
    if unknown:
        handles.append(Patch(color=BASE_BAND, label="not estimable"))
    if handles:
        rows[-1].legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def marks_words(table: pd.DataFrame) -> str:
    """What the marks of the heat map say, for captions; or that there are none."""
    marked, _ = _marks(table[table["stream"] == STREAM].pipe(_shown), _KINDS)
    if marked:
        return "Marked cells are beyond chance by a max-T permutation test over the whole table."
    return (
        f"No cell is beyond chance (p ≤ {LEVEL:g} by a max-T permutation test over the whole "
        "table): colours alone are no finding."
    )


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["metric"].isin(list(SHOWN))]


def _marks(own: pd.DataFrame, kinds: Sequence[str]) -> tuple[bool, bool]:
    """Whether a cell is beyond chance, and whether one is not estimable."""
    marked = any((own[f"{kind}p"] <= LEVEL).any() for kind in kinds)
    return marked, any(own[f"{kind}rho"].isna().any() for kind in kinds)


def _panel(axis: Axes, rho: Array, p: Array, norm: CenteredNorm) -> QuadMesh:
    """Cells of one metric, attributes downwards and layers to the right."""
    axis.set_facecolor(BASE_BAND)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    many = rho.shape[1] > 16  # lines between so narrow cells would hide them
    mesh = axis.pcolormesh(
        np.ma.masked_invalid(rho), cmap="RdBu_r", norm=norm, edgecolors="face" if many else "white",
        lw=0.1 if many else 0.4,
    )  # fmt: skip
    lines, columns = np.nonzero(p <= LEVEL)
    pale = np.abs(rho[lines, columns]) < 0.6 * norm.halfrange
    size = min(2.2, 40.0 / rho.shape[1])
    for some, colour in ((pale, INK), (~pale, "white")):
        axis.plot(columns[some] + 0.5, lines[some] + 0.5, ls="", marker="o", ms=size, mew=0,
                  color=colour)  # fmt: skip
    axis.invert_yaxis()
    return mesh


def _title(given: pd.Series) -> str:
    names = {name for some in given.unique() for name in some.split(",")}
    words = " and ".join(words for name, words in _HELD.items() if name in names)
    return f"{words.capitalize()} held fixed"


def _layer_ticks(axis: Axes, layers: list[int]) -> None:
    every = max(1, -(-len(layers) // 7))
    shown = range(0, len(layers), every)
    axis.set_xticks([place + 0.5 for place in shown], [str(layers[place]) for place in shown])


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()
