"""What the tables of one model say, in sentences; each holds its number, interval and n."""

from collections.abc import Iterator

import pandas as pd

from mixlens.analysis.correlations import LEVEL
from mixlens.analysis.diagnosis_probes import predicted, read_by_probes
from mixlens.analysis.measured import MODEL, ModelTables
from mixlens.analysis.missing import without_layers
from mixlens.analysis.tables import EXCESS, REDUNDANCY
from mixlens.analysis.transfer_answer import transfer_sentences
from mixlens.analysis.words import (
    group_name,
    listing,
    number,
    span,
    with_interval,
    worse_than_guessing,
)
from mixlens.probing.settings import RANDOM, SEEDLESS
from mixlens.spec import ENCODER


def diagnose(tables: ModelTables) -> list[str]:
    """Where in the network detail is lost, which attributes, and what that predicts.

    Brackets are 95 % intervals over images. A sentence says that something is not told where its
    interval allows either.
    """
    accuracy = tables.accuracy
    accuracy = accuracy if accuracy.empty else accuracy[accuracy["model"] == MODEL]
    return [
        *_redundancy(tables.layers),
        *_complexity(tables.correlations),
        *transfer_sentences(tables.transfer, tables.transfer_summary)[:1],
        *_energy(tables.layers),
        *read_by_probes(tables.probes),
        *_deletion(tables.deletion),
        *_policies(tables.deletion),
        *predicted(tables.probes, accuracy),
        *below_chance(tables.accuracy),
    ]


def below_chance(accuracy: pd.DataFrame) -> Iterator[str]:
    """Where the model answers worse than a guesser: it does not use the words asked for.

    Args:
        accuracy: of the model and its controls, as in `ModelTables`.
    """
    if accuracy.empty:
        return
    own = accuracy[(accuracy["model"] == MODEL) & (accuracy["high"] < accuracy["chance"])]
    parts = [
        f"{group_name(row['group'])} ({with_interval(row)} beside {number(row['chance'], 2)}, n = "
        f"{int(row['n'])} images)"
        for _, row in own.iterrows()
    ]
    if parts:
        yield worse_than_guessing(parts)


def _energy(layers: pd.DataFrame) -> Iterator[str]:
    """Where few visual tokens hold much of the energy, and where it is spread."""
    some = layers[
        (layers["model"] == MODEL) & (layers["stream"] == "visual") & (layers["metric"] == "gini")
    ]
    without = without_layers(some)
    some = some[some["value"].notna()]
    if len(some) < 2:
        return
    most, least = some.loc[some["value"].idxmax()], some.loc[some["value"].idxmin()]
    yield (
        f"The norms of visual tokens are most uneven at decoder layer {most['layer']} (Gini "
        f"{with_interval(most)}) and most even at layer {least['layer']} "
        f"({with_interval(least)}){_untold(most, least)}, n = {int(most['n'])} images{without}."
    )


def _redundancy(layers: pd.DataFrame) -> Iterator[str]:
    """Where visual tokens are most alike, and how that compares with pixels and random weights."""
    own = layers[(layers["model"] == MODEL) & (layers["stream"] == "visual")]
    every = own[own["metric"] == REDUNDANCY]
    scores, without = every[every["value"].notna()], without_layers(every)
    if scores.empty:
        yield f"The redundancy of visual tokens is unknown{without or ': it was not measured'}."
        return
    most, least = scores.loc[scores["value"].idxmax()], scores.loc[scores["value"].idxmin()]
    if len(scores) == 1:
        yield (
            f"Visual tokens of an image have a redundancy score of {with_interval(most)} at "
            f"decoder layer {most['layer']}, n = {int(most['n'])} images{without}."
        )
    else:
        yield (
            f"Visual tokens of an image are most alike at decoder layer {most['layer']} "
            f"(redundancy score {with_interval(most)}) and least at layer {least['layer']} "
            f"({with_interval(least)}){_untold(most, least)}, n = {int(most['n'])} images{without}."
        )
    excess = own[own["metric"] == EXCESS]
    last = excess.loc[excess["layer"].idxmax()] if len(excess) else None
    if last is not None and pd.notna(last["value"]):
        side = _side(
            last, "more alike than", "less alike than", "as far as can be told as alike as"
        )
        yield (
            f"At the last layer they are {side} the pixels under them: excess "
            f"{with_interval(last, signed=True)}, n = {int(last['n'])} images."
        )
    for name in layers["model"].unique():
        if not str(name).startswith("random"):
            continue
        control = layers[
            (layers["model"] == name) & (layers["stream"] == "visual")
            & (layers["metric"] == REDUNDANCY)
        ].set_index("layer")  # fmt: skip
        if most["layer"] in control.index and pd.notna(control.loc[most["layer"], "value"]):
            there = control.loc[most["layer"]]
            if most["low"] > there["high"]:
                how = "so training made them more alike"
            elif most["high"] < there["low"]:
                how = "so training made them less alike"
            else:
                how = "so training need not have changed it"
            yield (
                f"With {name.replace('random', 'random weights in the')} the score at layer "
                f"{most['layer']} is {with_interval(there)}, n = {int(there['n'])} images, {how}."
            )


