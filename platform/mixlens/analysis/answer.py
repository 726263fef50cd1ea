"""The answer of a sweep in sentences, for the end of the command and the top of the report."""

import pandas as pd

from mixlens.analysis.effect import AGAINST_BASE, DIFFERENCE, find_effect, is_beyond_noise
from mixlens.analysis.tables import HEADLINE, REDUNDANCY, Tables

GROUP_NAMES = {
    "coarse": "coarse",
    "attribute": "attribute",
    "relational": "relational",
    "scene_graph": "scene-graph",
    "count": "counting",
    "locate": "localisation",
    "pair": "pair",
    "caption": "caption",
    "simple": "simple",
    "complex": "complex",
}


def answer_sentences(tables: Tables) -> list[str]:
    """What the ratio did to redundancy and accuracy, which ratio is enough, and what that covers.

    The first sentence is the headline. Each holds its number with a 95 % interval, or says that
    the sweep cannot tell.
    """
    effects = tables.effects
    return [
        _redundancy(effects, tables.sweep),
        *_accuracy(effects, _redundancy_changed(effects)),
        sufficiency_sentence(tables.recommendation),
        _coverage(effects),
    ]


def score_name(group: str) -> str:
    """What the headline score of a task group is called."""
    score = "object F1" if HEADLINE[group] == "object_f1" else "accuracy"
    return f"{GROUP_NAMES[group]} {score}"


def number(value: float, digits: int = 3, signed: bool = False) -> str:
    """A number for people: a real minus sign, no negative zero, "n/a" for NaN."""
    if pd.isna(value):
        return "n/a"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def with_interval(row: pd.Series, digits: int = 3, signed: bool = False) -> str:
    """`value [low, high]`; without ends where they are unknown."""
    value = number(row["value"], digits, signed)
    if pd.isna(row["low"]):
        return f"{value} (no interval)"
    low, high = (number(row[end], digits, signed) for end in ("low", "high"))
    return f"{value} [{low}, {high}]"


def _redundancy(effects: pd.DataFrame, sweep: pd.DataFrame) -> str:
    row = find_effect(effects, DIFFERENCE, "visual", REDUNDANCY, "mean")
    if row is None:
        rows = effects[
            (effects["contrast"] == AGAINST_BASE)
            & (effects["subject"] == "visual")
            & (effects["metric"] == REDUNDANCY)
            & (effects["part"] == "mean")
        ]
        if rows.empty:
            return "The redundancy of visual tokens was not measured."
        only = rows.iloc[0]
        return (
            f"Only one ratio, {only['ratio_to']:g}, has finished, so the effect of the ratio is "
            "unknown; against the base model, fine-tuning changed the redundancy score of visual "
            f"tokens by {with_interval(only, signed=True)} ({_size(only)})."
        )
    span = f"Raising the share of complex data from {row['ratio_from']:g} to {row['ratio_to']:g}"
    change = with_interval(row, signed=True)
    if _is_change(row):
        means = sweep[
            (sweep["subject"] == "visual")
            & (sweep["metric"] == REDUNDANCY)
            & (sweep["part"] == "mean")
        ].set_index("ratio")["value"]
        start, end = (number(means[row[name]]) for name in ("ratio_from", "ratio_to"))
        verb = "lowered" if row["value"] < 0 else "raised"
        return (
            f"{span} {verb} the redundancy score of visual tokens from {start} to {end}, "
            f"a change of {change} ({_size(row)})."
        )
    return (
        f"{span} did not change the redundancy score of visual tokens beyond the noise: "
        f"{change} ({_size(row)})."
    )


def _redundancy_changed(effects: pd.DataFrame) -> bool:
    row = find_effect(effects, DIFFERENCE, "visual", REDUNDANCY, "mean")
    return row is not None and _is_change(row)


def _is_change(row: pd.Series) -> bool:
    """Beyond the noise, or of unknown noise."""
    return pd.isna(row["low"]) or is_beyond_noise(row)


def _accuracy(effects: pd.DataFrame, redundancy_changed: bool) -> list[str]:
    """One sentence on the groups that changed, one on those that did not."""
    changed, same = [], []
    for group, metric in HEADLINE.items():
        row = find_effect(effects, DIFFERENCE, group, metric)
        if row is None:
            continue
        change = with_interval(row, signed=True)
        if _is_change(row):
            changed.append(f"{score_name(group)} by {change}")
        else:
            same.append(f"{score_name(group)} {change}")
    sentences = []
    if changed:
        verb = "It changed" if redundancy_changed else "It did change"
        sentences.append(f"{verb} {_list(changed)}.")
    if same and changed:
        sentences.append(f"No change beyond the noise: {_list(same)}.")
    elif same:
        start = "Accuracy did not change" if redundancy_changed else "Nor did accuracy change"
        sentences.append(f"{start} beyond the noise: {_list(same)}.")
    return sentences


