"""The answer of a sweep in sentences, for the end of the command and the top of the report."""

from collections.abc import Iterable

import pandas as pd

from mixlens.analysis.effect import (
    AGAINST_BASE,
    DIFFERENCE,
    PAIR,
    TREND,
    find_effect,
    is_beyond_noise,
)
from mixlens.analysis.levels import Levels
from mixlens.analysis.missing import below_chance, levels_of_quantity, levels_without, not_estimated
from mixlens.analysis.tables import HEADLINE, REDUNDANCY, Tables
from mixlens.analysis.words import (
    coverage,
    digits_of,
    is_change,
    listing,
    number,
    score_name,
    size,
    upper,
    with_interval,
)
from mixlens.design import BASE

SHOWN_PAIRS = 3
_SCORE = ("visual", REDUNDANCY, "mean")


def answer_sentences(tables: Tables) -> list[str]:
    """What the levels did to redundancy and accuracy, which one is enough, and what that covers.

    Without a scale nothing is enough: there it is said which levels differ. The first sentence is
    the headline. Each holds its number with a 95 % interval, or says that the sweep cannot tell.
    """
    levels, effects = Levels(tables.levels), tables.effects
    sentences = [_headline(tables, levels)]
    if not levels.is_scale:
        sentences += [_means(tables, levels), _pairs(effects, levels), _against(effects, levels)]
    sentences += [*_accuracy(tables, levels), *below_chance(tables)]
    if levels.is_scale:
        sentences.append(sufficiency_sentence(tables.recommendation, levels.noun))
    differences = effects[effects["contrast"] == DIFFERENCE]
    covered = (effects if differences.empty else differences).iloc[0]
    return [*filter(None, sentences), coverage(covered, levels.noun)]


def _headline(tables: Tables, levels: Levels) -> str:
    """The verdict on redundancy, and where the score could not be estimated."""
    ends = find_effect(tables.effects, DIFFERENCE, *_SCORE)
    trend = find_effect(tables.effects, TREND, *_SCORE)
    if ends is None or trend is None:
        first = _only_one(tables, levels)
    elif levels.is_scale:
        first = _change(ends, tables.sweep, levels)
    else:
        first = _along(ends, trend, levels)
    without = levels_without(tables, *_SCORE)
    score = "The redundancy score of visual tokens"
    gaps = not_estimated(tables, without, score, "have a value at every layer")
    return " ".join(filter(None, (first, gaps)))


def _only_one(tables: Tables, levels: Levels) -> str:
    """The headline where there are no two levels to compare."""
    noun = levels.noun
    rows = levels_of_quantity(tables, *_SCORE)
    if rows.empty:
        return "The redundancy of visual tokens was not measured."
    known = rows[rows["value"].notna()]
    if known.empty:
        return f"The effect of the {noun} on the redundancy of visual tokens is unknown."
    one = levels.tick(known.iloc[0]["level"])
    why = (
        f"Only one {noun}, {one}, has finished"
        if len(rows) == 1
        else f"The redundancy of visual tokens could be estimated at one {noun} only, {one}"
    )
    change = find_effect(tables.effects, AGAINST_BASE, *_SCORE)
    against = (
        "; nor could it be estimated for the base model"
        if change is None
        else "; against the base model, fine-tuning changed the redundancy score of visual tokens "
        f"by {with_interval(change, signed=True)} ({size(change, levels.each())})"
    )
    return f"{why}, so the effect of the {noun} is unknown{against}."


def _change(ends: pd.Series, sweep: pd.DataFrame, levels: Levels) -> str:
    """From the lowest level of a scale to the highest."""
    first, last = ends["level_from"], ends["level_to"]
    axis = levels.title[:1].lower() + levels.title[1:]
    span = f"Raising the {axis} from {levels.tick(first)} to {levels.tick(last)}"
    change, rests = with_interval(ends, signed=True), size(ends, levels.each())
    if not is_change(ends):
        return (
            f"{span} did not change the redundancy score of visual tokens beyond the noise: "
            f"{change} ({rests})."
        )
    means = _redundancy(sweep).set_index("level")["value"]
    verb = "lowered" if ends["value"] < 0 else "raised"
    return (
        f"{span} {verb} the redundancy score of visual tokens from {number(means[first])} to "
        f"{number(means[last])}, a change of {change} ({rests})."
    )


