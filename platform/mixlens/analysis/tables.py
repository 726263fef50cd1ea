"""The tidy tables of a sweep: one value a row, with its interval and its n.

`accuracy` and `layers` hold one model a row (its interval covers the choice of images), `sweep`
one level a row (seeds combined), `training` one logged step a row. `level` names the level; what it
is stands in `levels` alone. The base has the level "base".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mixlens.analysis.results import RunResults, SweepResults
from mixlens.design import BASE
from mixlens.statistics.intervals import (
    Array,
    Levels,
    Sums,
    Unseen,
    combine_seeds,
    image_intervals,
    image_weights,
)
from mixlens.tasks import GROUPS
from mixlens.tasks.group import Tier

HEADLINE = {name: group.headline for name, group in GROUPS.items() if group.is_compared}
TIERS: dict[str, tuple[str, ...]] = {
    tier: tuple(name for name in HEADLINE if GROUPS[name].tier == tier) for tier in get_args(Tier)
}
ALL = "all"
MEAN_ACCURACY = "accuracy"  # of several groups
UNBOUNDED = ("count_error", "location_error")
REDUNDANCY = "redundancy_score"
EXCESS = "redundancy_excess"
PARTS = ("mean", "early", "middle", "late")
_NOT_SCORES = {
    "example_id", "component", "group", "kind", "complexity", "prompt", "question", "answer",
    "response", "choices", "run", "level", "seed",
}  # fmt: skip
_CHUNK = 256  # columns whose draws are held at a time


@dataclass(frozen=True)
class Panel:
    """The same quantities of every run, image by image.

    Attributes:
        columns: one row a quantity: subject (task group or token stream), metric, part (of the
            depth), layer, bounded (values lie in [0, 1]), chance.
        sums: one a run, base first; their columns are the parts that `made_of` refers to.
        made_of: for each quantity the columns of `sums` whose means are averaged into it.
    """

    columns: pd.DataFrame
    sums: tuple[Sums, ...]
    made_of: tuple[tuple[int, ...], ...]

    def take(self, keep: Sequence[int]) -> "Panel":
        """The panel of the quantities at these positions."""
        return Panel(
            self.columns.iloc[list(keep)].reset_index(drop=True),
            self.sums,
            tuple(self.made_of[position] for position in keep),
        )

    def images(self) -> NDArray[np.int64]:
        """[runs, quantities] images that have a value."""
        return np.stack(
            [
                np.array([run.images[list(parts)].min() for parts in self.made_of], dtype=np.int64)
                for run in self.sums
            ]
        )


@dataclass(frozen=True)
class Tables:
    """Everything that a report and MLflow are views of; see `write` for the file names."""

    levels: pd.DataFrame
    accuracy: pd.DataFrame
    layers: pd.DataFrame
    sweep: pd.DataFrame
    effects: pd.DataFrame
    recommendation: pd.DataFrame
    training: pd.DataFrame
    examples: pd.DataFrame
    image_metrics: pd.DataFrame
    attributes: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Write each table as `<folder>/<name>.parquet`."""
        write_tables(folder, vars(self))


def read_tables(folder: Path) -> Tables:
    """What `Tables.write` has left in a folder."""
    return Tables(
        **{one.name: pd.read_parquet(folder / f"{one.name}.parquet") for one in fields(Tables)}
    )


