"""What a model does without visual tokens: accuracy and time against the share deleted.

Shares stand at equal distances, whatever their values, because what happens happens near the end.
"""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixlens.analysis.deletion import bin_start
from mixlens.analysis.tables import ALL
from mixlens.analysis.words import GROUP_NAMES
from mixlens.probing.settings import DOWNSAMPLING, RANDOM, SALIENCY, SEEDLESS
from mixlens.report.style import BLUE, DASHES, GREEN, INK, MARKERS, ORANGE, new_figure
from mixlens.spec.measure import ENCODER

_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#8B6F00")  # Okabe and Ito, the last darker
_POLICY_NAMES = {
    "norm": "largest norm",
    "attention": "attention received",
    "leverage": "leverage",
    "unique": "uniqueness",
    SALIENCY: "budget by saliency",
    DOWNSAMPLING: "smaller image",
}


def deletion_curves(table: pd.DataFrame) -> Figure | None:
    """Accuracy by task group and object count, policies against random, and time.

    Args:
        table: `mixlens.analysis.deletion.deletion_table`.

    Returns:
        Panels of accuracy against the share deleted at random, by task group and by object count,
        at the first place of deletion; of the difference of every policy to random at each place;
        of accuracy by place if there are several; and of prefill time. None without data.
    """
    means = table[table["seed"] == SEEDLESS]
    if means.empty:
        return None
    shares = sorted(means["share"].unique())
    deleted = [share for share in shares if share > 0]
    random = means[means["policy"] == RANDOM]
    layers = sorted(random["layer"].unique())
    first = random[random["layer"] == layers[0]]
    overall = _only(means, ALL, ALL)
    several = len(layers) > 1
    compared = [layer for layer in layers if _policies(overall, layer)]

    panels = 3 + several + len(compared)
    rows = -(-panels // 2)
    figure = new_figure(0.2 + 2.9 * rows)
    axes = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axis in axes[panels:]:
        axis.remove()
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    places = iter(axes)

    axis = next(places)
    groups = [group for group in GROUP_NAMES if group in set(first["group"])]
    for place, group in enumerate(groups):
        name = GROUP_NAMES[group]
        _curve(axis, shares, _only(first, group, ALL), _COLOURS[place % 6], place, name)
    _curve(axis, shares, _only(first, ALL, ALL), INK, len(groups), "all questions", width=2.2)
    _finish(axis, f"{next(letters)}  Random deletion, by task", shares, _where(layers[0]))

    axis = next(places)
    bins = sorted(set(first["objects"]) - {ALL}, key=bin_start)
    colours = mpl.colormaps["cividis"](np.linspace(0.0, 0.86, max(len(bins), 1)))
    for place, (name, colour) in enumerate(zip(bins, colours, strict=False)):
        some = _only(first, ALL, name)
        label = f"{name} objects (n = {int(some['n'].iloc[0])})"
        _curve(axis, shares, some, tuple(colour), place, label)
    _finish(axis, f"{next(letters)}  Random deletion, by object count", shares, _where(layers[0]))

    if several:
        axis = next(places)
        colours = mpl.colormaps["cividis"](np.linspace(0.0, 0.86, len(layers)))
        for place, (layer, colour) in enumerate(zip(layers, colours, strict=True)):
            some = _only(random[random["layer"] == layer], ALL, ALL)
            _curve(axis, shares, some, tuple(colour), place, _where(layer))
        _finish(axis, f"{next(letters)}  Random deletion, by place", shares)

    for layer in compared:
        axis = next(places)
        _differences(axis, overall[overall["layer"] == layer], deleted)
        _finish(axis, f"{next(letters)}  Policies against random", deleted, _where(layer),
                "Accuracy minus random")  # fmt: skip

    axis = next(places)
    for place, layer in enumerate(layers):
        some = overall[(overall["layer"] == layer) & (overall["policy"] == RANDOM)]
        _times(axis, shares, some, _COLOURS[place % 6], place, f"deleted {_where(layer)}")
    smaller = overall[overall["policy"] == DOWNSAMPLING]
    if len(smaller):
        _times(axis, shares, smaller, INK, len(layers), _POLICY_NAMES[DOWNSAMPLING])
    _finish(axis, f"{next(letters)}  Time to read an image", shares, name="Prefill, ms an image")
    axis.set_ylim(bottom=0)
    return figure


def _only(table: pd.DataFrame, group: str, objects: str) -> pd.DataFrame:
    rows = table[(table["group"] == group) & (table["objects"] == objects)]
    return rows.sort_values("share")


def _policies(overall: pd.DataFrame, layer: int) -> list[str]:
    """What can be held against random at a place."""
    there = set(overall.loc[overall["layer"] == layer, "policy"])
    return [policy for policy in _POLICY_NAMES if policy in there]


def _where(layer: int) -> str:
    return "after the encoder" if layer == ENCODER else f"before block {layer}"


def _at(shares: Sequence[float], rows: pd.DataFrame) -> list[int]:
    return [shares.index(share) for share in rows["share"]]


def _curve(
    axis: Axes, shares: Sequence[float], rows: pd.DataFrame, colour: str | tuple[float, ...],
    look: int, label: str, width: float = 1.5,
) -> None:  # fmt: skip
    """Values over the shares with their intervals as a band."""
    x = _at(shares, rows)
    axis.fill_between(x, rows["low"].astype(float), rows["high"].astype(float), color=colour,
                      alpha=0.1, lw=0)  # fmt: skip
    axis.plot(x, rows["value"], color=colour, marker=MARKERS[look % 8], ls=DASHES[look % 4],
              lw=width, label=label)  # fmt: skip


def _differences(axis: Axes, rows: pd.DataFrame, shares: Sequence[float]) -> None:
    """Each policy beside the others at every share, with its paired interval."""
    policies = [policy for policy in _POLICY_NAMES if policy in set(rows["policy"])]
    axis.axhline(0, color=INK, lw=0.9, ls="--")
    axis.grid(visible=False, axis="x")
    for place in range(0, len(shares), 2):
        axis.axvspan(place - 0.5, place + 0.5, color="#f4f4f4", lw=0, zorder=0)
    axis.set_xlim(-0.5, len(shares) - 0.5)
    for place, policy in enumerate(policies):
        some = rows[rows["policy"] == policy].sort_values("share")
        value = some["against_random"].to_numpy(dtype=float)
        low, high = (some[f"against_{end}"].to_numpy(dtype=float) for end in ("low", "high"))
        aside = 0.7 * ((place + 0.5) / len(policies) - 0.5)
        error = np.nan_to_num([np.maximum(value - low, 0), np.maximum(high - value, 0)])
        axis.errorbar(np.array(_at(shares, some)) + aside, value, yerr=error, ls="",
                      color=_COLOURS[place % 6], marker=MARKERS[place % 8], ms=3.6,
                      elinewidth=1.0, label=_POLICY_NAMES[policy])  # fmt: skip


def _times(
    axis: Axes, shares: Sequence[float], rows: pd.DataFrame, colour: str, look: int, label: str
) -> None:
    rows = rows.sort_values("share")
    axis.plot(_at(shares, rows), 1000 * rows["prefill_s_per_image"], color=colour,
              marker=MARKERS[look % 8], ls=DASHES[look % 4], label=label)  # fmt: skip


def _finish(
    axis: Axes, title: str, shares: Sequence[float], where: str = "", name: str = "Accuracy"
) -> None:
    axis.set_title(title)
    axis.set_ylabel(name)
    axis.set_xlabel(f"Visual tokens deleted {where}".rstrip() + ", %")
    axis.set_xticks(range(len(shares)), [f"{100 * share:g}" for share in shares])
    if name == "Accuracy":
        axis.set_ylim(bottom=0)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, columnspacing=1.2)
