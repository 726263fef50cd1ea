"""The figure of a sweep of arms: where redundancy ends, and what each model can answer."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mixlens.analysis import Tables
from mixlens.analysis.tables import HEADLINE, REDUNDANCY
from mixlens.design import BASE
from mixlens.report.levels import (
    base_band,
    error_line,
    group_title,
    levels_shown,
    measured_groups,
    rows_of,
    run_means,
)
from mixlens.report.style import BASE_BAND, BLUE, INK, new_figure

ASIDE = 0.13  # of single runs, in places


def arms_compared(tables: Tables) -> Figure | None:
    """Redundancy of visual tokens by arm, and accuracy of each arm on each task group."""
    levels = levels_shown(tables)
    rows = rows_of(tables.sweep, "visual", REDUNDANCY)
    rows = rows[rows["part"] == "mean"]
    groups = measured_groups(tables)
    if not levels[0].arm or rows.empty or not groups:
        return None
    figure = new_figure(1.7 + 0.3 * max(len(levels), 4))
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    base_band(left, rows)
    trained = rows[rows["run"] != BASE]
    places = [_place(tables, arm) for arm in trained["arm"]]
    error_line(left, places, trained, INK, "o", "", "")
    runs = run_means(tables, "visual")
    aside = [_place(tables, arm) + ASIDE for arm in runs["arm"]]
    left.plot(aside, runs["value"], "o", mfc="none", mec=BLUE, ms=4, mew=0.9, zorder=4)
    left.set_xticks(range(len(levels)), [_broken(level.arm) for level in levels])
    left.set_xlim(-0.5, len(levels) - 0.5)
    left.margins(y=0.12)
    left.set_title("a  Visual tokens, all decoder layers")
    left.set_xlabel("Trained on, from simple to complex")
    left.set_ylabel("Redundancy score")
    left.legend(
        handles=[
            Line2D([], [], ls="", color=INK, marker="o", label="mean of seeds"),
            Line2D([], [], ls="", marker="o", mfc="none", mec=BLUE, label="one run"),
            Patch(color=BASE_BAND, label="base model"),
        ],
        loc="upper center", bbox_to_anchor=(0.42, -0.3), ncols=3, columnspacing=1.0,
        handlelength=1.2,
    )  # fmt: skip
    _matrix(right, tables, groups)
    return figure


def _matrix(axis: Axes, tables: Tables, groups: list[str]) -> None:
    """Accuracies as a map: trained on (rows), asked about (columns)."""
    names = [BASE, *(level.name for level in levels_shown(tables))]
    values = np.full((len(names), len(groups)), np.nan)
    for column, group in enumerate(groups):
        found = rows_of(tables.sweep, group, HEADLINE[group]).set_index("run")["value"]
        values[:, column] = found.reindex(names)
    axis.imshow(values, cmap="cividis", vmin=0.0, vmax=1.0, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value < 0.55 else INK
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour)
    titles = [group_title(group).replace(" ", "\n") for group in groups]
    axis.set_xticks(range(len(groups)), titles, size=7.5 if len(groups) > 4 else 8)
    axis.set_yticks(range(len(names)), ["base model", *names[1:]])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set_title("b  Accuracy")
    axis.set_xlabel("Asked about")
    axis.set_ylabel("Trained on")


def _place(tables: Tables, arm: str) -> int:
    return [level.arm for level in levels_shown(tables)].index(arm)


def _broken(arm: str) -> str:
    """A long name on two lines."""
    return arm.replace("_", "_\n", 1) if len(arm) > 10 else arm
