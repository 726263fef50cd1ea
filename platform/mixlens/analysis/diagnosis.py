"""What the tables of one model say, in sentences; each holds its number, interval and n."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mixlens.analysis.measured import MODEL, ModelTables
from mixlens.analysis.tables import EXCESS, REDUNDANCY
from mixlens.analysis.words import GROUP_NAMES, listing, number, with_interval
from mixlens.spec import ENCODER

# What is asked of an attribute: the task groups whose answers need it.
ASKED_BY = {
    "object_count": ("count",),
    "dominant_colour": ("coarse", "attribute"),
    "dominant_shape": ("coarse", "attribute"),
    "colour_diversity": ("attribute",),
    "shape_diversity": ("attribute",),
    "texture_diversity": ("attribute",),
    "size_mean": ("attribute",),
    "crowding": ("relational", "locate"),
}
READABLE = 0.1
"""A probe must beat its control by this much before an attribute counts as readable at all."""


def diagnose(tables: ModelTables) -> list[str]:
    """Where in the network detail is lost, which attributes, and what that predicts.

    Brackets are 95 % intervals over images. A sentence says that something is not told where its
    interval allows either.
    """
    return [
        *_redundancy(tables.layers),
        *_complexity(tables.correlations),
        *_probes(tables.probes),
        *_deletion(tables.deletion),
        *_policies(tables.deletion),
        *_prediction(tables),
    ]


def _redundancy(layers: pd.DataFrame) -> Iterator[str]:
    """Where visual tokens are most alike, and how that compares with pixels and random weights."""
    own = layers[(layers["model"] == MODEL) & (layers["stream"] == "visual")]
    scores = own[(own["metric"] == REDUNDANCY) & own["value"].notna()]
    if scores.empty:
        yield "The redundancy of visual tokens is not estimable: see the tables for why."
        return
    most, least = scores.loc[scores["value"].idxmax()], scores.loc[scores["value"].idxmin()]
    told = most["low"] > least["high"]
    verdict = "" if told else ", which its intervals do not tell apart"
    yield (
        f"Visual tokens of an image are most alike at decoder layer {most['layer']} (redundancy "
        f"score {with_interval(most)}) and least at layer {least['layer']} "
        f"({with_interval(least)}){verdict}, n = {int(most['n'])} images."
    )
    excess = own[own["metric"] == EXCESS]
    last = excess.loc[excess["layer"].idxmax()] if len(excess) else None
    if last is not None and pd.notna(last["value"]):
        side = _side(
            last, "more alike than", "less alike than", "as far as can be told as alike as"
        )
        yield (
            f"At the last layer they are {side} the pixels under them: excess "
            f"{with_interval(last, signed=True)}, n = {int(last['n'])}."
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
            apart = most["low"] > there["high"] or most["high"] < there["low"]
            how = "so training made it" if apart else "so training need not have made it"
            yield (
                f"With {name.replace('random', 'random weights in the')} the score at layer "
                f"{most['layer']} is {with_interval(there)}, {how}."
            )


def _complexity(correlations: pd.DataFrame) -> Iterator[str]:
    """Whether images with more objects are less redundant, also at equal ink."""
    some = correlations[
        (correlations["stream"] == "visual")
        & (correlations["metric"] == REDUNDANCY)
        & correlations["rho"].notna()
    ]
    rows = some[some["attribute"] == "object_count"]
    if rows.empty:
        return
    row = rows.loc[rows["rho"].abs().idxmax()]
    significant = (some["p"] < 0.05).sum()
    yield (
        f"The redundancy of visual tokens goes with the number of objects most at layer "
        f"{row['layer']}: Spearman {_rho(row, '')}, p = {row['p']:.2g} by max-T over all "
        f"{len(correlations)} correlations, n = {int(row['n'])}; at equal {_given(row)} "
        f"{_rho(row, 'partial_')}. Of {len(some)} correlations of the score with an attribute "
        f"{significant} are beyond chance."
    )


def _probes(probes: pd.DataFrame) -> Iterator[str]:
    """Which attributes the visual tokens hold best where, and which fall until the last layer."""
    if probes.empty:
        return
    pooled = probes[
        (probes["position"] == -1) & (probes["kind"] == "linear") & probes["value"].notna()
    ]
    kept, lost, never = [], [], []
    for attribute, some in pooled[pooled["stream"] == "visual"].groupby("attribute"):
        best, last = some.loc[some["value"].idxmax()], some.loc[some["layer"].idxmax()]
        if not (some["selectivity"] > READABLE).any():
            never.append(f"{_plain(attribute)} (at most {with_interval(best, 2)})")
        elif last["high"] < best["low"]:
            lost.append(
                f"{_plain(attribute)} (from {with_interval(best, 2)} at layer {best['layer']} to "
                f"{with_interval(last, 2)} at the last)"
            )
        else:
            kept.append(_plain(attribute))
    n = int(pooled["n"].max())
    if lost:
        yield (
            "What a linear probe reads from the mean visual token falls, beyond its intervals, "
            f"until the last layer for {listing(lost)}; n = {n} held-out images."
        )
    else:
        yield (
            "For no attribute does what a linear probe reads from the mean visual token fall "
            f"beyond its intervals until the last layer; n = {n} held-out images."
        )
    if kept:
        yield f"It is kept to the end for {listing(kept)}."
    if never:
        yield f"It is hardly there at any layer for {listing(never)}."
    first = []
    for attribute, some in pooled[pooled["stream"] == "text"].groupby("attribute"):
        readable = some[(some["selectivity"] > READABLE) & (some["low"] > some["chance"])]
        if len(readable):
            row = readable.loc[readable["layer"].idxmin()]
            first.append(f"{_plain(attribute)} from layer {row['layer']} on")
    if first:
        yield f"The text tokens behind the image tell {listing(first)}."


def _deletion(deletion: pd.DataFrame) -> Iterator[str]:
    """How much of the visual tokens each task group can do without."""
    if deletion.empty:
        return
    some = deletion[
        (deletion["policy"] == "random")
        & (deletion["layer"] == ENCODER)
        & (deletion["objects"] == "all")
        & (deletion["group"] != "all")
    ]
    parts = []
    for group, rows in some.groupby("group"):
        mean = rows.groupby("share")[["value", "low", "high"]].mean()
        whole = mean.loc[0.0]
        harmed = mean[mean["high"] < whole["low"]]
        name = GROUP_NAMES.get(str(group), str(group))
        if len(harmed):
            share, row = harmed.index[0], harmed.iloc[0]
            parts.append(
                f"{name} at {100 * share:g} % ({with_interval(whole, 2)} to "
                f"{with_interval(row, 2)})"
            )
        else:
            parts.append(f"{name} at no share tried")
    if parts:
        yield (
            "With visual tokens deleted at random behind the encoder, accuracy first falls beyond "
            f"its intervals for {listing(parts)}; n = {int(some['n'].min())} or more images a group."
        )


def _policies(deletion: pd.DataFrame) -> Iterator[str]:
    """Whether any way of choosing tokens beats chance at the same budget."""
    if deletion.empty:
        return
    some = deletion[
        (deletion["group"] == "all")
        & (deletion["objects"] == "all")
        & deletion["against_random"].notna()
        & (deletion["share"] > 0)
    ]
    if some.empty:
        return
    better, worse = some[some["against_low"] > 0], some[some["against_high"] < 0]
    tried = f"{len(some)} comparisons at equal budget"
    if len(better):
        row = better.loc[better["against_random"].idxmax()]
        yield (
            f"Of {tried}, {len(better)} are better than random deletion and {len(worse)} worse, "
            f"each beyond its own interval; the largest gain is that of {_policy(row)}, "
            f"{number(row['against_random'], 3, True)} [{number(row['against_low'], 3, True)}, "
            f"{number(row['against_high'], 3, True)}] in accuracy, n = {int(row['n'])}. About "
            f"{0.025 * len(some):.1f} would look better by luck alone."
        )
    else:
        yield (
            f"Of {tried}, none is better than random deletion beyond its interval and {len(worse)} "
            "are worse."
        )


def _prediction(tables: ModelTables) -> Iterator[str]:
    """Whether what probes cannot read is what questions go wrong on."""
    probes, accuracy = tables.probes, tables.accuracy
    if probes.empty or accuracy.empty:
        return
    own = accuracy[accuracy["model"] == MODEL].set_index("group")
    pooled = probes[
        (probes["position"] == -1) & (probes["kind"] == "linear")
        & (probes["stream"] == "visual") & probes["selectivity"].notna()
    ]  # fmt: skip
    last = pooled[pooled["layer"] == pooled["layer"].max()].set_index("attribute")
    known = [name for name in ASKED_BY if name in last.index]
    if not known:
        return
    weakest = min(known, key=lambda name: float(last.loc[name, "selectivity"]))
    groups = [group for group in ASKED_BY[weakest] if group in own.index]
    if not groups:
        return
    # Groups differ in how hard they are by chance alone, so what counts is the way to perfect.
    above = (own["value"] - own["chance"].fillna(0)) / (1 - own["chance"].fillna(0))
    asked, others = above[groups].mean(), above.drop(groups)
    verdict = "they are" if len(others) and asked < np.nanmin(others) else "they are not"
    row = last.loc[weakest]
    answered = ", ".join(
        f"{GROUP_NAMES.get(group, group)} {with_interval(own.loc[group], 2)}" for group in groups
    )
    yield (
        f"Of what questions ask for, probes of the last layer tell {_plain(weakest)} least "
        f"({row['score']} {with_interval(row, 2)}, n = {int(row['n'])}), which predicts that "
        f"{listing([GROUP_NAMES.get(group, group) for group in groups])} questions are answered "
        f"worst: {verdict} ({answered})."
    )


def _rho(row: pd.Series, prefix: str) -> str:
    name = f"{prefix}rho"
    if pd.isna(row[name]):
        return "not estimable"
    low, high = (number(row[f"{prefix}{end}"], 2, True) for end in ("low", "high"))
    return f"{number(row[name], 2, True)} [{low}, {high}]"


def _given(row: pd.Series) -> str:
    return str(row["given"]).replace("_", " ").replace(",", " and ") or "everything else"


def _side(row: pd.Series, above: str, below: str, neither: str) -> str:
    if row["low"] > 0:
        return above
    return below if row["high"] < 0 else neither


def _policy(row: pd.Series) -> str:
    where = "behind the encoder" if row["layer"] == ENCODER else f"before block {row['layer']}"
    return f"{row['policy']} at {100 * row['share']:g} % {where}"


def _plain(attribute: object) -> str:
    return str(attribute).replace("_", " ")
