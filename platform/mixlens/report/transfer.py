"""The part of a page on whether trends hold on other images: figure, captions and tables."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mixlens.analysis.tables import REDUNDANCY
from mixlens.analysis.transfer import HOLDS, REVERSES
from mixlens.analysis.transfer_answer import transfer_sentences
from mixlens.analysis.words import listing, number, plain
from mixlens.design import SweepSpec
from mixlens.report.grids import Grid
from mixlens.report.heatmap import SHOWN, STREAM, correlation_heatmap, held_fixed, marks_words
from mixlens.report.page import Section, Table
from mixlens.report.style import BASE_BAND, GREY, INK, new_figure
from mixlens.spec import MeasureSpec

FIGURES = ("transfer", "transfer_correlations")
_COLUMNS = 4
_SIDE = 1.72  # inches of a panel
_MARKS = {HOLDS: "o", REVERSES: "X"}
_OTHER = "."


def transfer_title(spec: SweepSpec | MeasureSpec) -> str:
    """What the section is called."""
    names = (spec.evaluation.component, spec.evaluation.transfer)
    images = sorted({spec.components[name].images for name in names if name is not None})
    return f"On {listing(images)}" if len(images) > 1 else "On other images"


def transfer_section(
    title: str, tables: Mapping[str, pd.DataFrame], figures: Sequence[dict[str, object]]
) -> Section | None:
    """The section; None where nothing was measured on other images.

    Args:
        title: see `transfer_title`.
        tables: those of `mixlens.analysis.transfer_build`.
        figures: those of `FIGURES` that were drawn.
    """
    table = tables.get("transfer", pd.DataFrame())
    if table.empty:
        return None
    summary = tables["transfer_summary"]
    return Section(
        title,
        sentences=transfer_sentences(table, summary),
        figures=list(figures),
        tables=transfer_grids(table, summary),
    )


def transfer_makers(
    tables: Mapping[str, pd.DataFrame],
) -> dict[str, Callable[[], Figure | None]]:
    """What draws each of `FIGURES`; nothing where nothing was measured on other images.

    Args:
        tables: those of `mixlens.analysis.transfer_build`.
    """
    if tables.get("transfer", pd.DataFrame()).empty:
        return {}
    return {
        "transfer": lambda: transfer_figure(tables["transfer"], tables["transfer_summary"]),
        "transfer_correlations": lambda: correlation_heatmap(tables["transfer_correlations"]),
    }


def transfer_figure(table: pd.DataFrame, summary: pd.DataFrame) -> Figure | None:
    """Redundancy of visual tokens: correlation on one side against the other, a panel an attribute.

    A point a layer, with both intervals; None where no correlation is known on both sides.

    Args:
        table: `transfer`.
        summary: `transfer_summary`.
    """
    own = _main(table)
    own = own[own["rho"].notna() & own["rho_there"].notna()]
    if own.empty:
        return None
    pairs = list(own.groupby(["attribute", "attribute_there"], sort=False))
    columns = min(_COLUMNS, len(pairs))
    lines = -(-len(pairs) // columns)
    figure = new_figure(0.75 + _SIDE * lines)
    axes = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    ends = own[["low", "high", "low_there", "high_there"]].abs().to_numpy(dtype=float)
    most = min(1.0, 1.05 * float(np.nanmax(ends)))
    layers = sorted(own["layer"].unique())
    colours = ScalarMappable(Normalize(layers[0], max(layers[-1], layers[0] + 1)), "viridis_r")
    for place, axis in enumerate(axes.flat):
        if place >= len(pairs):
            axis.remove()
            continue
        (name, there), rows = pairs[place]
        _panel(axis, rows, most, colours)
        words = plain(name) if name == there else f"{plain(name)} /\n{plain(there)}"
        axis.set_title(words.capitalize(), size=8.5)
        if place + columns >= len(pairs):
            axis.tick_params(labelbottom=True)
    first = summary.iloc[0]
    figure.supxlabel(f"Spearman correlation on {first['here']}", size=9)
    figure.supylabel(f"on {first['there']}", size=9)
    if len(layers) > 1:
        bar = figure.colorbar(colours, ax=list(figure.axes), pad=0.01, fraction=0.03)
        bar.set_label("Decoder layer")
        bar.outline.set_visible(False)
        bar.locator = mpl.ticker.MaxNLocator(6, integer=True)
    names = [(name, mark) for name, mark in _MARKS.items() if (own["verdict"] == name).any()]
    if not own["verdict"].isin(list(_MARKS)).all():
        names.append(("other" if names else "neither holds nor reverses", _OTHER))
    figure.legend(
        handles=[Line2D([], [], ls="", marker=mark, color=INK, label=name) for name, mark in names],
        loc="outside upper right", ncols=3,
    )  # fmt: skip
    return figure


def transfer_captions(tables: Mapping[str, pd.DataFrame]) -> dict[str, tuple[str, str]]:
    """Title and text of each figure; none where nothing was measured on other images.

    Args:
        tables: those of `mixlens.analysis.transfer_build`, and `correlations`.
    """
    table = tables.get("transfer", pd.DataFrame())
    if table.empty:
        return {}
    first = tables["transfer_summary"].iloc[0]
    here, there, other = first["here"], first["there"], first["other"]
    known_own, known_other = (
        list(tables[name]["attribute"].unique())
        for name in ("correlations", "transfer_correlations")
    )
    is_there = other == there
    known_here, known_there = (known_own, known_other) if is_there else (known_other, known_own)
    without = [
        f"Known of {side} only: {', '.join(map(plain, alone))}."
        for side, known, column in (
            (here, known_here, "attribute"), (there, known_there, "attribute_there")
        )
        if (alone := [name for name in known if name not in set(table[column])])
    ]  # fmt: skip
    return {
        "transfer": (
            f"Trends of redundancy on {here} and on {there}.",
            "Spearman correlation of the redundancy score of visual tokens with each attribute "
            f"that both know, on n = {first['n']} images of {here} (across) and n = "
            f"{first['n_there']} of {there} (upwards); a point a layer of the same model, bars: "
            "95 % intervals over images, each by itself. A trend holds where both intervals "
            "exclude 0 on the same side (shaded), and reverses where they do on different sides. "
            "Layers of one panel are not independent: what one says, its neighbours mostly say "
            f"too. {' '.join(without)}".strip(),
        ),
        "transfer_correlations": (
            f"What the tokens' measures go with on {other}.",
            "Spearman correlation over images of each measure, by layer, with each attribute of "
            f"{other}; below, {held_fixed(known_other)}. "
            f"{marks_words(tables['transfer_correlations'])} "
            f"n = {first['n_there' if is_there else 'n']} images.",
        ),
    }


def transfer_grids(table: pd.DataFrame, summary: pd.DataFrame) -> list[Table]:
    """Redundancy at three layers, then folded: redundancy at all, and the other measures."""
    first = summary.iloc[0]
    names = (str(first["here"]), str(first["there"]))
    own = table[(table["stream"] == STREAM) & table["metric"].isin(list(SHOWN))]
    if own.empty:
        return []
    layers = sorted(own["layer"].unique())
    shown = [layers[at] for at in dict.fromkeys((0, len(layers) // 2, len(layers) - 1))]
    main = _main(table)
    at = "the first, a middle and the last layer"
    brackets = (
        "95 % intervals over images, each by itself. Difference: first less second. Only here: a "
        "trend on the first side that is weaker on the second beyond noise; unclear: one of which "
        "the second side does not tell whether it is weaker; neither: none on either side"
    )
    grids = [
        Table(_grid(main[main["layer"].isin(shown)], names),
              f"Redundancy score of visual tokens at {at}: Spearman correlation with each "
              f"attribute. Brackets: {brackets}."),
        Table(_grid(main, names), "The same at every layer.", is_folded=True),
    ]  # fmt: skip
    for metric, words in SHOWN.items():
        some = own[(own["metric"] == metric) & own["layer"].isin(shown)]
        if metric != REDUNDANCY and len(some):
            grids.append(Table(_grid(some, names), f"{words} at {at}.", is_folded=True))
    return [one for one in grids if one.grid.rows]


def _main(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["stream"] == STREAM) & (table["metric"] == REDUNDANCY)]


def _panel(axis: Axes, rows: pd.DataFrame, most: float, colours: ScalarMappable) -> None:
    axis.set(xlim=(-most, most), ylim=(-most, most), aspect="equal")
    for sign in (-1, 1):
        axis.fill_between([0, sign * most], 0, sign * most, color=BASE_BAND, alpha=0.35, lw=0)
    axis.axhline(0, color=GREY, lw=0.7)
    axis.axvline(0, color=GREY, lw=0.7)
    axis.grid(visible=False)
    axis.locator_params(nbins=4)
    for row in rows.sort_values("layer").to_dict("records"):
        colour = colours.to_rgba(row["layer"])
        mark = _MARKS.get(row["verdict"], _OTHER)
        axis.plot([row["low"], row["high"]], [row["rho_there"]] * 2, color=colour, lw=0.7)
        axis.plot([row["rho"]] * 2, [row["low_there"], row["high_there"]], color=colour, lw=0.7)
        axis.plot(row["rho"], row["rho_there"], marker=mark, color=colour, ms=4.5, mew=0)


def _grid(table: pd.DataFrame, sides: tuple[str, str]) -> Grid:
    rows = []
    for row in table.sort_values("layer", kind="stable").to_dict("records"):
        name, there = plain(row["attribute"]), plain(row["attribute_there"])
        cells = (_cell(row, *names) for names in (
            ("rho", "low", "high"), ("rho_there", "low_there", "high_there"),
            ("difference", "difference_low", "difference_high")))  # fmt: skip
        rows.append(
            (f"layer {row['layer']}, {name}" + ("" if name == there else f" / {there}"),
             *cells, row["verdict"] + (f"\n{row['note']}" if row["note"] else ""))
        )  # fmt: skip
    return Grid(("", *sides, "difference", "verdict"), tuple(rows))


def _cell(row: Mapping, value: str, low: str, high: str) -> str:
    if pd.isna(row[value]):
        return "–"
    ends = ", ".join(number(row[end], 2, True) for end in (low, high))
    return f"{number(row[value], 2, True)}\n[{ends}]"