def _complexity(correlations: pd.DataFrame) -> Iterator[str]:
    """Whether images with more objects are less redundant, also at equal ink."""
    every = correlations[
        (correlations["stream"] == "visual") & (correlations["metric"] == REDUNDANCY)
    ]
    some = every[every["rho"].notna()]
    rows = some[some["attribute"] == "object_count"]
    if rows.empty:
        if (every["attribute"] == "object_count").any():
            note = every.loc[every["attribute"] == "object_count", "note"].iloc[0]
            yield (
                "Whether the redundancy of visual tokens follows the number of objects could not "
                f"be estimated at any layer{f': {note}' if note else ''}."
            )
        return
    told = rows[rows["p"] <= LEVEL]
    row = (rows if told.empty else told).pipe(lambda some: some.loc[some["rho"].abs().idxmax()])
    beyond, missing = int((some["p"] <= LEVEL).sum()), int(every["rho"].isna().sum())
    numbers = (
        f"Spearman {_rho(row, '')}, p = {row['p']:.2g} by max-T over all "
        f"{correlations['rho'].notna().sum()} correlations, n = {int(row['n'])} images"
    )
    if told.empty:
        claim = (
            "No correlation of the redundancy of visual tokens with the number of objects is "
            f"beyond chance: the largest of {len(rows)}, at layer {row['layer']}, is {numbers}"
        )
    else:
        claim = (
            "The redundancy of visual tokens goes with the number of objects most at layer "
            f"{row['layer']}: {numbers}{_held(row)}"
        )
    unknown = f", and {missing} could not be estimated" if missing else ""
    yield (
        f"{claim}. Of {len(some)} correlations of the score with an attribute {beyond} "
        f"{_are(beyond)} beyond chance{unknown}."
    )


def _held(row: pd.Series) -> str:
    """The partial correlation with its own test; "" where nothing is held fixed."""
    if not row["given"]:
        return ""
    text = f"; at equal {_given(row)} {_rho(row, 'partial_')}"
    if pd.isna(row["partial_rho"]):
        return text
    beyond = "" if row["partial_p"] <= LEVEL else ", not beyond chance"
    return f"{text}, p = {row['partial_p']:.2g}{beyond}"


def _deletion(deletion: pd.DataFrame) -> Iterator[str]:
    """How much of the visual tokens each task group can do without."""
    if deletion.empty:
        return
    some = deletion[
        (deletion["policy"] == "random")
        & (deletion["layer"] == ENCODER)
        & (deletion["seed"] == SEEDLESS)
        & (deletion["objects"] == "all")
        & (deletion["group"] != "all")
    ]
    parts = []
    for group, rows in some.groupby("group"):
        rows = rows.sort_values("share")
        whole = rows.iloc[0]
        harmed = rows[rows["high"] < whole["low"]]
        if pd.isna(whole["low"]) or rows["high"].iloc[1:].isna().all():
            parts.append(f"{group_name(group)} at an unknown share, without intervals")
        elif len(harmed):
            row = harmed.iloc[0]
            parts.append(
                f"{group_name(group)} at {100 * row['share']:g} % ({with_interval(whole, 2)} to "
                f"{with_interval(row, 2)})"
            )
        else:
            parts.append(f"{group_name(group)} at no share tried")
    if parts:
        yield (
            "With visual tokens deleted at random behind the encoder, accuracy first falls beyond "
            f"its intervals for {listing(parts)}; n = {span(some['n'])} images a group."
        )


def _policies(deletion: pd.DataFrame) -> Iterator[str]:
    """Whether any way of choosing tokens beats chance at the same budget."""
    if deletion.empty:
        return
    every = deletion[
        (deletion["group"] == "all")
        & (deletion["objects"] == "all")
        & (deletion["policy"] != RANDOM)
        & (deletion["seed"] == SEEDLESS)
        & (deletion["share"] > 0)
    ]
    some = every[every["against_low"].notna()]
    missing = len(every) - len(some)
    without = f" {missing} more could not be estimated." if missing else ""
    if some.empty:
        if missing:
            yield f"Whether a policy beats random deletion is unknown:{without}"
        return
    better, worse = some[some["against_low"] > 0], some[some["against_high"] < 0]
    tried = f"{len(some)} comparison{'s' * (len(some) > 1)} at equal budget"
    if len(better):
        row = better.loc[better["against_random"].idxmax()]
        yield (
            f"Of {tried}, {len(better)} {_are(len(better))} better than random deletion and "
            f"{len(worse)} worse, "
            f"each beyond its own interval; the largest gain is that of {_policy(row)}, "
            f"{_against(row)} in accuracy, n = {int(row['n'])} images. About "
            f"{0.025 * len(some):.1f} would look better by luck alone.{without}"
        )
    else:
        row = some.loc[some["against_random"].idxmax()]
        yield (
            f"Of {tried}, none is better than random deletion beyond its interval and {len(worse)} "
            f"{_are(len(worse))} worse; the best, {_policy(row)}, differs by "
            f"{_against(row)} in accuracy, n = {int(row['n'])} images.{without}"
        )


def _rho(row: pd.Series, prefix: str) -> str:
    name = f"{prefix}rho"
    if pd.isna(row[name]):
        return "not estimable"
    low, high = (number(row[f"{prefix}{end}"], 2, True) for end in ("low", "high"))
    return f"{number(row[name], 2, True)} [{low}, {high}]"


def _given(row: pd.Series) -> str:
    return str(row["given"]).replace("_", " ").replace(",", " and ")


def _side(row: pd.Series, above: str, below: str, neither: str) -> str:
    if row["low"] > 0:
        return above
    return below if row["high"] < 0 else neither


def _untold(most: pd.Series, least: pd.Series) -> str:
    """What to add where two intervals overlap, or are unknown."""
    return "" if most["low"] > least["high"] else ", which its intervals do not tell apart"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _against(row: pd.Series) -> str:
    names = ("against_random", "against_low", "against_high")
    value, low, high = (number(row[name], 3, True) for name in names)
    return f"{value} [{low}, {high}]"


def _policy(row: pd.Series) -> str:
    where = "behind the encoder" if row["layer"] == ENCODER else f"before block {row['layer']}"
    return f"{row['policy']} at {100 * row['share']:g} % {where}"
