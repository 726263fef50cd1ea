"""The figures of a report, from tables alone.

Ratios are ordered, so their colours come from cividis, which keeps its order for colour-blind
readers and in grey; everything that a colour says a marker or line style says again. Values are
means over seeds with 95 % intervals; single runs are open circles.
"""

from collections.abc import Iterator, Mapping
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mixlens.analysis import Tables
from mixlens.analysis.answer import GROUP_NAMES
from mixlens.analysis.effect import AGAINST_BASE
from mixlens.analysis.tables import HEADLINE, REDUNDANCY

WIDTH = 7.4  # inches; the page shows an inch as 96 pixels, so 9 points are 12 pixels
INK, GREY, BASE_BAND = "#1a1a1a", "#6b6b6b", "#d9d9d9"
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", "-.", ":")
RATIO_LABEL = "Share of complex data"

_STYLE: Mapping[str, object] = {
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


def draw(tables: Tables) -> dict[str, bytes]:
    """Every figure that the tables have data for: name -> SVG."""
    makers = {
        "redundancy": redundancy_by_ratio,
        "accuracy": accuracy_by_ratio,
        "sufficiency": sufficiency,
        "layers": redundancy_profiles,
        "tradeoff": redundancy_against_accuracy,
        "token_metrics": token_metric_profiles,
        "training": training_loss,
    }
    drawn = {}
    with mpl.rc_context(dict(_STYLE)):
        for name, make in makers.items():
            figure = make(tables)
            if figure is not None:
                drawn[name] = _svg(figure)
    return drawn


def redundancy_by_ratio(tables: Tables) -> Figure | None:
    """Redundancy of visual tokens over the ratio: mean over layers, and by depth."""
    runs = _run_means(tables, "visual")
    rows = _of(tables.sweep, "visual", REDUNDANCY)
    if rows.empty:
        return None
    parts = [part for part in ("early", "middle", "late") if part in set(rows["part"])]
    figure = _figure(2.9)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    if not parts:
        right.remove()
    _over_ratio(left, rows[rows["part"] == "mean"])
    _single_runs(left, runs, tables)
    left.set_title("a  Visual tokens, all decoder layers")
    left.set_ylabel("Redundancy score")
    _ratio_axis(left, tables)
    for part, colour, marker, dash in zip(
        parts, (BLUE, ORANGE, GREEN), MARKERS, DASHES, strict=False
    ):
        some = rows[rows["part"] == part]
        base = some[some["run"] == "base"]
        trained = some[some["run"] != "base"].sort_values("ratio")
        _error_line(right, trained, colour, marker, dash, f"{part} third")
        if len(base):
            right.axhline(base["value"].iloc[0], color=colour, lw=0.9, ls=(0, (1, 2)), zorder=1)
    if parts:
        right.set_title("b  Visual tokens by depth")
        right.set_ylabel("Redundancy score")
        _ratio_axis(right, tables)
        right.margins(y=0.12)
        right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1.2)
    left.legend(
        handles=[
            Line2D([], [], color=INK, marker="o", label="mean of seeds"),
            Line2D([], [], ls="", marker="o", mfc="none", mec=BLUE, label="one run"),
            Patch(color=BASE_BAND, label="base model"),
        ],
        loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, columnspacing=1.2,
    )  # fmt: skip
    return figure


