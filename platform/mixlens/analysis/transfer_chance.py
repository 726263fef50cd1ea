"""How many trends hold on other images, beside how many would if these had nothing to do with them.

Tokens of one layer and of the next say nearly the same, and so do attributes: ninety trends that
hold may be three. So the counts are set against those after the attributes of the second set of
images have changed places, all of an image together: whatever goes with what among the metrics, or
among the attributes, stays, and nothing goes with an attribute. A random network is another matter:
its tokens still follow the pixels. What pixels alone do is in the rows of their stream.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mixlens.analysis.aligned import aligned, patterns, wide
from mixlens.analysis.correlations import LEVEL
from mixlens.analysis.permutations import restrict
from mixlens.analysis.ranks import largest_estimable, standard_ranks
from mixlens.analysis.tables import REDUNDANCY
from mixlens.analysis.transfer import FOUND, HOLDS, REVERSES, UNKNOWN
from mixlens.statistics.intervals import CONFIDENCE, Array

REDUNDANCY_OF_TOKENS, ALL_TOKENS = "redundancy", "all"
"""Scopes: the redundancy score of visual tokens; every measure of every stream but the pixels."""

SUMMARY = (
    "scope", "here", "there", "n", "n_there", "tested", "trends", "holds", "reverses", "only_here",
    "unclear", "beyond_both", "chance_holds", "chance_holds_most", "holds_p", "chance_reverses",
    "chance_reverses_most", "reverses_p", "same_sign", "same_sign_p",
)  # fmt: skip
_KEY = ["stream", "layer", "metric"]
_CELLS = 4_000_000  # numbers that are held at a time


def transfer_summary(
    table: pd.DataFrame,
    image_metrics: pd.DataFrame,
    attributes: pd.DataFrame,
    sides: tuple[str, str],
    permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The `transfer_summary` table: how many trends hold, in all and of the redundancy of tokens.

    A row a scope. `n` and `n_there` are images; `tested` correlations that both sides can estimate;
    `trends` those whose interval here excludes 0, and `holds`, `reverses`, `only_here`, `unclear`
    what became of them there. `beyond_both` have the same sign and a p, adjusted over the whole
    table of each side, of at most 0.05 on both. By chance, from permutations of the images there:
    `chance_holds` is the mean number that hold, `chance_holds_most` what 95 % of permutations stay
    within, `holds_p` how often as many hold; so for those that reverse. `same_sign` is the share of
    trends with the same sign there, noise or not, `same_sign_p` how often as large by chance.

    After a permutation an interval excludes 0 by its theoretical half-width alone, the less strict
    part of what it is judged by without (see `ranks`): the numbers by chance are upper bounds, and
    so are holds_p and reverses_p.

    Args:
        table: `transfer`.
        image_metrics: stream, layer, metric, example_id, value of the second set of images.
        attributes: their attributes.
        sides: what the two sets of images are called.
        permutations: of the second set of images.
        seed: of the permutations.
    """
    tokens = table[(table["stream"] != "pixels") & (table["verdict"] != UNKNOWN)]
    main = (tokens["stream"] == "visual") & (tokens["metric"] == REDUNDANCY)
    found = tokens[tokens["verdict"].isin(FOUND)]
    by_chance = list(_permuted(found, image_metrics, attributes, permutations, seed))
    rows = []
    for scope, inside in ((REDUNDANCY_OF_TOKENS, main), (ALL_TOKENS, main | True)):
        some, mine = found[inside[found.index]], inside[found.index].to_numpy()
        # [permutations] how many trends of this scope hold, reverse, and have the same sign.
        counts = [np.concatenate([part[:, mine].sum(axis=1) for part in kind]) for kind in
                  zip(*by_chance, strict=True)] or [np.zeros(permutations)] * 3  # fmt: skip
        rows.append(_row(scope, sides, tokens[inside], some, counts))
    return pd.DataFrame(rows, columns=list(SUMMARY))