def sufficiency_sentence(table: pd.DataFrame) -> str:
    """Which ratio is enough, from the recommendation table, in every way it can come out."""
    if table.empty:
        return "No complex task group was measured, so no ratio can be recommended."
    if len(table) == 1:
        return "With one ratio there is nothing to choose between."
    first = table.iloc[0]
    margin = f"{100 * first['margin']:g} points"
    if not first["is_distinguishable"]:
        noise = (
            f"the largest difference is {number(first['spread'])}, and noise alone makes "
            f"differences up to {number(first['noise'])}"
        )
        return (
            "On complex tasks no ratio differs from another beyond the noise "
            f"({noise}), so this sweep does not tell which ratio is enough."
        )
    chosen = table[table["is_sufficient"]].iloc[0]
    best = table.loc[table["value"].idxmax()]
    span = f"[{first['sufficient_low']:g}, {first['sufficient_high']:g}]"
    alone = "" if first["covers"] != "images" else " (seed noise unknown)"
    if chosen["ratio"] == table["ratio"].max():
        text = (
            f"Of the ratios tried only the highest, {chosen['ratio']:g} {span}, reaches the best "
            f"accuracy on complex tasks ({number(best['value'])}) to within {margin}"
        )
    elif chosen["ratio"] == table["ratio"].min():
        text = (
            f"The lowest ratio tried, {chosen['ratio']:g} {span}, is already enough: with it "
            f"accuracy on complex tasks is {number(chosen['value'])}; the best is "
            f"{number(best['value'])}, at {best['ratio']:g}"
        )
    elif chosen["ratio"] == best["ratio"]:
        text = (
            f"A ratio of {chosen['ratio']:g} {span} does best on complex tasks (accuracy "
            f"{number(best['value'])}), and no smaller one comes within {margin} of it"
        )
    else:
        text = (
            f"A ratio of {chosen['ratio']:g} {span} is enough: its accuracy on complex tasks "
            f"({number(chosen['value'])}) is within {margin} of the best "
            f"({number(best['value'])} at {best['ratio']:g})"
        )
    return f"{text}{_price(chosen, table)}{alone}."


def _price(chosen: pd.Series, table: pd.DataFrame) -> str:
    """What the chosen ratio does to simple tasks against the lowest ratio."""
    if chosen["ratio"] == table["ratio"].min() or pd.isna(chosen["simple_change"]):
        return ""
    low, high = chosen["simple_change_low"], chosen["simple_change_high"]
    change = (
        f"{number(chosen['simple_change'], signed=True)} "
        f"[{number(low, signed=True)}, {number(high, signed=True)}]"
    )
    lowest = f"against ratio {table['ratio'].min():g}"
    if low > 0:
        return f", and it also raises accuracy on simple tasks by {change} {lowest}"
    if high < 0:
        return f", at a cost of {change} in accuracy on simple tasks {lowest}"
    return f", and it costs nothing measurable on simple tasks ({change} {lowest})"


def _coverage(effects: pd.DataFrame) -> str:
    rows = effects[effects["contrast"] == DIFFERENCE]
    if rows.empty:
        rows = effects
    row = rows.iloc[0]
    if row["covers"] == "images":
        return (
            "Brackets are 95 % intervals over held-out images only: no ratio has a second seed, "
            "so the noise of training is not in them, and a difference may still be luck."
        )
    few = (
        " With so few seeds the intervals lean on seed noise being alike at every ratio."
        if row["n_seeds"] < 5
        else ""
    )
    return f"Brackets are 95 % intervals over held-out images and training seeds.{few}"


def _size(row: pd.Series) -> str:
    runs, few, many, images = (
        int(row[name]) for name in ("n_runs", "n_seeds", "n_seeds_max", "n_images")
    )
    seeds = f"{few} to {many} seeds" if few != many else f"{few} seed{'s' if few != 1 else ''}"
    return f"{runs} run{'s' if runs != 1 else ''}, {seeds} a ratio, {images} held-out images"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
