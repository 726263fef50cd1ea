"""The parts that the figures of a sweep share, whose lines and points are its levels."""

from collections.abc import Iterator, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mixlens.analysis import Tables
from mixlens.analysis.levels import Levels
from mixlens.analysis.tables import HEADLINE, REDUNDANCY
from mixlens.analysis.words import group_title
from mixlens.design import BASE
from mixlens.report.style import BASE_BAND, BLUE, DASHES, INK, MARKERS

Look = tuple[str, tuple[float, ...], str, str]


def rows_of(table: pd.DataFrame, subject: str, metric: str) -> pd.DataFrame:
    """Rows of the sweep table of one subject and metric, without single layers and blanks."""
    return table[
        (table["subject"] == subject)
        & (table["metric"] == metric)
        & (table["part"] != "layer")
        & table["value"].notna()
    ]


def looks(tables: Tables) -> Iterator[Look]:
    """For each level its colour, marker and line style."""
    levels = Levels(tables.levels).ids
    colours = mpl.colormaps["cividis"](np.linspace(0.0, 0.86, len(levels)))
    for place, level in enumerate(levels):
        yield level, tuple(colours[place]), MARKERS[place % 8], DASHES[place % 4]


def run_means(tables: Tables, stream: str, with_base: bool = False) -> pd.DataFrame:
    """run, level, value: the redundancy score of each run, averaged over its layers."""
    rows = tables.layers[
        (tables.layers["stream"] == stream) & (tables.layers["metric"] == REDUNDANCY)
    ]
    means = rows.groupby(["run", "level"], sort=False)["value"].mean().reset_index()
    return means if with_base else means[means["run"] != BASE]


def profiles(axis: Axes, rows: pd.DataFrame, tables: Tables, markers: bool = True) -> None:
    """One line a level over the layers, the base in black dashes."""
    for level, colour, marker, dash in looks(tables):
        line = rows[rows["level"] == level].sort_values("layer")
        axis.plot(line["layer"].to_numpy(dtype=float), line["value"], color=colour, ls=dash,
                  marker=marker if markers else "", markevery=sparse(len(line)))  # fmt: skip
    base = rows[rows["level"] == BASE].sort_values("layer")
    axis.plot(base["layer"].to_numpy(dtype=float), base["value"], color=INK, ls="--", lw=1.2)


def sparse(points: int) -> int:
    """Every how many points a marker is drawn, so that no line has more than ten."""
    return max(1, -(-points // 10))


def level_legend(figure: Figure, tables: Tables, lines: bool = True, markers: bool = True) -> None:
    """A legend of the levels and the base below the figure."""
    names = Levels(tables.levels)
    handles = [
        Line2D([], [], color=colour, marker=marker if markers else "", ls=dash if lines else "",
               label=names.label(level))
        for level, colour, marker, dash in looks(tables)
    ]  # fmt: skip
    base = {"ls": "--", "lw": 1.2} if lines else {"ls": "", "marker": "*", "ms": 9}
    # The type checker asks one type of all values that are passed on by name.
    handles.append(Line2D([], [], color=INK, label="base model", **base))  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)),
                  handlelength=2.4, columnspacing=1.4)  # fmt: skip


def error_line(
    axis: Axes,
    x: Sequence[float] | np.ndarray | pd.Series,
    rows: pd.DataFrame,
    colour: str,
    marker: str,
    dash: str,
    label: str,
) -> None:
    """Values with their intervals as bars."""
    value = rows["value"].to_numpy(dtype=float)
    below = np.nan_to_num(np.maximum(value - rows["low"].to_numpy(dtype=float), 0.0))
    above = np.nan_to_num(np.maximum(rows["high"].to_numpy(dtype=float) - value, 0.0))
    axis.errorbar(x, value, yerr=(below, above), color=colour, marker=marker, ls=dash,
                  capsize=2.5, elinewidth=1.0, label=label, zorder=3)  # fmt: skip


def base_band(axis: Axes, rows: pd.DataFrame) -> None:
    """The base's value with its interval as a band behind all else."""
    base = rows[rows["level"] == BASE]
    if len(base):
        low, high, value = (float(base[name].iloc[0]) for name in ("low", "high", "value"))
        axis.axhspan(low, high, color=BASE_BAND, lw=0, zorder=0)
        axis.axhline(value, color="#9a9a9a", lw=0.9, zorder=1)


def over_levels(axis: Axes, rows: pd.DataFrame, tables: Tables) -> None:
    """Means with intervals over the levels, joined on a scale; the base as a band."""
    levels = Levels(tables.levels)
    base_band(axis, rows)
    trained = rows[rows["level"] != BASE]
    x = levels.places(trained["level"])
    error_line(axis, x, trained, INK, "o", "-" if levels.is_scale else "", "")


def single_runs(axis: Axes, rows: pd.DataFrame, tables: Tables) -> None:
    """Each run as an open circle, a little to the right of the mean of its level."""
    levels = Levels(tables.levels)
    rows = rows[rows["level"] != BASE]
    aside = 0.03 * _span(levels) if levels.is_scale else 0.13
    x = levels.places(rows["level"]) + aside
    axis.plot(x, rows["value"], "o", mfc="none", mec=BLUE, ms=4, mew=0.9, zorder=4)


def level_axis(axis: Axes, tables: Tables, labelled: bool = True, margin: float = 0.09) -> None:
    """Ticks at the levels, with their numbers on the scale or their labels."""
    levels = Levels(tables.levels)
    ids = levels.ids
    # Many levels: every one has its tick, every other its number, the last one always.
    every = 1 if len(ids) < 8 else 2
    named = [(len(ids) - 1 - place) % every == 0 for place in range(len(ids))]
    texts = [
        _broken(levels.tick(one)) if show else "" for one, show in zip(ids, named, strict=True)
    ]
    at = [levels.at(one) for one in ids]
    axis.set_xticks(at, texts)
    aside = margin * _span(levels) if levels.is_scale else 0.5
    axis.set_xlim(min(at) - aside, max(at) + aside)
    if labelled:
        axis.set_xlabel(levels.title)


def below_axis(tables: Tables) -> float:
    """Where a legend below the axis of levels begins, in heights of the axis."""
    levels = Levels(tables.levels)
    return -0.29 if any("\n" in _broken(levels.tick(one)) for one in levels.ids) else -0.2


def _span(levels: Levels) -> float:
    at = levels.table["at"]
    return float(at.max() - at.min()) or 1.0


def _broken(label: str) -> str:
    """A long label on two lines."""
    return label.replace("_", "_\n", 1) if len(label) > 10 else label


def measured_groups(tables: Tables) -> list[str]:
    """The task groups that were asked."""
    return [
        group for group, metric in HEADLINE.items() if len(rows_of(tables.sweep, group, metric))
    ]


def panel_title(group: str) -> str:
    """A task group's name above a panel."""
    title = group_title(group)
    return title[0].upper() + title[1:]