def accuracy_by_ratio(tables: Tables) -> Figure | None:
    """Headline score of each task group over the ratio, with base and chance."""
    groups = [group for group, metric in HEADLINE.items() if len(_of(tables.sweep, group, metric))]
    if not groups:
        return None
    columns = min(3, len(groups))
    lines = -(-len(groups) // columns)
    figure = _figure(0.55 + 2.05 * lines)
    axes = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(groups):
            axis.remove()
            continue
        group = groups[place]
        metric = HEADLINE[group]
        rows = _of(tables.sweep, group, metric)
        _over_ratio(axis, rows)
        single = tables.accuracy[
            (tables.accuracy["group"] == group) & (tables.accuracy["metric"] == metric)
        ]
        _single_runs(axis, single, tables)
        chance = rows["chance"].iloc[0]
        if pd.notna(chance):
            axis.axhline(chance, color=ORANGE, ls=":", lw=1.3, zorder=1)
        axis.set_title(f"{'abcdef'[place]}  {_group_title(group)}")
        axis.text(
            0.98, 0.03, f"n = {int(rows['n_images'].min())}", transform=axis.transAxes,
            fontsize=8, color=GREY, ha="right",
        )  # fmt: skip
        if place % columns == 0:
            axis.set_ylabel("Accuracy")
        axis.set_ylim(-0.03, 1.03)
        _ratio_axis(axis, tables, place >= len(groups) - columns)
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
    """How far each ratio stays behind the best, and how often it is the sufficient one."""
    table = tables.recommendation
    if len(table) < 2:
        return None
    figure = _figure(2.6)
    left, right = figure.subplots(1, 2)
    margin = float(table["margin"].iloc[0])
    left.axhspan(-margin, 0, color=BASE_BAND, lw=0, zorder=0)
    left.text(0.98, 0.98, f"shaded: within {100 * margin:g} points of the best",
              transform=left.transAxes, ha="right", va="top", fontsize=8, color=GREY)  # fmt: skip
    some = table.rename(columns={"gap_low": "l", "gap_high": "h"})
    _error_line(
        left, some.assign(value=table["gap"], low=some["l"], high=some["h"]), INK, "o", "-", ""
    )
    chosen = table[table["is_sufficient"]]
    if bool(table["is_distinguishable"].iloc[0]):
        left.plot(chosen["ratio"], chosen["gap"], "o", ms=10, mfc="none", mec=ORANGE, mew=1.6)
    left.set_ylim(top=max(0.02, 0.25 * float(-table["gap_low"].min())))
    left.set_title("a  Complex tasks: gap to the best ratio")
    left.set_ylabel("Accuracy difference")
    _ratio_axis(left, tables)
    step = np.diff(table["ratio"]).min()
    right.bar(table["ratio"], table["probability"], width=0.55 * step, color="#8a8a8a")
    size = 8 if len(table) < 8 else 6
    for ratio, share in zip(table["ratio"], table["probability"], strict=True):
        right.text(ratio, share + 0.02, f"{share:.2f}", ha="center", fontsize=size)
    right.set_ylim(0, 1.12)
    right.set_title("b  How often each ratio is chosen")
    right.set_ylabel("Share of resamples")
    right.grid(axis="x", visible=False)
    _ratio_axis(right, tables, margin=0.12)
    return figure


def redundancy_profiles(tables: Tables) -> Figure | None:
    """Redundancy score by layer for every ratio, and its change against the base."""
    rows = tables.sweep[(tables.sweep["metric"] == REDUNDANCY) & (tables.sweep["part"] == "layer")]
    streams = [
        stream
        for stream in ("visual", "text")
        if rows[rows["subject"] == stream]["layer"].nunique() > 1
    ]
    if not streams:
        return None
    figure = _figure(4.9)
    axes = figure.subplots(2, len(streams), sharex="col", squeeze=False)
    floor = rows[(rows["subject"] == "pixels") & (rows["run"] == "base")]
    changes = tables.effects[
        (tables.effects["contrast"] == AGAINST_BASE)
        & (tables.effects["metric"] == REDUNDANCY)
        & (tables.effects["part"] == "layer")
    ]
    for column, stream in enumerate(streams):
        top, bottom = axes[0, column], axes[1, column]
        some = rows[rows["subject"] == stream]
        _profiles(top, some, tables)
        if len(floor) and stream == "visual":
            top.axhline(floor["value"].iloc[0], color=ORANGE, ls=":", lw=1.3)
            top.text(0.99, floor["value"].iloc[0], "raw pixel patches", fontsize=8, color=ORANGE,
                     transform=top.get_yaxis_transform(), ha="right", va="bottom")  # fmt: skip
        top.set_title(f"{'ab'[column]}  {stream.capitalize()} tokens")
        bottom.axhline(0, color=INK, lw=0.9, ls="--")
        delta = changes[changes["subject"] == stream]
        ends = (min(_ratios(tables)), max(_ratios(tables)))
        for ratio, colour, marker, dash in _looks(tables):
            line = delta[delta["ratio_to"] == ratio].sort_values("layer")
            x = line["layer"].to_numpy(dtype=float)
            bottom.plot(x, line["value"], color=colour, marker=marker, ls=dash,
                        markevery=_sparse(len(line)))  # fmt: skip
            if ratio in ends:
                bottom.fill_between(x, line["low"].astype(float), line["high"].astype(float),
                                    color=colour, alpha=0.18, lw=0)  # fmt: skip
        bottom.set_title(f"{'cd'[column]}  Change against the base model")
        bottom.set_xlabel("Decoder layer")
        bottom.xaxis.set_major_locator(mpl.ticker.MaxNLocator(8, integer=True))
        if column == 0:
            top.set_ylabel("Redundancy score")
            bottom.set_ylabel("Difference")
    _ratio_legend(figure, tables)
    return figure


def redundancy_against_accuracy(tables: Tables) -> Figure | None:
    """Each run as a point: redundancy of its visual tokens and its accuracy."""
    runs = _run_means(tables, "visual", with_base=True).set_index("run")
    table = tables.accuracy
    panels = []
    for name in ("simple", "complex"):
        rows = _of(tables.sweep, name, "accuracy")
        if len(rows) and len(runs):
            panels.append(name)
    if not panels:
        return None
    headline = table[table["group"].map(HEADLINE) == table["metric"]]
    scores = headline.pivot_table(index="run", columns="group", values="value", sort=False)
    members = {"simple": ("coarse", "attribute"), "complex": ("relational", "scene_graph")}
    figure = _figure(3.1)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for place, (axis, name) in enumerate(zip(axes, panels, strict=True)):
        groups = [group for group in members[name] if group in scores]
        accuracy = scores[groups].mean(axis=1)
        for ratio, colour, marker, _ in _looks(tables):
            some = runs[runs["ratio"] == ratio].index
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
    _ratio_legend(figure, tables, lines=False)
    return figure


def token_metric_profiles(tables: Tables) -> Figure | None:
    """Every other metric of the visual tokens by layer, for every ratio."""
    rows = tables.sweep[(tables.sweep["subject"] == "visual") & (tables.sweep["part"] == "layer")]
    counts = rows.groupby("metric")["layer"].nunique()
    metrics = [
        metric for metric in counts.index[counts > 1] if not str(metric).startswith("redundancy")
    ]
    if not metrics:
        return None
    lines = -(-len(metrics) // 3)
    figure = _figure(0.6 + 1.75 * lines)
    axes = figure.subplots(lines, 3, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(metrics):
            axis.remove()
            continue
        _profiles(axis, rows[rows["metric"] == metrics[place]], tables, markers=False)
        axis.set_title(str(metrics[place]).replace("_", " ").capitalize())
        axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
        axis.yaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        if place >= len(metrics) - 3:
            axis.set_xlabel("Decoder layer")
    _ratio_legend(figure, tables, markers=False)
    return figure


def training_loss(tables: Tables) -> Figure | None:
    """Training loss of every run."""
    table = tables.training
    if "loss" not in table or table["loss"].notna().sum() == 0:
        return None
    figure = _figure(2.9)
    axis = figure.subplots()
    seeds = sorted(table["seed"].unique())
    for ratio, colour, _, _ in _looks(tables):
        for place, seed in enumerate(seeds):
            some = table[(table["ratio"] == ratio) & (table["seed"] == seed)]
            axis.plot(some["step"], some["loss"], color=colour, ls=DASHES[place % 4], lw=1.3)
    if (table["loss"] > 0).all() and table["loss"].max() > 10 * table["loss"].min():
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axis.yaxis.set_minor_locator(mpl.ticker.LogLocator(subs=(2, 5)))
        axis.yaxis.set_minor_formatter(mpl.ticker.FormatStrFormatter("%g"))
    axis.set_xlabel("Optimiser step")
    axis.set_ylabel("Loss, nats a token")
    handles = [
        Line2D([], [], color=colour, label=f"ratio {ratio:g}")
        for ratio, colour, _, _ in _looks(tables)
    ]
    handles += [
        Line2D([], [], color=GREY, ls=DASHES[place % 4], label=f"seed {seed}")
        for place, seed in enumerate(seeds[:4])
    ]
    axis.legend(handles=handles, loc="upper right", ncols=2)
    return figure


def _figure(height: float) -> Figure:
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.05, wspace=0.05, hspace=0.04)
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    FigureCanvasSVG(figure)
    return figure


def _svg(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _of(table: pd.DataFrame, subject: str, metric: str) -> pd.DataFrame:
    """Rows of the sweep table of one subject and metric, without single layers and blanks."""
    return table[
        (table["subject"] == subject)
        & (table["metric"] == metric)
        & (table["part"] != "layer")
        & table["value"].notna()
    ]


def _ratios(tables: Tables) -> list[float]:
    return sorted(tables.sweep["ratio"].dropna().unique())


def _looks(tables: Tables) -> Iterator[tuple[float, tuple[float, ...], str, str]]:
    """For each ratio its colour, marker and line style."""
    ratios = _ratios(tables)
    colours = mpl.colormaps["cividis"](np.linspace(0.0, 0.86, len(ratios)))
    for place, ratio in enumerate(ratios):
        yield ratio, tuple(colours[place]), MARKERS[place % 8], DASHES[place % 4]


def _over_ratio(axis: Axes, rows: pd.DataFrame) -> None:
    """Means with intervals over the ratio, and the base as a band."""
    base = rows[rows["run"] == "base"]
    if len(base):
        low, high, value = (float(base[name].iloc[0]) for name in ("low", "high", "value"))
        axis.axhspan(low, high, color=BASE_BAND, lw=0, zorder=0)
        axis.axhline(value, color="#9a9a9a", lw=0.9, zorder=1)
    _error_line(axis, rows[rows["run"] != "base"].sort_values("ratio"), INK, "o", "-", "")


def _single_runs(axis: Axes, rows: pd.DataFrame, tables: Tables) -> None:
    """Each run as an open circle, a little to the right of the mean of its ratio."""
    ratios = _ratios(tables)
    aside = 0.03 * ((max(ratios) - min(ratios)) or 1.0)
    axis.plot(
        rows["ratio"] + aside, rows["value"], "o", mfc="none", mec=BLUE, ms=4, mew=0.9, zorder=4
    )


def _error_line(
    axis: Axes, rows: pd.DataFrame, colour: str, marker: str, dash: str, label: str
) -> None:
    value = rows["value"].to_numpy(dtype=float)
    below = np.nan_to_num(np.maximum(value - rows["low"].to_numpy(dtype=float), 0.0))
    above = np.nan_to_num(np.maximum(rows["high"].to_numpy(dtype=float) - value, 0.0))
    axis.errorbar(rows["ratio"], value, yerr=(below, above), color=colour, marker=marker, ls=dash,
                  capsize=2.5, elinewidth=1.0, label=label, zorder=3)  # fmt: skip


def _profiles(axis: Axes, rows: pd.DataFrame, tables: Tables, markers: bool = True) -> None:
    """One line a ratio over the layers, the base in black dashes."""
    for ratio, colour, marker, dash in _looks(tables):
        line = rows[rows["ratio"] == ratio].sort_values("layer")
        axis.plot(line["layer"].to_numpy(dtype=float), line["value"], color=colour, ls=dash,
                  marker=marker if markers else "", markevery=_sparse(len(line)))  # fmt: skip
    base = rows[rows["run"] == "base"].sort_values("layer")
    axis.plot(base["layer"].to_numpy(dtype=float), base["value"], color=INK, ls="--", lw=1.2)


def _sparse(points: int) -> int:
    """Every how many points a marker is drawn, so that no line has more than ten."""
    return max(1, -(-points // 10))


def _ratio_legend(figure: Figure, tables: Tables, lines: bool = True, markers: bool = True) -> None:
    handles = [
        Line2D([], [], color=colour, marker=marker if markers else "", ls=dash if lines else "",
               label=f"ratio {ratio:g}")
        for ratio, colour, marker, dash in _looks(tables)
    ]  # fmt: skip
    base = {"ls": "--", "lw": 1.2} if lines else {"ls": "", "marker": "*", "ms": 9}
    # The type checker asks one type of all values that are passed on by name.
    handles.append(Line2D([], [], color=INK, label="base model", **base))  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)),
                  handlelength=2.4, columnspacing=1.4)  # fmt: skip


def _ratio_axis(axis: Axes, tables: Tables, labelled: bool = True, margin: float = 0.09) -> None:
    ratios = _ratios(tables)
    # Many ratios: every one has its tick, every other its number, the last one always.
    every = 1 if len(ratios) < 8 else 2
    named = [(len(ratios) - 1 - place) % every == 0 for place in range(len(ratios))]
    labels = [f"{ratio:g}" if show else "" for ratio, show in zip(ratios, named, strict=True)]
    axis.set_xticks(ratios, labels)
    span = max(ratios) - min(ratios) or 1.0
    axis.set_xlim(min(ratios) - margin * span, max(ratios) + margin * span)
    if labelled:
        axis.set_xlabel(RATIO_LABEL)


def _run_means(tables: Tables, stream: str, with_base: bool = False) -> pd.DataFrame:
    """run, ratio, value: the redundancy score of each run, averaged over its layers."""
    rows = tables.layers[
        (tables.layers["stream"] == stream) & (tables.layers["metric"] == REDUNDANCY)
    ]
    means = rows.groupby(["run", "ratio"], dropna=False, sort=False)["value"].mean().reset_index()
    return means if with_base else means[means["ratio"].notna()]


def _group_title(group: str) -> str:
    if HEADLINE[group] == "object_f1":
        return "Scene graph, object F1"
    return GROUP_NAMES[group].capitalize()