def _along(ends: pd.Series, trend: pd.Series, levels: Levels) -> str:
    """Along levels in an order: the verdict is that of the trend, not of the two ends."""
    noun = levels.noun
    if not is_beyond_noise(trend):
        verdict = "visual tokens do not become less redundant beyond the noise"
    else:
        verdict = f"visual tokens become {'less' if trend['value'] < 0 else 'more'} redundant"
    unknown = "" if ends["covers"] != "images" else ", seed noise unknown"
    alone = ""
    if is_beyond_noise(ends) != is_beyond_noise(trend):
        alone = ", beyond the noise" if is_beyond_noise(ends) else ", by itself within the noise"
    return (
        f"Along the {noun}s, from {levels.label(ends['level_from'])} to "
        f"{levels.label(ends['level_to'])}, {verdict}: the redundancy score changes by "
        f"{_fine(trend)} per {noun}; the last minus the first is {_fine(ends)}{alone} "
        f"({size(ends, levels.each())}{unknown})."
    )


def _means(tables: Tables, levels: Levels) -> str:
    """The redundancy score at every level, and whether the means follow the order."""
    rows = _redundancy(tables.sweep)
    trained = rows[rows["level"] != BASE]
    if len(trained) < 2:
        return ""
    values = [
        (levels.label(row["level"]), with_interval(row, digits_of(row)))
        for _, row in trained.iterrows()
    ]
    first = f"{values[0][0]}, the redundancy score of visual tokens is {values[0][1]}"
    others = [f"{label} it is {value}" for label, value in values[1:]]
    before = "".join(
        f"; before fine-tuning it is {with_interval(row, digits_of(row))}"
        for _, row in rows[rows["level"] == BASE].iterrows()
    )
    steps = trained["value"].diff().dropna()
    if (steps < 0).all():
        order = f"The means fall from each {levels.noun} to the next"
    elif (steps > 0).all():
        order = f"The means rise from each {levels.noun} to the next"
    else:
        order = f"The means do not run in one direction along the {levels.noun}s"
    return f"Trained on {'; on '.join([first, *others])}{before}. {order}."


def _pairs(effects: pd.DataFrame, levels: Levels) -> str:
    """Which levels differ, by intervals that hold for all pairs at once."""
    rows = _redundancy(effects[effects["contrast"] == PAIR])
    if rows.empty:
        return ""
    rows = rows.reindex(rows["value"].abs().sort_values(ascending=False, kind="stable").index)
    beyond = rows[[is_beyond_noise(row) for _, row in rows.iterrows()]]
    count = len(rows)
    every = f"{'the one pair' if count == 1 else f'the {count} pairs'} of {levels.noun}s"
    if beyond.empty:
        return (
            f"Of {every} none differs in redundancy beyond the noise; the largest difference is "
            f"{_pair(rows.iloc[0], levels)}."
        )
    shown = [_pair(row, levels) for _, row in beyond.head(SHOWN_PAIRS).iterrows()]
    more = "the largest of them " if len(beyond) > SHOWN_PAIRS else ""
    return (
        f"Of {every} {len(beyond)} differ{'s' if len(beyond) == 1 else ''} in redundancy beyond "
        f"the noise of all pairs together: {more}{listing(shown)}."
    )


def _pair(row: pd.Series, levels: Levels) -> str:
    return f"{levels.label(row['level_to'])} − {levels.label(row['level_from'])} {_fine(row)}"


def _against(effects: pd.DataFrame, levels: Levels) -> str:
    """Which levels the base differs from."""
    rows = _redundancy(effects[effects["contrast"] == AGAINST_BASE])
    beyond, within = _by_noise(
        (row, f"{levels.label(row['level_to'])} {_fine(row)}") for _, row in rows.iterrows()
    )
    if rows.empty:
        return ""
    start = "Against the base model, fine-tuning changed redundancy on"
    if not beyond:
        return f"{start} no {levels.noun} beyond the noise: {listing(within)}."
    rest = f"; within the noise: {listing(within)}" if within else ""
    return f"{start} {listing(beyond)}{rest}."


def _accuracy(tables: Tables, levels: Levels) -> list[str]:
    """The change of each task group's accuracy from the first level to the last.

    A sentence for each two ends there are: a group that a level has no value of has other ones.
    """
    found: dict[tuple[str, str], list[tuple[pd.Series, str]]] = {}
    gaps = []
    for group, metric in HEADLINE.items():
        without = levels_without(tables, group, metric)
        gap = not_estimated(tables, without, upper(score_name(group)), "have a scored answer")
        gaps += [gap] if gap else []
        row = find_effect(tables.effects, DIFFERENCE, group, metric)
        if row is not None:
            text = f"{score_name(group)} {with_interval(row, signed=True)}"
            found.setdefault((row["level_from"], row["level_to"]), []).append((row, text))
    return [*(_changes(*ends, rows, levels) for ends, rows in found.items()), *gaps]


