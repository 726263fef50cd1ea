"""How the tokens' metrics go with what an image holds: every metric against every attribute.

Spearman's correlation over images, per stream and layer. Since an image with more objects also has
more ink, each correlation has a partial twin: given the number of objects and the ink (each of
these given the other); for photographs, which have none, the share of the image that objects cover
stands for it. A table has thousands of rows, so `p` holds for all of them at once (max-T over
shared permutations of images); `q` is the false discovery rate of Benjamini and Hochberg (1995)
over p values of Student's t, which permutations could not resolve finely enough.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mixlens.analysis.aligned import aligned, patterns, ranked_attributes, wide
from mixlens.analysis.permutations import Hypotheses, adjusted_p, largest_of_all
from mixlens.analysis.ranks import (
    NOTHING_LEFT,
    interval,
    leave_one_out,
    multiple,
    p_value,
    partial,
    standard_ranks,
)
from mixlens.statistics.intervals import Array

LEVEL = 0.05  # of p over the whole table: what is at most this is beyond chance
COLLINEAR = 0.95  # the interval of a partial correlation is more than three times as wide there
LEAST = 4  # images, and one more for each attribute held fixed
COLUMNS = (
    "stream", "layer", "metric", "attribute", "rho", "low", "high", "n", "p", "q",
    "partial_rho", "partial_low", "partial_high", "partial_p", "partial_q", "given", "note",
)  # fmt: skip
_KINDS = ("", "partial_")  # what the columns of the whole and of the partial results begin with
_ESTIMATES = ("rho", "low", "high", "t_p", "statistic")


def correlate(
    image_metrics: pd.DataFrame,
    attributes: pd.DataFrame,
    permutations: int = 10_000,
    seed: int = 0,
    held: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The `correlations` table: a row for each stream, layer, metric and ranked attribute.

    A row is computed over the n images that have both values. Its columns: rho with a 95 % interval
    (see `ranks`); p, adjusted over the whole table (see `permutations`); q; the same of the partial
    correlation, whose p and q are adjusted over all partial results; given, what is held fixed,
    comma separated: those of `held` that vary and that all n images have, without the attribute
    itself; note: why something is NaN, or that the attribute is collinear with what is held fixed
    (multiple correlation of the ranks above 0.95), so that little is left to correlate.

    The partial correlation removes what is linear in the ranks. p tests independence, which is
    broken also where only the spread of a metric goes with an attribute.

    Args:
        image_metrics: stream, layer, metric, example_id, value; NaN where not estimable.
        attributes: example_id and a column an attribute; those of words have no rows.
        permutations: of images, for the adjusted p; none is below 1 / (permutations + 1).
        seed: of the permutations.
        held: the attributes to hold fixed; none: those of `held_of`.

    Raises:
        DataError: an image has no attributes, or has a metric or its attributes twice.
    """
    names, _ = ranked_attributes(attributes)
    metrics = wide(image_metrics)
    facts = aligned(attributes, metrics.index, names)
    if metrics.empty or not names:
        return pd.DataFrame(columns=list(COLUMNS))
    # Every column of the table as [metrics, attributes].
    fixed = held_of(names) if held is None else held
    filled, hypotheses = _estimate_all(metrics.to_numpy(), facts, names, fixed)
    for kind in _KINDS:
        filled |= _adjusted(filled, kind, hypotheses[kind], len(metrics), permutations, seed)
    keys = metrics.columns.to_frame(index=False)
    table = keys.iloc[np.repeat(np.arange(len(keys)), len(names))].reset_index(drop=True)
    table["attribute"] = names * len(keys)
    table = table.assign(**{name: values.ravel() for name, values in filled.items()})
    return table[list(COLUMNS)].astype({"layer": "int32", "n": "int64"})


def held_of(names: Collection[str]) -> tuple[str, str]:
    """What is held fixed among these attributes: how many objects, and how much of them there is.

    The painted share of the image, or, where nothing is painted, the share that objects cover.
    """
    return ("object_count", "ink_fraction" if "ink_fraction" in names else "covered_fraction")


def _estimate_all(
    metrics: Array, facts: Array, names: list[str], held: Sequence[str]
) -> tuple[dict[str, NDArray], dict[str, list[Hypotheses]]]:
    """All columns but p and q, and the hypotheses that these come from, by kind."""
    shape = (metrics.shape[1], len(names))
    filled = {kind + name: np.full(shape, np.nan) for kind in _KINDS for name in _ESTIMATES}
    filled |= {name: np.full(shape, "", dtype=object) for name in ("given", "note")}
    filled["n"] = np.zeros(shape, dtype=np.int64)
    hypotheses: dict[str, list[Hypotheses]] = {kind: [] for kind in _KINDS}
    fixed = [names.index(name) for name in held if name in names]
    for images, some, columns in patterns(metrics, facts):
        # What is held fixed comes along, also where other images than its own are missing.
        known = [place for place in fixed if not np.isnan(facts[images, place]).any()]
        first = [*columns, *(place for place in known if place not in columns)]
        group = _Group.of(
            images,
            metrics[np.ix_(images, some)],
            facts[np.ix_(images, first)],
            [names[place] for place in first],
        )
        for own, place in enumerate(columns):
            given = [first.index(other) for other in known if other != place]
            rows, found = group.against(own, given)
            for name, values in rows.items():
                filled[name][some, place] = values
            for kind, one in found.items():
                hypotheses[kind].append(one)
    return filled, hypotheses