def write_tables(folder: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write each table as `<folder>/<name>.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)


def accuracy_panel(sweep: SweepResults) -> Panel:
    """Scores per task group, and the means of the simple, of the complex and of all groups.

    And of the groups of each level that is trained on several, under their names joined by "+".
    """
    scores = score_columns(sweep.runs)
    keys = sorted({group for run in sweep.runs for group in run.examples["group"].unique()})
    pairs = [(group, score) for group in keys for score in scores]
    sums = tuple(_score_sums(run, sweep.example_ids, pairs) for run in sweep.runs)
    asked = np.stack([run.images for run in sums]).max(axis=0) > 0
    chance = _chance(sweep.base.examples)
    rows: list[tuple[str, str, bool, float]] = []
    made_of: list[tuple[int, ...]] = []
    for position, (group, score) in enumerate(pairs):
        if asked[position]:
            luck = chance.get(group, np.nan) if score in ("exact", "relaxed") else np.nan
            rows.append((group, score, score not in UNBOUNDED, luck))
            made_of.append((position,))
    place = {(row[0], row[1]): parts[0] for row, parts in zip(rows, made_of, strict=True)}
    several = [groups for groups in map(sweep.groups_of, sweep.levels) if len(groups) > 1]
    means = {**TIERS, ALL: tuple(HEADLINE)}
    means |= {"+".join(groups): groups for groups in several}
    for name, groups in means.items():
        parts = tuple(
            place[group, HEADLINE[group]]
            for group in groups
            if (group, HEADLINE.get(group)) in place
        )
        if parts:
            rows.append((name, MEAN_ACCURACY, True, np.nan))
            made_of.append(parts)
    columns = pd.DataFrame(rows, columns=["subject", "metric", "bounded", "chance"])
    columns["part"], columns["layer"] = "", pd.array([pd.NA] * len(columns), dtype="Int64")
    return Panel(columns, sums, tuple(made_of))


def token_panel(sweep: SweepResults) -> Panel:
    """Every metric of every stream and layer, its means over parts of the depth, and the excess.

    Parts of the depth are the mean over all layers of a stream and over its first, middle and last
    third. The excess is the redundancy score of a layer minus that of the raw pixel patches of the
    same image: what is not explained by patches that look alike.
    """
    keys = sorted(
        {
            key
            for run in sweep.runs
            for key in run.image_metrics[["stream", "layer", "metric"]]
            .drop_duplicates()
            .itertuples(index=False, name=None)
        }
    )
    index = pd.MultiIndex.from_tuples(keys, names=["stream", "layer", "metric"])
    place = {key: position for position, key in enumerate(keys)}
    floor = [position for key, position in place.items() if key[0] == "pixels" and
             key[2] == REDUNDANCY]  # fmt: skip
    above = [key for key in keys if key[2] == REDUNDANCY and key[0] != "pixels"] if floor else []
    layered = [*keys, *((stream, layer, EXCESS) for stream, layer, _ in above)]
    rows = [(stream, metric, "layer", layer) for stream, layer, metric in layered]
    parts: list[list[int]] = []
    profiles: dict[tuple[str, str], list[int]] = {}
    for position, (stream, _, metric) in enumerate(layered):
        profiles.setdefault((stream, metric), []).append(position)
    for (stream, metric), positions in profiles.items():
        if stream == "pixels":
            continue
        for part, members in zip(PARTS, depth_parts(positions), strict=True):
            if members:
                rows.append((stream, metric, part, pd.NA))
                parts.append(members)
    sums = []
    for run in sweep.runs:
        values = _pivot(run.image_metrics, sweep.example_ids, index)
        if above:
            excess = values[:, [place[key] for key in above]] - values[:, floor[:1]]
            values = np.concatenate([values, excess], axis=1)
        means = [values[:, members].mean(axis=1) for members in parts]
        sums.append(Sums.of(np.column_stack([values, *means])))
    columns = pd.DataFrame(rows, columns=["subject", "metric", "part", "layer"])
    columns["layer"] = columns["layer"].astype("Int64")
    columns["bounded"], columns["chance"] = False, np.nan
    return Panel(columns, tuple(sums), tuple((position,) for position in range(len(columns))))


def levels_of(sweep: SweepResults, panel: Panel, weights: Array) -> Levels:
    """The panel's quantities of the base (level 0) and of `sweep.levels` (1, 2, ...)."""
    used = sorted({position for parts in panel.made_of for position in parts})
    moved = {position: place for place, position in enumerate(used)}
    made_of = [[moved[position] for position in parts] for parts in panel.made_of]
    values, draws = [], []
    for run in panel.sums:
        some = Sums(run.numerator[:, used], run.denominator[:, used])
        values.append(_average(some.mean(), made_of))
        draws.append(_average(some.replicates(weights), made_of))
    level = np.array(_level_of(sweep))
    fixed = [True, *(False for _ in sweep.levels)]
    levels = combine_seeds(np.stack(values), np.stack(draws, axis=1), level.tolist(), fixed)
    bounded = panel.columns["bounded"].to_numpy(dtype=bool)
    if not bounded.any():
        return levels
    runs_of = [np.flatnonzero(level == one) for one in range(level.max() + 1)]
    means = np.stack([run.mean()[used] for run in panel.sums])
    images = np.stack([run.images[used] for run in panel.sums])
    unseen = Unseen.of(
        np.stack([means[some].mean(axis=0) for some in runs_of]),
        np.stack([images[some].min(axis=0) for some in runs_of]),
        made_of,
        bounded,
    )
    return replace(levels, unseen=unseen)


def images_of(sweep: SweepResults, panel: Panel) -> NDArray[np.int64]:
    """[levels, quantities] images that have a value in every run of a level of `levels_of`."""
    level, images = np.array(_level_of(sweep)), panel.images()
    return np.stack([images[level == one].min(axis=0) for one in range(level.max() + 1)])


def _level_of(sweep: SweepResults) -> list[int]:
    return [0, *(1 + place for place in sweep.level_of_trials())]


def accuracy_table(sweep: SweepResults, panel: Panel, weights: Array) -> pd.DataFrame:
    """run, level, seed, group, metric, value, low, high, n (images), chance."""
    panel = panel.take(np.flatnonzero(panel.columns["metric"].ne(MEAN_ACCURACY)).tolist())
    frames = []
    for run, frame in _run_frames(sweep, panel, weights):
        frame = frame.rename(columns={"subject": "group"})
        frames.append(
            _named(run, frame[["group", "metric", "value", "low", "high", "n", "chance"]])
        )
    return pd.concat(frames, ignore_index=True)


def layers_table(sweep: SweepResults, panel: Panel, weights: Array) -> pd.DataFrame:
    """run, level, seed, stage, stream, layer, metric, value, low, high, n (images).

    Where a metric was also pooled over images (the redundancy score), the pooled value and its
    jackknife interval stand here.
    """
    panel = panel.take([p for p, part in enumerate(panel.columns["part"]) if part == "layer"])
    keys = ["stream", "layer", "metric"]
    frames = []
    for run, frame in _run_frames(sweep, panel, weights):
        frame = frame.rename(columns={"subject": "stream"})
        frame = frame[[*keys, "value", "low", "high", "n"]].set_index(keys)
        pooled = run.pooled_metrics[[*keys, "value", "low", "high", "n"]].set_index(keys)
        frame = pd.concat([pooled, frame[~frame.index.isin(pooled.index)]]).sort_index()
        frame = frame.reset_index()
        frame.insert(0, "stage", "base" if run.trial is None else "trained")
        frames.append(_named(run, frame))
    return pd.concat(frames, ignore_index=True)


def sweep_table(sweep: SweepResults, panels: Sequence[Panel], weights: Array) -> pd.DataFrame:
    """One row a level and quantity, seeds combined.

    Columns: level, subject (task group, several of them such as "simple", "complex" and "all", or
    token stream), metric, part, layer, value, low, high, n_images, n_seeds, covers, chance.
    """
    rows = [BASE, *(level.id for level in sweep.levels)]
    frames = []
    for panel, levels in _chunks(sweep, panels, weights):
        low, high = levels.interval()
        images_at = images_of(sweep, panel)
        for place, level in enumerate(rows):
            images = images_at[place]
            frame = panel.columns.assign(
                level=level,
                value=levels.values[place],
                low=np.where(images < 2, np.nan, low[place]),
                high=np.where(images < 2, np.nan, high[place]),
                n_images=images,
                n_seeds=0 if place == 0 else levels.seeds[place],
                covers="images" if place == 0 else levels.covers,
            )
            frames.append(frame)
    table = pd.concat(frames, ignore_index=True)
    return table[
        ["level", "subject", "metric", "part", "layer", "value", "low", "high", "n_images",
         "n_seeds", "covers", "chance"]
    ]  # fmt: skip


def training_table(sweep: SweepResults) -> pd.DataFrame:
    """run, level, seed and whatever the training loop logged, one step a row."""
    return pd.concat([_named(run, run.training) for run in sweep.trials], ignore_index=True)


def examples_table(sweep: SweepResults) -> pd.DataFrame:
    """run, level, seed and every question with its answer and scores."""
    return pd.concat([_named(run, run.examples) for run in sweep.runs], ignore_index=True)


def image_metrics_table(sweep: SweepResults) -> pd.DataFrame:
    """run, level, seed, stream, layer, metric, example_id, value."""
    return pd.concat([_named(run, run.image_metrics) for run in sweep.runs], ignore_index=True)


def weights_of(sweep: SweepResults) -> Array:
    """The one set of image draws that every table of a sweep uses."""
    return image_weights(len(sweep.example_ids))


def score_columns(runs: Sequence[RunResults]) -> list[str]:
    """The columns of `examples` that hold a score some run has."""
    names = [
        name
        for name in runs[0].examples.columns
        if name not in _NOT_SCORES and pd.api.types.is_numeric_dtype(runs[0].examples[name])
    ]
    return [name for name in names if any(run.examples[name].notna().any() for run in runs)]


def depth_parts(layers: Sequence[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """All layers, and their first, middle and last third (empty with fewer than three layers)."""
    everything = list(layers)
    if len(everything) < 3:
        return everything, [], [], []
    early, middle, late = (part.tolist() for part in np.array_split(everything, 3))
    return everything, early, middle, late


def _named(run: RunResults, frame: pd.DataFrame) -> pd.DataFrame:
    own = ("run", "level", "seed")
    frame = frame.drop(columns=[name for name in own if name in frame])
    frame.insert(0, "run", run.name)
    frame.insert(1, "level", run.level)
    frame.insert(2, "seed", pd.array([run.seed] * len(frame), dtype="Int64"))
    return frame


def _run_frames(
    sweep: SweepResults, panel: Panel, weights: Array
) -> Iterator[tuple[RunResults, pd.DataFrame]]:
    """For each run the panel's columns with value, low, high and n (images)."""
    used = [parts[0] for parts in panel.made_of]
    bounded = panel.columns["bounded"].to_numpy(dtype=bool)
    for run, sums in zip(sweep.runs, panel.sums, strict=True):
        some = Sums(sums.numerator[:, used], sums.denominator[:, used])
        value, low, high = image_intervals(some, weights, bounded=bounded)
        yield run, panel.columns.assign(value=value, low=low, high=high, n=some.images)


def _chunks(
    sweep: SweepResults, panels: Sequence[Panel], weights: Array
) -> Iterator[tuple[Panel, Levels]]:
    for panel in panels:
        for start in range(0, len(panel.columns), _CHUNK):
            stop = min(start + _CHUNK, len(panel.columns))
            some = panel.take(range(start, stop))
            yield some, levels_of(sweep, some, weights)


def _average(means: Array, made_of: Sequence[Sequence[int]]) -> Array:
    if all(len(parts) == 1 for parts in made_of):
        return means[..., [parts[0] for parts in made_of]]
    return np.stack([means[..., list(parts)].mean(axis=-1) for parts in made_of], axis=-1)


def _pivot(frame: pd.DataFrame, ids: Sequence[str], index: pd.MultiIndex) -> Array:
    """[images, columns] the values of a long table of image metrics; NaN where there is none."""
    row = pd.Index(ids).get_indexer(pd.Index(frame["example_id"]))
    column = index.get_indexer(pd.MultiIndex.from_frame(frame[["stream", "layer", "metric"]]))
    there = row >= 0
    values = np.full((len(ids), len(index)), np.nan)
    values[row[there], column[there]] = frame["value"].to_numpy(dtype=float)[there]
    return values


def _score_sums(run: RunResults, ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Sums:
    """Sums of each (group, score) pair over the questions of each image."""
    row = pd.Index(ids).get_indexer(pd.Index(run.examples["example_id"]))
    group = run.examples["group"].to_numpy()
    numerator, denominator = np.zeros((2, len(ids), len(pairs)))
    for column, (name, score) in enumerate(pairs):
        if score not in run.examples:
            continue
        values = run.examples[score].to_numpy(dtype=float, na_value=np.nan)
        keep = (group == name) & ~np.isnan(values)
        numerator[:, column] = np.bincount(row[keep], values[keep], minlength=len(ids))
        denominator[:, column] = np.bincount(row[keep], minlength=len(ids))
    return Sums(numerator, denominator)


def _chance(examples: pd.DataFrame) -> dict[str, float]:
    """Accuracy of a guesser per group; only where every question has listed choices."""
    chance = {}
    for group, choices in examples.groupby("group")["choices"]:
        if (choices > 0).all():
            chance[str(group)] = float((1.0 / choices).mean())
    return chance
