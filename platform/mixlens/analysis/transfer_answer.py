"""What the tables of transfer say, in sentences; each holds its numbers and what chance gives."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from mixlens.analysis.correlations import LEVEL
from mixlens.analysis.tables import REDUNDANCY
from mixlens.analysis.transfer import HOLDS, REVERSES, UNKNOWN
from mixlens.analysis.transfer_chance import ALL_TOKENS, REDUNDANCY_OF_TOKENS
from mixlens.analysis.words import listing, number, plain, upper
from mixlens.measurement.measurement import read_table

_OF = {
    REDUNDANCY_OF_TOKENS: "correlations of the redundancy score of visual tokens with an attribute",
    ALL_TOKENS: "correlations of any measure of any tokens with an attribute",
}


def transfer_sentences(table: pd.DataFrame, summary: pd.DataFrame) -> list[str]:
    """Whether trends found on one set of images hold on the other; the first is the answer.

    Args:
        table: `transfer`.
        summary: `transfer_summary`.
    """
    if summary.empty:
        return []
    main, every = (
        summary[summary["scope"] == scope].iloc[0] for scope in (REDUNDANCY_OF_TOKENS, ALL_TOKENS)
    )
    unknown = table[(table["stream"] != "pixels") & (table["verdict"] == UNKNOWN)]
    ours = unknown[(unknown["stream"] == "visual") & (unknown["metric"] == REDUNDANCY)]
    return [
        _counted(main, True) + _without(len(ours)),
        *_strongest(table, main),
        _counted(every, False) + _without(len(unknown)),
        _families(every),
    ]


def read_answer(tables: Path) -> list[str]:
    """The answer that the tables in a folder give; none where nothing was measured twice."""
    files = [tables / f"{name}.parquet" for name in ("transfer", "transfer_summary")]
    if not all(file.is_file() for file in files):
        return []
    remedy = "Delete it; `mixlens report` makes it again."
    return transfer_sentences(*(read_table(file, remedy) for file in files))[:1]


def _counted(row: pd.Series, is_answer: bool) -> str:
    what, here, there = _OF[row["scope"]], row["here"], row["there"]
    if not row["tested"]:
        return f"None of the {what} can be estimated on both {here} and {there}."
    found = f"of {row['tested']} {what}, {row['trends']} {_verb(row['trends'], 'exclude')} 0 on "
    found += f"the {row['n']} images of {here}" if is_answer else here
    if not row["trends"]:
        return f"{upper(found)}: there is no trend that could hold on {there} or not."
    parts = [
        f"{row['holds']} {_verb(row['holds'], 'hold')}",
        f"{row['reverses']} {_verb(row['reverses'], 'reverse')}",
        f"{row['only_here']} {_verb(row['only_here'], 'are')} weaker beyond noise",
        f"{row['unclear']} {_verb(row['unclear'], 'stay')} unclear",
    ]
    where = f"the {row['n_there']} of {there}" if is_answer else there
    chance = [
        f"{number(row[f'chance_{kind}'], 1)} would {kind.removesuffix('s')} (at most "
        f"{row[f'chance_{kind}_most']} in 95 % of permutations, p = {row[f'{kind}_p']:.2g})"
        for kind in (HOLDS, REVERSES)
    ]
    text = f"{found}; on {where} {listing(parts)}. Chance alone: {listing(chance)}."
    return upper(f"{_answer(row)}: {text}" if is_answer else text)


def _without(count: int) -> str:
    """What to add where some correlations are missing on a side."""
    return f" {count} more could not be estimated on both sides." if count else ""


def _answer(row: pd.Series) -> str:
    """The one sentence, before its numbers."""
    trends = f"trends of redundancy found on {row['here']}"
    beyond = {kind: row[f"{kind}_p"] <= LEVEL for kind in ("holds", "reverses")}
    if beyond["holds"] and beyond["reverses"]:
        return f"{trends} hold in part on {row['there']} and reverse in part"
    if beyond["reverses"]:
        return f"{trends} reverse on {row['there']} more often than chance allows"
    if not beyond["holds"] and row["only_here"] > row["trends"] / 2:
        return f"{trends} mostly do not hold on {row['there']}"
    if not beyond["holds"]:
        return f"that {trends} hold on {row['there']} cannot be told from chance"
    most = "mostly" if row["holds"] > row["trends"] / 2 else "partly"
    return f"{trends} {most} hold on {row['there']}"


def _strongest(table: pd.DataFrame, row: pd.Series) -> Iterator[str]:
    """The largest trend that holds and the largest that reverses."""
    main = table[(table["stream"] == "visual") & (table["metric"] == REDUNDANCY)]
    parts = []
    for verdict, verb in ((HOLDS, "holds"), (REVERSES, "reverses")):
        some = main[main["verdict"] == verdict]
        if some.empty:
            continue
        one = some.loc[some["rho"].abs().idxmax()]
        is_same = one["attribute"] == one["attribute_there"]
        there = "" if is_same else f" ({plain(one['attribute_there'])} there)"
        parts.append(
            f"the largest that {verb} is with {plain(one['attribute'])}{there} at layer "
            f"{one['layer']}, Spearman {_rho(one, '')} on {row['here']} and {_rho(one, '_there')} "
            f"on {row['there']} ({_tested(one)})"
        )
    if parts:
        yield upper(f"{'; '.join(parts)}.")


def _tested(one: pd.Series) -> str:
    """Whether a correlation that was picked for its size is beyond chance among all of them."""
    chance = "" if max(one["p"], one["p_there"]) <= LEVEL else ", not beyond chance on both sides"
    return f"p = {one['p']:.2g} and {one['p_there']:.2g} by max-T over either table{chance}"


def _families(row: pd.Series) -> str:
    """What many correlations at once do to these counts."""
    both = row["beyond_both"]
    return (
        f"Each verdict rests on 95 % intervals of its own: of {row['tested']} correlations about "
        f"{number(0.05 * row['tested'], 0)} would exclude 0 on {row['here']} by luck alone, and "
        "those found for being large are on average smaller than they look. "
        f"{both} {_verb(both, 'have')} the same sign and {_verb(both, 'are')} beyond chance over "
        f"the whole table (max-T, p ≤ {LEVEL:g}) on both sides."
    )


def _rho(row: pd.Series, end: str) -> str:
    value, low, high = (number(row[f"{name}{end}"], 2, True) for name in ("rho", "low", "high"))
    return f"{value} [{low}, {high}]"


def _verb(count: int, plural: str) -> str:
    single = {"are": "is", "have": "has"}.get(plural, f"{plural}s")
    return single if count == 1 else plural
