"""The table of deletion: accuracy by what was deleted, how, and from which images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa

from mixlens.analysis.tables import ALL, HEADLINE
from mixlens.probing.settings import DOWNSAMPLING, RANDOM, SEEDLESS
from mixlens.spec.measure import ENCODER
from mixlens.statistics.intervals import (
    Array,
    Sums,
    difference_intervals,
    image_intervals,
    image_weights,
)

DELETION_COLUMNS = (
    "layer", "policy", "share", "seed", "group", "objects", "value", "low", "high", "n",
    "against_random", "against_low", "against_high", "tokens_kept", "prefill_s_per_image",
    "peak_bytes", "note",
)  # fmt: skip
BIN_ENDS = (0, 2, 5, 10, 20, 50, 100, 200)
"""The largest object count of each bin; the same in every report, so that reports compare."""

Cell = tuple[str, str]  # task group and object-count bin, each may be "all"


def object_bin(count: float) -> str:
    """Name of the bin of an object count, such as "3-5"; "" for an unknown count."""
    if np.isnan(count):
        return ""
    below = -1
    for end in BIN_ENDS:
        if count <= end:
            return str(end) if end == below + 1 else f"{below + 1}-{end}"
        below = end
    return f"over {BIN_ENDS[-1]}"


def bin_start(name: str) -> float:
    """What bins are ordered by: their smallest count, "all" first."""
    return -1.0 if name == ALL else float(name.removeprefix("over ").partition("-")[0])


def deletion_table(results: pa.Table | pd.DataFrame) -> pd.DataFrame:
    """Accuracy of every setting of deletion per task group and object-count bin.

    Args:
        results: what `mixlens.probing.deletion.delete` gave, of all images.

    Returns:
        `DELETION_COLUMNS`. value is the group's headline score over all questions ("all": over the
        questions of all groups). Rows with seed -1 are means over the seeds; single seeds follow
        for all counts together. Intervals are BCa over images (95 %, an image with all its
        questions is the unit); as each image has its own draw of random tokens, they cover that
        draw too. against_random is the difference to the mean of random deletion at the same layer
        and nominal share, on the same images, paired in the bootstrap. Nothing deleted is one
        measurement, given as random with share 0 at every layer. tokens_kept and peak_bytes are
        means over images, prefill_s_per_image the median. What is NaN says why in note.
    """
    frame = results.to_pandas() if isinstance(results, pa.Table) else results.copy()
    if frame.empty:
        return pd.DataFrame(columns=list(DELETION_COLUMNS))
    relaxed = frame["group"].map(HEADLINE) == "relaxed"
    frame["score"] = frame["relaxed"].where(relaxed, frame["exact"])
    frame["objects"] = frame["object_count"].astype(float).map(object_bin)
    frame["image"] = pd.factorize(frame["example_id"], sort=True)[0]
    images = int(frame["image"].max()) + 1
    cells = _cells(frame)
    weights = image_weights(images)
    runs = {
        key: _Run.of([one for _, one in rows.groupby("seed")], images, cells)
        for key, rows in frame.groupby(["layer", "policy", "share"], sort=True)
    }
    nothing = runs.pop((ENCODER, RANDOM, 0.0))
    layers = sorted({layer for layer, policy, _ in runs if policy != DOWNSAMPLING}) or [ENCODER]
    for layer in layers:
        runs[layer, RANDOM, 0.0] = nothing
    whole = int(frame["tokens"].iloc[0])
    parts = []
    for (layer, policy, share), run in sorted(runs.items()):
        plain = None if policy == RANDOM else runs.get((layer, RANDOM, share))
        rows = run.rows(weights, cells)
        rows = rows.assign(**_against(run, plain, weights), seed=SEEDLESS)
        rows["note"] = _note(policy, share, whole, run, plain)
        rows.loc[rows["n"] < 2, "note"] += "no interval from one image; "
        some = [rows, *(_seed_rows(run, weights, cells))]
        parts.append(pd.concat(some).assign(layer=layer, policy=policy, share=share))
    table = pd.concat(parts, ignore_index=True)
    table["note"] = table["note"].str.removesuffix("; ")
    return table[table["n"] > 0].reset_index(drop=True)[list(DELETION_COLUMNS)]


@dataclass(frozen=True)
class _Run:
    """One way of deletion, a seed at a time.

    Attributes:
        seeds: of each part.
        right: [seeds, images, cells] scores added up.
        asked: [images, cells] questions.
        cost: [seeds, images, 3] tokens kept, seconds, bytes.
    """

    seeds: Sequence[int]
    right: Array
    asked: Array
    cost: Array

    @classmethod
    def of(cls, parts: Sequence[pd.DataFrame], images: int, cells: Sequence[Cell]) -> "_Run":
        right = np.zeros((len(parts), images, len(cells)))
        asked = np.zeros((len(parts), images, len(cells)))
        cost = np.full((len(parts), images, 3), np.nan)
        for place, part in enumerate(parts):
            image = part["image"].to_numpy()
            columns = ["tokens_kept", "prefill_s_per_image", "peak_bytes"]
            cost[place, image] = part[columns].to_numpy(dtype=float)
            for column, (group, objects) in enumerate(cells):
                inside = np.ones(len(part), dtype=bool)
                if group != ALL:
                    inside &= (part["group"] == group).to_numpy()
                if objects != ALL:
                    inside &= (part["objects"] == objects).to_numpy()
                score = part["score"].to_numpy(dtype=float)
                np.add.at(right[place, :, column], image[inside], score[inside])
                np.add.at(asked[place, :, column], image[inside], 1.0)
        assert (asked == asked[0]).all(), "every seed has to be asked the same questions"
        seeds = [int(part["seed"].iloc[0]) for part in parts]
        return cls(seeds, right, asked[0], cost)

    def rows(self, weights: Array, cells: Sequence[Cell]) -> pd.DataFrame:
        """A row a cell: the mean over seeds with its interval, and the costs."""
        sums = Sums(self.right.mean(axis=0), self.asked)
        value, low, high = image_intervals(sums, weights, bounded=True)
        costs = np.full((len(cells), 3), np.nan)
        for column in np.flatnonzero(sums.images):
            some = self.cost[:, self.asked[:, column] > 0]
            kept, _, peak = some.mean(axis=(0, 1))
            costs[column] = kept, np.median(some[..., 1], axis=1).mean(), peak
        return pd.DataFrame(
            {
                "group": [group for group, _ in cells],
                "objects": [objects for _, objects in cells],
                "value": value,
                "low": low,
                "high": high,
                "n": sums.images,
                "tokens_kept": costs[:, 0],
                "prefill_s_per_image": costs[:, 1],
                "peak_bytes": costs[:, 2],
            }
        )


def _seed_rows(run: _Run, weights: Array, cells: Sequence[Cell]) -> list[pd.DataFrame]:
    """Each seed by itself, for all counts together; none where there are no seeds."""
    total = [place for place, (_, objects) in enumerate(cells) if objects == ALL]
    found = []
    for place, seed in enumerate(run.seeds):
        if seed != SEEDLESS:
            one = slice(place, place + 1)
            alone = _Run([seed], run.right[one][..., total], run.asked[:, total], run.cost[one])
            rows = alone.rows(weights, [cells[column] for column in total])
            missing = dict.fromkeys(("against_random", "against_low", "against_high"), np.nan)
            found.append(rows.assign(**missing, seed=seed, note="a single seed; "))
    return found


def _against(run: _Run, plain: _Run | None, weights: Array) -> dict[str, Array]:
    """The paired difference to random deletion; NaN for itself and where there is none."""
    names = ("against_random", "against_low", "against_high")
    if plain is None:
        return {name: np.full(run.asked.shape[1], np.nan) for name in names}
    own, other = (Sums(one.right.mean(axis=0), one.asked) for one in (run, plain))
    return dict(zip(names, difference_intervals(own, other, weights), strict=True))


def _note(policy: str, share: float, whole: int, run: _Run, plain: _Run | None) -> str:
    kept = run.cost[..., 0].mean()
    if policy == RANDOM:
        return "nothing deleted; " if share == 0 else ""
    without = "" if plain else "no random deletion at this layer; "
    if policy == DOWNSAMPLING:
        return f"the image shrunk to give {kept:g} of {whole} tokens; {without}"
    return without


def _cells(frame: pd.DataFrame) -> list[Cell]:
    """Task groups by object-count bins, as far as there are any, and all of each."""
    groups = [ALL, *sorted(frame["group"].unique())]
    bins = [ALL, *sorted(set(frame["objects"]) - {""}, key=bin_start)]
    return [(group, objects) for group in groups for objects in bins]
