"""The figures of a report, from tables alone.

Levels are ordered, so their colours come from cividis, which keeps its order for
colour-blind readers and in grey; everything that a colour says a marker or line style says again.
Values are means over seeds with 95 % intervals; single runs are open circles.
"""

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mixlens.analysis import Tables
from mixlens.analysis.effect import AGAINST_BASE
from mixlens.analysis.levels import Levels
from mixlens.analysis.tables import HEADLINE, MEAN_ACCURACY, REDUNDANCY, TIERS
from mixlens.design import BASE
from mixlens.report.levels import (
    below_axis,
    error_line,
    level_axis,
    level_legend,
    looks,
    measured_groups,
    over_levels,
    panel_title,
    profiles,
    rows_of,
    run_means,
    single_runs,
    sparse,
)
from mixlens.report.style import (
    BASE_BAND,
    BLUE,
    DASHES,
    GREEN,
    GREY,
    INK,
    MARKERS,
    ORANGE,
    STYLE,
    new_figure,
    svg,
)

PROFILED = {
    "gini": "Gini of norms",
    "energy_entropy": "Energy entropy",
    "mean_cosine": "Mean cosine",
    "participation_ratio": "Participation ratio",
    "stable_rank": "Stable rank",
    "effective_rank": "Effective rank",
    "subspace_alignment_previous": "Alignment, layer below",
    "subspace_alignment_base": "Alignment, base model",
    "subspace_gap": "Gap behind the subspace",
}
"""Of every two metrics that say nearly the same, one; all are in the tables."""


def draw(tables: Tables) -> dict[str, bytes]:
    """Every figure that the tables have data for: name -> SVG."""
    makers = {
        "redundancy": redundancy_by_level,
        "accuracy": accuracy_by_level,
        "sufficiency": sufficiency,
        "layers": redundancy_profiles,
        "tradeoff": redundancy_against_accuracy,
        "token_metrics": token_metric_profiles,
        "training": training_loss,
    }
    drawn = {}
    with mpl.rc_context(dict(STYLE)):
        for name, make in makers.items():
            figure = make(tables)
            if figure is not None:
                drawn[name] = svg(figure)
    return drawn


def redundancy_by_level(tables: Tables) -> Figure | None:
    """Redundancy of visual tokens over the levels: mean over layers, and by depth."""
    runs = run_means(tables, "visual")
    rows = rows_of(tables.sweep, "visual", REDUNDANCY)
    if rows.empty:
        return None
    levels = Levels(tables.levels)
    parts = [part for part in ("early", "middle", "late") if part in set(rows["part"])]
    figure = new_figure(2.9)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    if not parts:
        right.remove()
    over_levels(left, rows[rows["part"] == "mean"], tables)
    single_runs(left, runs, tables)
    left.set_title("a  Visual tokens, all decoder layers")
    left.set_ylabel("Redundancy score")
    level_axis(left, tables)
    for part, colour, marker, dash in zip(
        parts, (BLUE, ORANGE, GREEN), MARKERS, DASHES, strict=False
    ):
        some = rows[rows["part"] == part]
        base = some[some["level"] == BASE]
        trained = some[some["level"] != BASE]
        x = levels.places(trained["level"])
        error_line(right, x, trained, colour, marker, dash, f"{part} third")
        if len(base):
            right.axhline(base["value"].iloc[0], color=colour, lw=0.9, ls=(0, (1, 2)), zorder=1)
    if parts:
        right.set_title("b  Visual tokens by depth")
        right.set_ylabel("Redundancy score")
        level_axis(right, tables)
        right.margins(y=0.12)
        right.legend(loc="upper center", bbox_to_anchor=(0.5, below_axis(tables)), ncols=3,
                     columnspacing=1.2)  # fmt: skip
    left.legend(
        handles=[
            Line2D([], [], color=INK, marker="o", label="mean of seeds"),
            Line2D([], [], ls="", marker="o", mfc="none", mec=BLUE, label="one run"),
            Patch(color=BASE_BAND, label="base model"),
        ],
        loc="upper center", bbox_to_anchor=(0.5, below_axis(tables)), ncols=3, columnspacing=1.2,
    )  # fmt: skip
    return figure