def _changes(first: str, last: str, rows: list[tuple[pd.Series, str]], levels: Levels) -> str:
    beyond, within = _by_noise(rows)
    span = f"{levels.noun} {levels.tick(first)} to {levels.tick(last)}"
    start = f"From {span}, accuracy changes"
    if not beyond:
        return f"{start} in no task group beyond the noise: {listing(within)}."
    rest = f" Within the noise: {listing(within)}." if within else ""
    return f"{start}: {listing(beyond)}.{rest}"


def sufficiency_sentence(table: pd.DataFrame, noun: str) -> str:
    """Which level is enough, from the recommendation table, in every way it can come out."""
    if table.empty:
        return f"No complex task group was measured, so no {noun} can be recommended."
    if len(table) == 1:
        return f"With one {noun} there is nothing to choose between."
    missing = [f"{at:g}" for at in table.loc[table["value"].isna(), "at"]]
    table = table[table["value"].notna()]
    if not missing:
        return _sufficiency(table, noun)
    at = f"Accuracy on complex tasks could not be estimated at {noun} {listing(missing)}"
    if len(table) < 2:
        return f"{at}, so no {noun} can be recommended."
    return f"{_sufficiency(table, noun)} {at}: left out of the choice."


def _sufficiency(table: pd.DataFrame, noun: str) -> str:
    first = table.iloc[0]
    margin = f"{100 * first['margin']:g} points"
    if not first["is_distinguishable"]:
        noise = (
            f"the largest difference is {number(first['spread'])}, and noise alone makes "
            f"differences up to {number(first['noise'])}"
        )
        return (
            f"On complex tasks no {noun} differs from another beyond the noise "
            f"({noise}), so this sweep does not tell which {noun} is enough."
        )
    chosen = table[table["is_sufficient"]].iloc[0]
    best = table.loc[table["value"].idxmax()]
    span = f"[{first['sufficient_low']:g}, {first['sufficient_high']:g}]"
    alone = "" if first["covers"] != "images" else " (seed noise unknown)"
    if chosen["at"] == table["at"].max():
        text = (
            f"Of the {noun}s tried only the highest, {chosen['at']:g} {span}, reaches the best "
            f"accuracy on complex tasks ({number(best['value'])}) to within {margin}"
        )
    elif chosen["at"] == table["at"].min():
        text = (
            f"The lowest {noun} tried, {chosen['at']:g} {span}, is already enough: with it "
            f"accuracy on complex tasks is {number(chosen['value'])}; the best is "
            f"{number(best['value'])}, at {best['at']:g}"
        )
    elif chosen["at"] == best["at"]:
        text = (
            f"A {noun} of {chosen['at']:g} {span} does best on complex tasks (accuracy "
            f"{number(best['value'])}), and no smaller one comes within {margin} of it"
        )
    else:
        text = (
            f"A {noun} of {chosen['at']:g} {span} is enough: its accuracy on complex tasks "
            f"({number(chosen['value'])}) is within {margin} of the best "
            f"({number(best['value'])} at {best['at']:g})"
        )
    return f"{text}{_price(chosen, table, noun)}{alone}."


def _price(chosen: pd.Series, table: pd.DataFrame, noun: str) -> str:
    """The effect of the chosen level on simple tasks against the lowest level."""
    if chosen["at"] == table["at"].min() or pd.isna(chosen["simple_change"]):
        return ""
    low, high = chosen["simple_change_low"], chosen["simple_change_high"]
    change = (
        f"{number(chosen['simple_change'], signed=True)} "
        f"[{number(low, signed=True)}, {number(high, signed=True)}]"
    )
    lowest = f"against {noun} {table['at'].min():g}"
    if low > 0:
        return f", and it also raises accuracy on simple tasks by {change} {lowest}"
    if high < 0:
        return f", at a cost of {change} in accuracy on simple tasks {lowest}"
    return f", and it costs nothing measurable on simple tasks ({change} {lowest})"


def _by_noise(effects: Iterable[tuple[pd.Series, str]]) -> tuple[list[str], list[str]]:
    """The texts of the effects that are beyond the noise, and of those within it."""
    texts: tuple[list[str], list[str]] = ([], [])
    for row, text in effects:
        texts[0 if is_change(row) else 1].append(text)
    return texts


def _fine(row: pd.Series) -> str:
    """A difference with as many decimals as its interval warrants."""
    return with_interval(row, digits_of(row), signed=True)


def _redundancy(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the mean redundancy score of visual tokens over all layers."""
    return table[
        (table["subject"] == "visual")
        & (table["metric"] == REDUNDANCY)
        & (table["part"] == "mean")
        & table["value"].notna()
    ]