@dataclass(frozen=True)
class _Group:
    """Metrics and attributes on the images that have them all.

    Attributes:
        images: [n] their places among all images.
        names: of the attributes.
        ranks: [n, attributes + metrics] standard ranks.
        rho: [attributes + metrics, attributes] correlations.
        without: [n, attributes + metrics, attributes] the same without each image.
    """

    images: NDArray[np.int64]
    names: list[str]
    ranks: Array
    rho: Array
    without: Array

    @classmethod
    def of(
        cls, images: NDArray[np.int64], metrics: Array, facts: Array, names: list[str]
    ) -> "_Group":
        values = np.concatenate([facts, metrics], axis=1)
        ranks = standard_ranks(values)
        enough = len(images) >= LEAST
        without = leave_one_out(values, len(names)) if enough else np.zeros((0, 0, 0))
        return cls(images, names, ranks, ranks.T @ ranks[:, : len(names)], without)

    def against(
        self, own: int, held: Sequence[int]
    ) -> tuple[dict[str, object], dict[str, Hypotheses]]:
        """The columns of one attribute's rows, and the hypotheses of each kind."""
        n, first = len(self.images), len(self.names)
        varies = np.asarray(self.ranks.any(axis=0))
        given = [other for other in held if varies[other]]
        note = np.where(varies[first:], "", "metric constant over all images").astype(object)
        rows = {"n": n, "given": ",".join(self.names[other] for other in given), "note": note}
        if n < LEAST:
            return rows | {"note": f"{n} images, fewer than {LEAST}"}, {}
        if not varies[own]:
            return rows | {"note": "constant over all images"}, {}
        whole, hypotheses = self._estimate("", own, [])
        possible, remark = self._partial_is_possible(own, given)
        note[varies[first:]] = remark
        if not possible:
            return rows | whole, {"": hypotheses}
        part, part_hypotheses = self._estimate("partial_", own, given)
        lost = varies[first:] & np.isnan(part["partial_rho"])
        note[lost] = "metric follows from what is held fixed: no partial result"
        return rows | whole | part, {"": hypotheses, "partial_": part_hypotheses}

    def _estimate(
        self, kind: str, own: int, given: list[int]
    ) -> tuple[dict[str, Array], Hypotheses]:
        """The columns of one kind, and the hypotheses that its p comes from."""
        first, held = len(self.names), len(given)
        metrics = self.ranks[:, first:]
        hypotheses = Hypotheses.of(self.images, self.ranks[:, given], self.ranks[:, own], metrics)
        rho = partial(self.rho, own, given)[first:]
        rho = np.where(metrics.any(axis=0), rho, np.nan)
        low, high = interval(rho, partial(self.without, own, given)[:, first:], held)
        statistic = np.abs(rho) * hypotheses.scale
        values = (rho, low, high, p_value(rho, len(self.images), held), statistic)
        return {kind + name: v for name, v in zip(_ESTIMATES, values, strict=True)}, hypotheses

    def _partial_is_possible(self, own: int, given: list[int]) -> tuple[bool, str]:
        """Whether there is a partial result, and what is to be said of it."""
        n, least = len(self.images), LEAST + len(given)
        if not given:
            return False, "nothing to hold fixed"
        if n < least:
            return False, f"{n} images, fewer than {least} for a partial result"
        names = " and ".join(self.names[other] for other in given)
        together = multiple(self.rho, own, given)
        if 1.0 - together**2 <= NOTHING_LEFT:
            return False, f"follows from {names}: no partial result"
        if together > COLLINEAR:
            return True, f"collinear with {names} (R = {together:.3f})"
        return True, ""


def _adjusted(
    filled: dict[str, NDArray],
    kind: str,
    hypotheses: list[Hypotheses],
    images: int,
    permutations: int,
    seed: int,
) -> dict[str, Array]:
    """Adjusted p, and q, of one kind, [metrics, attributes]; NaN where there is no result."""
    statistic, t_p = filled[kind + "statistic"], filled[kind + "t_p"]
    p, q = np.full((2, *statistic.shape), np.nan)
    there = ~np.isnan(statistic)
    if there.any():
        largest = largest_of_all(hypotheses, images, permutations, seed)
        p[there] = adjusted_p(statistic[there], largest)
        q[there] = stats.false_discovery_control(t_p[there], method="bh")
    return {kind + "p": p, kind + "q": q}
