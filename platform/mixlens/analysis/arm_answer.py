"""The answer of a sweep of arms in sentences: do complex task groups end less redundant?"""

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
from mixlens.analysis.missing import below_chance, levels_of_quantity, levels_without, not_estimated
from mixlens.analysis.tables import HEADLINE, REDUNDANCY, Tables
from mixlens.analysis.words import (
    coverage,
    digits_of,
    is_change,
    listing,
    score_name,
    size,
    upper,
    with_interval,
)
from mixlens.design import BASE

SHOWN_PAIRS = 3
_SCORE = ("visual", REDUNDANCY, "mean")


def arm_sentences(tables: Tables) -> list[str]:
    """Whether redundancy goes along with the order of the arms, and what else differs.

    The arms stand from simple to complex. The first sentence is the headline: its verdict is that
    of the trend over all arms, not of the two ends.
    """
    effects = tables.effects
    sentences = [_headline(tables)]
    if (effects["contrast"] == PAIR).any():
        sentences += [_means(tables.sweep), _pairs(effects)]
    sentences += [_against_base(effects), *_accuracy(tables), *below_chance(tables.sweep)]
    differences = effects[effects["contrast"] == DIFFERENCE]
    row = (effects if differences.empty else differences).iloc[0]
    return [*(sentence for sentence in sentences if sentence), coverage(row, "arm")]


def _headline(tables: Tables) -> str:
    """The verdict on the order of the arms, and where the score could not be estimated."""
    trend = find_effect(tables.effects, TREND, *_SCORE)
    ends = find_effect(tables.effects, DIFFERENCE, *_SCORE)
    first = _only_arm(tables) if trend is None or ends is None else _verdict(trend, ends)
    gaps = not_estimated(
        tables,
        levels_without(tables, *_SCORE),
        "The redundancy score of visual tokens",
        "have a value at every layer",
    )
    return " ".join(filter(None, (first, gaps)))


def _only_arm(tables: Tables) -> str:
    """What can be said where there are no two arms to compare."""
    levels = levels_of_quantity(tables, *_SCORE)
    if levels.empty:
        return "The redundancy of visual tokens was not measured."
    known = levels[levels["value"].notna()]
    if known.empty:
        return "Whether complex task groups end less redundant is unknown."
    arm = known.iloc[0]["arm"]
    if len(levels) == 1:
        why = f"Only one arm, {arm}, has finished"
    else:
        why = f"The redundancy of visual tokens could be estimated of one arm only, {arm}"
    return f"{why}, so there is nothing to compare it with but the base model."


def _verdict(trend: pd.Series, ends: pd.Series) -> str:
    if not is_beyond_noise(trend):
        verdict = (
            "Training on more complex task groups does not leave visual tokens less redundant "
            "beyond the noise"
        )
    elif trend["value"] < 0:
        verdict = "Training on more complex task groups leaves visual tokens less redundant"
    else:
        verdict = (
            "Training on more complex task groups leaves visual tokens more redundant, not less"
        )
    unknown = "" if ends["covers"] != "images" else ", seed noise unknown"
    alone = "" if is_beyond_noise(ends) == is_beyond_noise(trend) else _apart(ends)
    return (
        f"{verdict}: along the arms, from {ends['arm_from']} to {ends['arm_to']}, the redundancy "
        f"score changes by {_fine(trend)} per arm; the last minus the "
        f"first is {_fine(ends)}{alone} ({size(ends, 'an arm')}{unknown})."
    )


def _fine(row: pd.Series) -> str:
    """A difference with as many decimals as its interval warrants."""
    return with_interval(row, digits_of(row), signed=True)


def _apart(ends: pd.Series) -> str:
    return ", beyond the noise" if is_beyond_noise(ends) else ", by itself within the noise"


