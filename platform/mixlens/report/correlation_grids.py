"""The numbers behind the heat map: correlations with their intervals, an attribute a row."""

import pandas as pd

from mixlens.analysis.correlations import LEVEL
from mixlens.analysis.tables import REDUNDANCY
from mixlens.analysis.words import number, plain
from mixlens.report.grids import Grid
from mixlens.report.heatmap import SHOWN, STREAM, held_fixed
from mixlens.report.page import Table

_AT_ONCE = 3  # layers on the page; all of them are folded


def correlation_grids(table: pd.DataFrame) -> list[Table]:
    """Redundancy at three layers; then folded: at every layer, and the other measures.

    Args:
        table: `correlations`; see `mixlens.analysis.correlations`.
    """
    own = table[(table["stream"] == STREAM) & table["metric"].isin(list(SHOWN))]
    own = own[own.groupby("attribute")["rho"].transform("count") > 0]
    if own.empty:
        return []
    layers = sorted(own["layer"].unique())
    some = [layers[at] for at in dict.fromkeys((0, len(layers) // 2, len(layers) - 1))]
    brackets = (
        "95 % intervals over images, each by itself; a star: beyond chance over the whole table "
        f"(max-T, p ≤ {LEVEL:g})"
    )
    held = held_fixed(list(own["attribute"].unique()))
    first = next(metric for metric in SHOWN if (own["metric"] == metric).any())
    main = own[own["metric"] == first]
    named = "Redundancy score" if first == REDUNDANCY else SHOWN[first]
    found = [
        Table(
            _grid(main, some, ("", "partial_")),
            f"{named} of visual tokens: Spearman correlation with each attribute at "
            f"{'each layer' if len(some) == len(layers) else 'three layers'}; on the right "
            f"{held}. Brackets: {brackets}.",
        )
    ]
    for metric, words in SHOWN.items():
        rows = own[own["metric"] == metric]
        if rows.empty or (metric == first and len(some) == len(layers)):
            continue
        for kind, end in (("", ""), ("partial_", ", held fixed as above")):
            caption = f"{words}, every layer{end}."
            found.append(Table(_grid(rows, layers, (kind,)), caption, is_folded=True))
    return found


def _grid(rows: pd.DataFrame, layers: list[int], kinds: tuple[str, ...]) -> Grid:
    head = [
        f"layer {layer}{', held fixed' if kind and len(kinds) > 1 else ''}"
        for kind in kinds
        for layer in layers
    ]
    lines = []
    for attribute in dict.fromkeys(rows["attribute"]):
        at = rows[rows["attribute"] == attribute].set_index("layer")
        lines.append(
            (plain(attribute),
             *(_cell(at.loc[layer], kind) if layer in at.index else "–"
               for kind in kinds for layer in layers))
        )  # fmt: skip
    return Grid(("", *head), tuple(lines))


def _cell(row: pd.Series, kind: str) -> str:
    value, low, high = (row[f"{kind}{name}"] for name in ("rho", "low", "high"))
    if pd.isna(value):
        return "–"
    star = " *" if row[f"{kind}p"] <= LEVEL else ""
    return f"{number(value, 2, True)}{star}\n[{number(low, 2, True)}, {number(high, 2, True)}]"