def accuracy_by_level(tables: Tables) -> Figure | None:
    """Headline score of each task group over the levels, with base and chance."""
    groups = measured_groups(tables)
    if not groups:
        return None
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = new_figure(0.55 + 2.05 * lines)
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(groups):
            axis.remove()
            continue
        group = groups[place]
        metric = HEADLINE[group]
        rows = rows_of(tables.sweep, group, metric)
        over_levels(axis, rows, tables)
        single = tables.accuracy[
            (tables.accuracy["group"] == group) & (tables.accuracy["metric"] == metric)
        ]
        single_runs(axis, single, tables)
        chance = rows["chance"].iloc[0]
        if pd.notna(chance):
            axis.axhline(chance, color=ORANGE, ls=":", lw=1.3, zorder=1)
        axis.set_title(f"{'abcdef'[place]}  {panel_title(group)}")
        axis.text(
            0.98, 0.03, f"n = {int(rows['n_images'].min())}", transform=axis.transAxes,
            fontsize=8, color=GREY, ha="right",
        )  # fmt: skip
        if place % columns == 0:
            axis.set_ylabel("Accuracy")
        axis.set_ylim(-0.03, 1.03)
        level_axis(axis, tables, place >= len(groups) - columns)
    figure.legend(
        handles=[
            Line2D([], [], color=INK, marker="o", label="mean of seeds, 95 % interval"),
            Line2D([], [], ls="", marker="o", mfc="none", mec=BLUE, label="one run"),
            Patch(color=BASE_BAND, label="base model, 95 % interval"),
            Line2D([], [], color=ORANGE, ls=":", label="chance"),
        ],
        loc="outside lower center", ncols=4,
    )  # fmt: skip
    return figure


def sufficiency(tables: Tables) -> Figure | None:
    """How far each level stays behind the best, and how often it is the sufficient one."""
    table = tables.recommendation
    if len(table) < 2:
        return None
    figure = new_figure(2.6)
    left, right = figure.subplots(1, 2)
    margin = float(table["margin"].iloc[0])
    left.axhspan(-margin, 0, color=BASE_BAND, lw=0, zorder=0)
    left.text(0.98, 0.98, f"shaded: within {100 * margin:g} points of the best",
              transform=left.transAxes, ha="right", va="top", fontsize=8, color=GREY)  # fmt: skip
    some = table.rename(columns={"gap_low": "l", "gap_high": "h"})
    error_line(
        left,
        table["at"],
        some.assign(value=table["gap"], low=some["l"], high=some["h"]),
        INK,
        "o",
        "-",
        "",
    )
    chosen = table[table["is_sufficient"]]
    if bool(table["is_distinguishable"].iloc[0]):
        left.plot(chosen["at"], chosen["gap"], "o", ms=10, mfc="none", mec=ORANGE, mew=1.6)
    left.set_ylim(top=max(0.02, 0.25 * float(-table["gap_low"].min())))
    left.set_title("a  Complex tasks: gap to the best")
    left.set_ylabel("Accuracy difference")
    level_axis(left, tables)
    step = np.diff(table["at"]).min()
    right.bar(table["at"], table["probability"], width=0.55 * step, color="#8a8a8a")
    size = 8 if len(table) < 8 else 6
    for at, share in zip(table["at"], table["probability"], strict=True):
        right.text(at, share + 0.02, f"{share:.2f}", ha="center", fontsize=size)
    right.set_ylim(0, 1.12)
    right.set_title("b  How often each is chosen")
    right.set_ylabel("Share of resamples")
    right.grid(axis="x", visible=False)
    level_axis(right, tables, margin=0.12)
    return figure


def redundancy_profiles(tables: Tables) -> Figure | None:
    """Redundancy score by layer for every level, and its change against the base."""
    rows = tables.sweep[(tables.sweep["metric"] == REDUNDANCY) & (tables.sweep["part"] == "layer")]
    streams = [
        stream
        for stream in ("visual", "text")
        if rows[rows["subject"] == stream]["layer"].nunique() > 1
    ]
    if not streams:
        return None
    figure = new_figure(4.9)
    axes = figure.subplots(2, len(streams), sharex="col", squeeze=False)
    floor = rows[(rows["subject"] == "pixels") & (rows["level"] == BASE)]
    changes = tables.effects[
        (tables.effects["contrast"] == AGAINST_BASE)
        & (tables.effects["metric"] == REDUNDANCY)
        & (tables.effects["part"] == "layer")
    ]
    for column, stream in enumerate(streams):
        top, bottom = axes[0, column], axes[1, column]
        some = rows[rows["subject"] == stream]
        profiles(top, some, tables)
        if len(floor) and stream == "visual":
            top.axhline(floor["value"].iloc[0], color=ORANGE, ls=":", lw=1.3)
            top.text(0.99, floor["value"].iloc[0], "raw pixel patches", fontsize=8, color=ORANGE,
                     transform=top.get_yaxis_transform(), ha="right", va="bottom")  # fmt: skip
        top.set_title(f"{'ab'[column]}  {stream.capitalize()} tokens")
        bottom.axhline(0, color=INK, lw=0.9, ls="--")
        delta = changes[changes["subject"] == stream]
        levels = Levels(tables.levels).ids
        for level, colour, marker, dash in looks(tables):
            line = delta[delta["level_to"] == level].sort_values("layer")
            x = line["layer"].to_numpy(dtype=float)
            bottom.plot(x, line["value"], color=colour, marker=marker, ls=dash,
                        markevery=sparse(len(line)))  # fmt: skip
            if level in (levels[0], levels[-1]):
                bottom.fill_between(x, line["low"].astype(float), line["high"].astype(float),
                                    color=colour, alpha=0.18, lw=0)  # fmt: skip
        bottom.set_title(f"{'cd'[column]}  Change against the base model")
        bottom.set_xlabel("Decoder layer")
        bottom.xaxis.set_major_locator(mpl.ticker.MaxNLocator(8, integer=True))
        if column == 0:
            top.set_ylabel("Redundancy score")
            bottom.set_ylabel("Difference")
    level_legend(figure, tables)
    return figure


