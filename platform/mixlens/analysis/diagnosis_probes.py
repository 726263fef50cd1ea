"""What probes say of one model: which attributes are lost on the way, and what that predicts."""

from collections.abc import Iterator

import pandas as pd

from mixlens.analysis.words import group_name, listing, plain, span, with_interval
from mixlens.probing.probes import POOLED
from mixlens.tasks import GROUPS

READABLE = 0.1
"""A probe must beat its control by this much, and chance beyond its interval, to count at all."""


def read_by_probes(probes: pd.DataFrame) -> Iterator[str]:
    """Which attributes the visual tokens hold best where, and which fall until the last layer."""
    if probes.empty:
        return
    visual, text = _mean_token(probes, "visual"), _mean_token(probes, "text")
    final = probes.loc[probes["stream"] == "visual", "layer"].max()
    kept, lost, never = [], [], []
    for attribute, some in visual.groupby("attribute"):
        best, last = some.loc[some["value"].idxmax()], some.loc[some["layer"].idxmax()]
        if _readable(some).empty:
            never.append(f"{plain(attribute)} (at most {with_interval(best, 2)})")
        elif last["high"] < best["low"]:
            lost.append(
                f"{plain(attribute)} (from {with_interval(best, 2)} at layer {best['layer']} to "
                f"{with_interval(last, 2)} at the last{_of_known(last, final)})"
            )
        else:
            kept.append(f"{plain(attribute)} ({with_interval(last, 2)}{_of_known(last, final)})")
    if lost:
        yield (
            "What a linear probe reads from the mean visual token falls, beyond its intervals, "
            f"until the last layer for {listing(lost)}; n = {span(visual['n'])} held-out images."
        )
    elif kept:
        yield (
            "For no attribute does what a linear probe reads from the mean visual token fall "
            "beyond its intervals until the last layer; "
            f"n = {span(visual['n'])} held-out images."
        )
    if kept:
        yield f"At the last layer it has not fallen so for {listing(kept)}."
    if never:
        yield (
            f"Hardly anything is read at any layer of {listing(never)}; "
            f"n = {span(visual['n'])} held-out images."
        )
    unknown = _unknown(probes, visual)
    if unknown:
        yield f"At no layer could it be estimated what a linear probe reads of {listing(unknown)}."
    first: dict[int, list[str]] = {}
    for attribute, some in text.groupby("attribute"):
        found = _readable(some).sort_values("layer")
        if len(found):
            row = found.iloc[0]
            words = f"{plain(attribute)} ({with_interval(row, 2)})"
            first.setdefault(int(row["layer"]), []).append(words)
    if first:
        parts = [f"at layer {layer} {listing(first[layer])}" for layer in sorted(first)]
        yield (
            "From the mean text token behind the image a linear probe reads first "
            f"{'; '.join(parts)}; n = {span(text['n'])} held-out images."
        )


def predicted(probes: pd.DataFrame, accuracy: pd.DataFrame) -> Iterator[str]:
    """Whether questions about what is lost most towards the end are those answered worst.

    Args:
        probes: of the model.
        accuracy: the model's own, a row a task group.
    """
    if probes.empty or accuracy.empty:
        return
    own = accuracy[accuracy["value"].notna()].set_index("group")
    asked, falls = False, {}
    for attribute, some in _mean_token(probes, "visual").groupby("attribute"):
        groups = [name for name, group in GROUPS.items()
                  if attribute in group.asks_for and name in own.index]  # fmt: skip
        if not groups or len(groups) == len(own):
            continue
        asked = True
        best, last = some.loc[some["value"].idxmax()], some.loc[some["layer"].idxmax()]
        if len(_readable(some)) and last["high"] < best["low"]:
            falls[attribute] = (best["value"] - last["value"], best, last, groups)
    if not asked:
        return
    if not falls:
        yield (
            "Of what questions ask for, probes lose nothing beyond their intervals on the way, "
            "which predicts no group of questions to suffer from lost detail."
        )
        return
    worst, (_, best, last, groups) = max(falls.items(), key=lambda item: item[1][0])
    # Groups differ in what chance gives, so what counts is the way from there to perfect.
    chance = own["chance"].fillna(0)
    above = own[["value", "low", "high"]].sub(chance, axis=0).div(1 - chance, axis=0)
    asking, others = above.loc[groups], above.drop(groups)
    if asking["high"].max(skipna=False) < others["low"].min(skipna=False):
        verdict = "they are"
    elif others["high"].min() < asking["low"].max():
        verdict = "they are not"
    else:
        verdict = "the intervals do not tell"
    scores = [f"{group_name(group)} {with_interval(own.loc[group], 2)}" for group in own.index]
    yield (
        f"Of what questions ask for, {plain(worst)} is lost most on the way to the last layer "
        f"(from {with_interval(best, 2)} to {with_interval(last, 2)}), which predicts that "
        f"{listing([group_name(group) for group in groups])} questions are answered worst, "
        f"measured from chance: {verdict} ({', '.join(scores)}; n = {span(own['n'])} images)."
    )


def _mean_token(probes: pd.DataFrame, stream: str) -> pd.DataFrame:
    """Linear probes of the mean token of a stream that have a score."""
    return probes[
        (probes["position"] == POOLED)
        & (probes["kind"] == "linear")
        & (probes["stream"] == stream)
        & probes["value"].notna()
    ]


def _of_known(last: pd.Series, final: int) -> str:
    """What to add where the last layer has no score and an earlier one stands for it."""
    return "" if last["layer"] == final else f" that could be estimated, layer {last['layer']}"


def _unknown(probes: pd.DataFrame, known: pd.DataFrame) -> list[str]:
    """Attributes that were probed and have no score at any layer."""
    asked = probes[(probes["stream"] == "visual") & (probes["kind"] == "linear")]
    return [plain(name) for name in asked["attribute"].unique()
            if name not in set(known["attribute"])]  # fmt: skip


def _readable(probes: pd.DataFrame) -> pd.DataFrame:
    """The rows whose probe finds something."""
    return probes[(probes["selectivity"] > READABLE) & (probes["low"] > probes["chance"])]
