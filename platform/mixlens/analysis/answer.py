"""The answer of a sweep in sentences, for the end of the command and the top of the report."""

import pandas as pd

from mixlens.analysis.arm_answer import arm_sentences
from mixlens.analysis.effect import AGAINST_BASE, DIFFERENCE, find_effect
from mixlens.analysis.missing import below_chance, levels_of_quantity, levels_without, not_estimated
from mixlens.analysis.tables import HEADLINE, REDUNDANCY, Tables
from mixlens.analysis.words import (
    coverage,
    is_change,
    listing,
    number,
    score_name,
    size,
    upper,
    with_interval,
)

_SCORE = ("visual", REDUNDANCY, "mean")
_AT_ALL_LAYERS = "have a value at every layer"


def answer_sentences(tables: Tables) -> list[str]:
    """What the ratio did to redundancy and accuracy, which ratio is enough, and what that covers.

    Of arms: whether redundancy goes along with their order, and which of them differ. The first
    sentence is the headline. Each holds its number with a 95 % interval, or says that the sweep
    cannot tell.
    """
    effects = tables.effects
    if effects["arm_to"].ne("").any():
        return arm_sentences(tables)
    differences = effects[effects["contrast"] == DIFFERENCE]
    return [
        _redundancy(tables),
        *_accuracy(tables, _redundancy_changed(effects)),
        *below_chance(tables.sweep),
        sufficiency_sentence(tables.recommendation),
        coverage((effects if differences.empty else differences).iloc[0], "ratio"),
    ]


def _redundancy(tables: Tables) -> str:
    """The headline, and where the score could not be estimated."""
    without = levels_without(tables, *_SCORE)
    gaps = not_estimated(tables, without, "The redundancy score of visual tokens", _AT_ALL_LAYERS)
    row = find_effect(tables.effects, DIFFERENCE, *_SCORE)
    first = _only_ratio(tables) if row is None else _change(row, tables.sweep)
    return " ".join(filter(None, (first, gaps)))


def _only_ratio(tables: Tables) -> str:
    """What can be said where there are no two ratios to compare."""
    levels = levels_of_quantity(tables, *_SCORE)
    if levels.empty:
        return "The redundancy of visual tokens was not measured."
    known = levels[levels["value"].notna()]
    if known.empty:
        return "The effect of the ratio on the redundancy of visual tokens is unknown."
    ratio = f"{known.iloc[0]['ratio']:g}"
    why = (
        f"Only one ratio, {ratio}, has finished"
        if len(levels) == 1
        else f"The redundancy of visual tokens could be estimated at one ratio only, {ratio}"
    )
    change = find_effect(tables.effects, AGAINST_BASE, *_SCORE)
    against = (
        "; nor could it be estimated for the base model"
        if change is None
        else "; against the base model, fine-tuning changed the redundancy score of visual tokens "
        f"by {with_interval(change, signed=True)} ({size(change, 'a ratio')})"
    )
    return f"{why}, so the effect of the ratio is unknown{against}."


def _change(row: pd.Series, sweep: pd.DataFrame) -> str:
    span = f"Raising the share of complex data from {row['ratio_from']:g} to {row['ratio_to']:g}"
    change = with_interval(row, signed=True)
    if is_change(row):
        means = sweep[
            (sweep["subject"] == "visual")
            & (sweep["metric"] == REDUNDANCY)
            & (sweep["part"] == "mean")
        ].set_index("ratio")["value"]
        start, end = (number(means[row[name]]) for name in ("ratio_from", "ratio_to"))
        verb = "lowered" if row["value"] < 0 else "raised"
        return (
            f"{span} {verb} the redundancy score of visual tokens from {start} to {end}, "
            f"a change of {change} ({size(row, 'a ratio')})."
        )
    return (
        f"{span} did not change the redundancy score of visual tokens beyond the noise: "
        f"{change} ({size(row, 'a ratio')})."
    )


def _redundancy_changed(effects: pd.DataFrame) -> bool:
    row = find_effect(effects, DIFFERENCE, "visual", REDUNDANCY, "mean")
    return row is not None and is_change(row)


def _accuracy(tables: Tables, redundancy_changed: bool) -> list[str]:
    """One sentence on the groups that changed, one on those that did not, and what is missing."""
    changed, same, gaps = [], [], []
    for group, metric in HEADLINE.items():
        without = levels_without(tables, group, metric)
        gap = not_estimated(tables, without, upper(score_name(group)), "have a scored answer")
        gaps += [gap] if gap else []
        row = find_effect(tables.effects, DIFFERENCE, group, metric)
        if row is None:
            continue
        change = with_interval(row, signed=True)
        if not without.empty:
            change += f" (from ratio {row['ratio_from']:g} to {row['ratio_to']:g})"
        if is_change(row):
            changed.append(f"{score_name(group)} by {change}")
        else:
            same.append(f"{score_name(group)} {change}")
    sentences = []
    if changed:
        verb = "It changed" if redundancy_changed else "It did change"
        sentences.append(f"{verb} {listing(changed)}.")
    if same and changed:
        sentences.append(f"No change beyond the noise: {listing(same)}.")
    elif same:
        start = "Accuracy did not change" if redundancy_changed else "Nor did accuracy change"
        sentences.append(f"{start} beyond the noise: {listing(same)}.")
    return [*sentences, *gaps]


def sufficiency_sentence(table: pd.DataFrame) -> str:
    """Which ratio is enough, from the recommendation table, in every way it can come out."""
    if table.empty:
        return "No complex task group was measured, so no ratio can be recommended."
    if len(table) == 1:
        return "With one ratio there is nothing to choose between."
    missing = [f"{ratio:g}" for ratio in table.loc[table["value"].isna(), "ratio"]]
    table = table[table["value"].notna()]
    if not missing:
        return _sufficiency(table)
    at = f"Accuracy on complex tasks could not be estimated at ratio {listing(missing)}"
    if len(table) < 2:
        return f"{at}, so no ratio can be recommended."
    return f"{_sufficiency(table)} {at}: left out of the choice."


def _sufficiency(table: pd.DataFrame) -> str:
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