def redundancy_against_accuracy(tables: Tables) -> Figure | None:
    """Each run as a point: redundancy of its visual tokens and its accuracy."""
    runs = run_means(tables, "visual", with_base=True).set_index("run")
    table = tables.accuracy
    panels = []
    for name in TIERS:
        rows = rows_of(tables.sweep, name, MEAN_ACCURACY)
        if len(rows) and len(runs):
            panels.append(name)
    if not panels:
        return None
    headline = table[table["group"].map(HEADLINE) == table["metric"]]
    scores = headline.pivot_table(index="run", columns="group", values="value", sort=False)
    figure = new_figure(3.1)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for place, (axis, name) in enumerate(zip(axes, panels, strict=True)):
        groups = [group for group in TIERS[name] if group in scores]
        accuracy = scores[groups].mean(axis=1)
        for level, colour, marker, _ in looks(tables):
            some = runs[runs["level"] == level].index
            axis.plot(runs.loc[some, "value"], accuracy[some], marker, color=colour, ms=6.5,
                      mec="white", mew=0.5)  # fmt: skip
        if "base" in runs.index and "base" in accuracy.index:
            axis.plot(runs.loc["base", "value"], accuracy["base"], "*", color=INK, ms=10)
        axis.set_title(f"{'ab'[place]}  {name.capitalize()} tasks")
        axis.set_xlabel("Redundancy score of visual tokens")
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(5))
        axis.margins(0.1)
        if place == 0:
            axis.set_ylabel("Accuracy")
    level_legend(figure, tables, lines=False)
    return figure


def token_metric_profiles(tables: Tables) -> Figure | None:
    """The metrics of the visual tokens that say different things, by layer, for every level."""
    rows = tables.sweep[(tables.sweep["subject"] == "visual") & (tables.sweep["part"] == "layer")]
    counts = rows.groupby("metric")["layer"].nunique()
    metrics = [metric for metric in PROFILED if counts.get(metric, 0) > 1]
    if not metrics:
        return None
    lines = -(-len(metrics) // 3)
    figure = new_figure(0.6 + 1.75 * lines)
    axes = figure.subplots(lines, 3, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(metrics):
            axis.remove()
            continue
        profiles(axis, rows[rows["metric"] == metrics[place]], tables, markers=False)
        axis.set_title(PROFILED[metrics[place]])
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
        axis.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        if place >= len(metrics) - 3:
            axis.set_xlabel("Decoder layer")
    level_legend(figure, tables, markers=False)
    return figure


def training_loss(tables: Tables) -> Figure | None:
    """Training loss of every run."""
    table = tables.training
    if "loss" not in table or table["loss"].notna().sum() == 0:
        return None
    figure = new_figure(2.9)
    axis = figure.subplots()
    seeds, names = sorted(table["seed"].unique()), Levels(tables.levels)
    for level, colour, _, _ in looks(tables):
        for place, seed in enumerate(seeds):
            some = table[(table["seed"] == seed) & (table["level"] == level)]
            axis.plot(some["step"], some["loss"], color=colour, ls=DASHES[place % 4], lw=1.3)
    if (table["loss"] > 0).all() and table["loss"].max() > 10 * table["loss"].min():
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axis.yaxis.set_minor_locator(mpl.ticker.LogLocator(subs=(2, 5)))
        axis.yaxis.set_minor_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axis.set_xlabel("Optimiser step")
    axis.set_ylabel("Loss, nats a token")
    handles = [
        Line2D([], [], color=colour, label=names.label(level))
        for level, colour, _, _ in looks(tables)
    ]
    handles += [
        Line2D([], [], color=GREY, ls=DASHES[place % 4], label=f"seed {seed}")
        for place, seed in enumerate(seeds[:4])
    ]
    axis.legend(handles=handles, loc="upper right", ncols=2)
    return figure