def _row(
    scope: str,
    sides: tuple[str, str],
    tested: pd.DataFrame,
    found: pd.DataFrame,
    by_chance: list[NDArray],
) -> dict[str, object]:
    counts = found["verdict"].value_counts()
    names = {verdict: verdict.replace(" ", "_") for verdict in FOUND}
    same = np.sign(found["rho"]) == np.sign(found["rho_there"])
    both = same & (found["p"] <= LEVEL) & (found["p_there"] <= LEVEL)
    row: dict[str, object] = {
        "scope": scope, "here": sides[0], "there": sides[1],
        "n": tested["n"].max() if len(tested) else 0,
        "n_there": tested["n_there"].max() if len(tested) else 0,
        "tested": len(tested), "trends": len(found),
        **{name: int(counts.get(verdict, 0)) for verdict, name in names.items()},
        "beyond_both": int(both.sum()),
        "same_sign": same.mean() if len(found) else np.nan,
        "same_sign_p": _share_as_large(by_chance[2], int(same.sum())),
    }  # fmt: skip
    for verdict, drawn in zip((HOLDS, REVERSES), by_chance, strict=False):
        row[f"chance_{verdict}"] = float(drawn.mean())
        row[f"chance_{verdict}_most"] = int(np.quantile(drawn, CONFIDENCE, method="higher"))
        row[f"{verdict}_p"] = _share_as_large(drawn, int(counts.get(verdict, 0)))
    return row


def _share_as_large(drawn: NDArray, count: int) -> float:
    """How often chance gives as many, the observed order being one more permutation."""
    return float((1 + (drawn >= count).sum()) / (1 + len(drawn)))


def _permuted(
    found: pd.DataFrame,
    image_metrics: pd.DataFrame,
    attributes: pd.DataFrame,
    permutations: int,
    seed: int,
) -> Iterator[tuple[NDArray, NDArray, NDArray]]:
    """For blocks of permutations, [block, trends] whether each holds, reverses, has the same sign.

    Images that lack a value follow the shared permutation; see `permutations.restrict`.
    """
    if found.empty:
        return
    names = list(dict.fromkeys(found["attribute_there"]))
    metrics = wide(image_metrics)
    facts = aligned(attributes, metrics.index, names)
    column = metrics.columns.get_indexer(pd.MultiIndex.from_frame(found[_KEY]))
    place = np.array([names.index(name) for name in found["attribute_there"]])
    groups = [
        (images, np.flatnonzero(np.isin(column, some) & np.isin(place, columns)))
        for images, some, columns in patterns(metrics.to_numpy(), facts)
    ]
    sign = np.sign(found["rho"].to_numpy())
    generator = np.random.default_rng(seed)
    block = max(1, _CELLS // (len(names) * max(len(metrics), len(metrics.columns))))
    values = metrics.to_numpy()
    for first in range(0, permutations, block):
        size = min(block, permutations - first)
        shuffled = np.tile(np.arange(len(metrics), dtype=np.int32), (size, 1))
        generator.permuted(shuffled, axis=1, out=shuffled)
        rho, beyond = np.zeros((2, size, len(found)))
        for images, mine in groups:
            if not len(mine):
                continue
            some, own = np.unique(column[mine], return_inverse=True)
            which, other = np.unique(place[mine], return_inverse=True)
            ranks = standard_ranks(values[np.ix_(images, some)])
            facing = standard_ranks(facts[np.ix_(images, which)])[restrict(shuffled, images)]
            rho[:, mine] = (facing.transpose(0, 2, 1) @ ranks)[:, other, own]
            beyond[:, mine] = _excludes_zero(rho[:, mine], len(images))
        alike = sign * rho > 0
        there = beyond > 0
        yield alike & there, ~alike & there, alike


def _excludes_zero(rho: Array, images: int) -> NDArray[np.bool_]:
    """Whether the theoretical interval of a correlation does; see `ranks.interval`."""
    tail = special.ndtri((1 + CONFIDENCE) / 2)
    z = np.arctanh(np.minimum(np.abs(rho), largest_estimable(images)))
    return np.asarray(z > tail * np.sqrt((1 + rho**2 / 2) / (images - 3)))