def _means(sweep: pd.DataFrame) -> str:
    """The redundancy score of every arm, and whether the means follow the order."""
    rows = _redundancy(sweep)
    trained = rows[rows["run"] != BASE]
    if trained.empty:
        return ""
    values = [(row["arm"], with_interval(row, digits_of(row))) for _, row in trained.iterrows()]
    first = f"{values[0][0]}, the redundancy score of visual tokens is {values[0][1]}"
    others = [f"{arm} it is {value}" for arm, value in values[1:]]
    before = "".join(
        f"; before fine-tuning it is {with_interval(row, digits_of(row))}"
        for _, row in rows[rows["run"] == BASE].iterrows()
    )
    steps = trained["value"].diff().dropna()
    if (steps < 0).all():
        order = "The means fall from each arm to the next"
    elif (steps > 0).all():
        order = "The means rise from each arm to the next"
    else:
        order = "The means do not run in one direction along the arms"
    return f"Trained on {'; on '.join([first, *others])}{before}. {order}."


def _pairs(effects: pd.DataFrame) -> str:
    """Which arms differ, by intervals that hold for all pairs at once."""
    rows = _redundancy(effects[effects["contrast"] == PAIR])
    if rows.empty:
        return ""
    rows = rows.reindex(rows["value"].abs().sort_values(ascending=False, kind="stable").index)
    beyond = rows[[is_beyond_noise(row) for _, row in rows.iterrows()]]
    count = len(rows)
    every = "the one pair" if count == 1 else f"the {count} pairs"
    if beyond.empty:
        return (
            f"Of {every} of arms none differs in redundancy beyond the noise; the largest "
            f"difference is {_pair(rows.iloc[0])}."
        )
    shown = [_pair(row) for _, row in beyond.head(SHOWN_PAIRS).iterrows()]
    more = "the largest of them " if len(beyond) > SHOWN_PAIRS else ""
    return (
        f"Of {every} of arms {len(beyond)} differ{'s' if len(beyond) == 1 else ''} in redundancy "
        f"beyond the noise of all pairs together: {more}{listing(shown)}."
    )


def _pair(row: pd.Series) -> str:
    return f"{row['arm_to']} − {row['arm_from']} {_fine(row)}"


def _against_base(effects: pd.DataFrame) -> str:
    rows = _redundancy(effects[effects["contrast"] == AGAINST_BASE])
    beyond, within = _by_noise((row, f"{row['arm_to']} {_fine(row)}") for _, row in rows.iterrows())
    if rows.empty:
        return ""
    start = "Against the base model, fine-tuning changed redundancy on"
    if not beyond:
        return f"{start} no arm beyond the noise: {listing(within)}."
    rest = f"; within the noise: {listing(within)}" if within else ""
    return f"{start} {listing(beyond)}{rest}."


def _accuracy(tables: Tables) -> list[str]:
    """What the last arm does to the accuracy of each task group against the first.

    A sentence for each two ends there are: a group that an arm has no value of has other ones.
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
            found.setdefault((row["arm_from"], row["arm_to"]), []).append((row, text))
    return [*(_changes(*ends, rows) for ends, rows in found.items()), *gaps]


def _changes(start_arm: str, end_arm: str, rows: list[tuple[pd.Series, str]]) -> str:
    beyond, within = _by_noise(rows)
    start = f"Trained on {end_arm} rather than {start_arm}, a model changes in"
    if not beyond:
        return f"{start} no task group's accuracy beyond the noise: {listing(within)}."
    rest = f" Within the noise: {listing(within)}." if within else ""
    return f"{start} {listing(beyond)}.{rest}"


def _by_noise(effects: Iterable[tuple[pd.Series, str]]) -> tuple[list[str], list[str]]:
    """The texts of the effects that are beyond the noise, and of those within it."""
    texts: tuple[list[str], list[str]] = ([], [])
    for row, text in effects:
        texts[0 if is_change(row) else 1].append(text)
    return texts


def _redundancy(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the mean redundancy score of visual tokens over all layers."""
    return table[
        (table["subject"] == "visual")
        & (table["metric"] == REDUNDANCY)
        & (table["part"] == "mean")
        & table["value"].notna()
    ]
