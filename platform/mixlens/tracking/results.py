"""Which results go to MLflow under which names.

The names are chosen for its compare and parallel-coordinates views, where the trials of a sweep
lie side by side: the params `level`, its coordinates (such as `ratio`) and `seed`, and beside them

    accuracy/<group>            the headline score of each task group
    scores/<group>/<score>      all others
    redundancy/<stream>_<part>  mean redundancy score over all layers, or a third of them
    tokens/<metric>/<stream>    mean of any other token metric over the layers
    layers/<metric>/<stream>    the layer profile: step = layer
    .../low, .../high           95 % interval over images of an accuracy or a profile
    evaluation/answers_per_s    questions answered a second, by generation alone, over all actors
    evaluation/tokens_per_s     tokens generated for it a second

and in the sweep's own run `by_level/...`, where step = place of the level from 1 on, `effect/...`:
last level minus first, `trend/...`: per unit of the scale or per level, `sufficient/<scale>`, and
`transfer/...`: trends of the base on other images.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from mixlens.analysis import RunResults, Tables
from mixlens.analysis.effect import DIFFERENCE, TREND
from mixlens.analysis.levels import Levels
from mixlens.analysis.provenance import read_provenance
from mixlens.analysis.tables import (
    ALL,
    EXCESS,
    HEADLINE,
    PARTS,
    REDUNDANCY,
    TIERS,
    depth_parts,
    score_columns,
)
from mixlens.measurement.measurement import read_table
from mixlens.mixture.decoding import REPLACED
from mixlens.tracking.sink import Point, Sink


def log_run(sink: Sink, run: RunResults) -> None:
    """Log one measured model: its accuracies, layer profiles and code.

    Of a training on photographs, also which of them had to be replaced by others.
    """
    sink.log_metrics("accuracy", list(accuracy_points(run)))
    sink.log_metrics("layers", list(layer_points(run)))
    sink.log_metrics("evaluation", list(speed_points(run.measured.throughput)))
    realised = realised_mixture(run)
    if realised:
        sink.log_json("realised_mixture.json", realised)
    if (run.folder / REPLACED).is_file():
        sink.log_file(run.folder / REPLACED)
    log_provenance(sink, run.folder)


def log_intervals(sink: Sink, name: str, tables: Path) -> None:
    """Log the intervals of the model called `name`, over images, beside its values.

    They stand in the tables of its sweep. The redundancy score has another value there, pooled over
    the images, so its interval would not belong to what is logged.
    """
    accuracy = pd.read_parquet(tables / "accuracy.parquet")
    accuracy = accuracy[accuracy["run"] == name]
    points: list[Point] = []
    for row in accuracy.itertuples():
        if row.metric == HEADLINE.get(str(row.group)):
            key = f"accuracy/{row.group}"
            points += [(f"{key}/low", float(row.low), 0), (f"{key}/high", float(row.high), 0)]
    layers = pd.read_parquet(tables / "layers.parquet")
    layers = layers[(layers["run"] == name) & (layers["metric"] != REDUNDANCY)]
    for row in layers.itertuples():
        key, layer = f"layers/{row.metric}/{row.stream}", int(row.layer)
        points += [(f"{key}/low", float(row.low), layer), (f"{key}/high", float(row.high), layer)]
    sink.log_metrics("intervals", points)


def log_sweep(sink: Sink, tables: Tables, sentences: Sequence[str], folder: Path) -> None:
    """Log what the sweep as a whole says.

    With it go the tables, figures, report and code state that the sweep's directory, `folder`,
    holds.
    """
    sink.log_metrics("sweep", list(sweep_points(tables)))
    summary = folder / "tables" / "transfer_summary.parquet"
    if summary.is_file():
        sink.log_metrics("transfer", list(transfer_points(read_table(summary))))
    sink.log_text("answer.txt", "\n".join(sentences) + "\n")
    log_provenance(sink, folder)
    log_files(sink, folder)


def log_files(sink: Sink, folder: Path) -> None:
    """Keep the tables, figures and report that a results directory holds."""
    for kind in ("tables", "figures"):
        for file in sorted((folder / kind).glob("*.*")):
            sink.log_file(file, kind)
    if (folder / "report.html").is_file():
        sink.log_file(folder / "report.html")


def log_provenance(sink: Sink, folder: Path) -> None:
    """Keep what the results in `folder` were made with, and the uncommitted changes as a patch."""
    provenance = read_provenance(folder)
    if provenance is None:
        return
    sink.log_json("provenance.json", provenance.summary())
    sink.log_text("uncommitted.patch", provenance.diff or "no uncommitted changes\n")
    # The first is the one that MLflow's own views show as the version of a run.
    sink.tag("mlflow.source.git.commit", provenance.commit or provenance.source)
    sink.tag("mixlens.code", provenance.code)


def accuracy_points(run: RunResults) -> Iterator[Point]:
    """Scores of one model: the mean over all questions of a group."""
    headline = {}
    for group, rows in run.examples.groupby("group"):
        for score in score_columns([run]):
            value = float(rows[score].mean())
            if score == HEADLINE.get(str(group)):
                headline[str(group)] = value
                yield f"accuracy/{group}", value, 0
            else:
                yield f"scores/{group}/{score}", value, 0
    for name, groups in TIERS.items():
        values = [headline[group] for group in groups if group in headline]
        if values:
            yield f"accuracy/{name}", sum(values) / len(values), 0


def speed_points(throughput: Mapping[str, float]) -> Iterator[Point]:
    """How fast the questions of a model were answered."""
    for name, value in throughput.items():
        yield f"evaluation/{name}", value, 0


def layer_points(run: RunResults) -> Iterator[Point]:
    """Layer profiles of one model, and their means over the depth."""
    keys = ["stream", "metric", "layer"]
    means = run.image_metrics.groupby(keys)["value"].mean()
    for (stream, metric), profile in means.groupby(level=["stream", "metric"]):
        layers = profile.index.get_level_values("layer")
        for layer, value in zip(layers, profile, strict=True):
            yield f"layers/{metric}/{stream}", float(value), int(layer)
        if metric != REDUNDANCY:
            yield f"tokens/{metric}/{stream}", float(profile.mean()), 0
            continue
        values = profile.to_numpy()
        for part, members in zip(PARTS, depth_parts(range(len(values))), strict=True):
            if members:
                yield f"redundancy/{stream}_{part}", float(values[members].mean()), 0


def sweep_points(tables: Tables) -> Iterator[Point]:
    """Means of the levels over their places, and effects."""
    places = {level: 1 + place for place, level in enumerate(Levels(tables.levels).ids)}
    for row in tables.sweep.itertuples():
        name = _headline_name(row.subject, row.metric, row.part)
        if name and row.level in places:
            yield f"by_level/{name}", float(row.value), places[row.level]
    for contrast, kind in ((DIFFERENCE, "effect"), (TREND, "trend")):
        for row in tables.effects[tables.effects["contrast"] == contrast].itertuples():
            name = _headline_name(row.subject, row.metric, row.part)
            if name:
                for end in ("value", "low", "high"):
                    yield f"{kind}/{name}/{end}", float(getattr(row, end)), 0
    if len(tables.recommendation):
        first = tables.recommendation.iloc[0]
        if first["is_distinguishable"]:
            chosen = tables.recommendation[tables.recommendation["is_sufficient"]].iloc[0]
            name = f"sufficient/{tables.levels['scale'].iloc[0]}"
            yield f"{name}/value", float(chosen["at"]), 0
            yield f"{name}/low", float(first["sufficient_low"]), 0
            yield f"{name}/high", float(first["sufficient_high"]), 0


def transfer_points(summary: pd.DataFrame) -> Iterator[Point]:
    """Of each scope: trends, and how many hold, reverse or are weaker on other images.

    Beside those that hold and reverse, what chance gives and how often as many.
    """
    for row in summary.to_dict("records"):
        for name in ("trends", "holds", "reverses", "only_here", "unclear", "chance_holds",
                     "holds_p", "chance_reverses", "reverses_p"):  # fmt: skip
            yield f"transfer/{row['scope']}/{name}", float(row[name]), 0


def realised_mixture(run: RunResults) -> dict[str, int]:
    """Examples of each component that the run has trained on, from the end of its log."""
    if run.training.empty:
        return {}
    last = run.training.iloc[-1]
    prefix = "examples/"
    return {
        str(name).removeprefix(prefix): int(last[name])
        for name in run.training.columns
        if str(name).startswith(prefix) and pd.notna(last[name])
    }


def _headline_name(subject: str, metric: str, part: str) -> str:
    # Of single levels' own groups, whose names MLflow does not take, the tables alone tell.
    if metric == HEADLINE.get(subject) or subject in (*TIERS, ALL):
        return f"accuracy/{subject}"
    if metric in (REDUNDANCY, EXCESS) and part in PARTS:
        kind = "redundancy" if metric == REDUNDANCY else "redundancy_excess"
        return f"{kind}/{subject}_{part}"
    return ""
