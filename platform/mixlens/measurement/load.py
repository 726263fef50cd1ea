"""Read a measurement: of the parts that are on the disk, those that are asked for now."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mixlens.activations.streams import STREAMS
from mixlens.evaluation.answers import ANSWERS
from mixlens.evaluation.throughput import read_throughput
from mixlens.measurement.measurement import Measurement, read_table, unfinished
from mixlens.measurement.request import Embeddings, Request


@dataclass(frozen=True)
class Measured:
    """The tables of a measurement; those that were not asked for are None.

    Attributes:
        measurement: which model, on which images.
        examples: one row a question, with answer and scores; none where nothing was asked.
        image_metrics: stream, layer, metric, example_id, value; NaN where not estimable.
        pooled_metrics: stream, layer, metric, value, low, high, n, for what is not the mean of
            values of single images: redundancy_score and redundancy_score_clipped with their image
            jackknife (95 %), and redundancy_chance, the C that they are corrected by.
        attributes: example_id and the facts about each held-out image.
        nulls: stream, layer, metric, null, value, low, high, n: see `mixlens.activations.nulls`.
        throughput: answers_per_s and tokens_per_s; empty where nothing was asked.
        probes: see `mixlens.probing.probes`.
        embeddings: stream, layer, example_id, vector: the mean token of each image.
        deleted: one row a question and setting of deletion: see `mixlens.probing.deletion`.
    """

    measurement: Measurement
    examples: pd.DataFrame
    image_metrics: pd.DataFrame
    pooled_metrics: pd.DataFrame
    attributes: pd.DataFrame
    nulls: pd.DataFrame
    throughput: dict[str, float]
    probes: pd.DataFrame | None = None
    embeddings: pd.DataFrame | None = None
    deleted: pd.DataFrame | None = None

    @property
    def folder(self) -> Path:
        return self.measurement.folder


def load(measurement: Measurement) -> Measured:
    """Read what a measurement is asked for; what was asked earlier, and is not now, stays out.

    Raises:
        DataError: a part is missing, or a file is damaged.
    """
    if missing := measurement.missing():
        raise unfinished(measurement, missing[0].folder)
    asked, tokens = measurement.asked, measurement.part(measurement.tokens)
    names = ("image_metrics", "pooled_metrics", "attributes", "nulls")
    found = {name: read_table(tokens / f"{name}.parquet") for name in names}
    answers = measurement.part(asked.answers) if asked.answers else None
    if extended := asked.extended():
        more = _joined(measurement, extended, "image_metrics")
        found["image_metrics"] = pd.concat([found["image_metrics"], more], ignore_index=True)
    if asked.probes:
        found["probes"] = _probes(measurement)
        found["embeddings"] = _joined(measurement, [Embeddings()], "embeddings")
    if asked.deletion:
        deletions = asked.deletions(measurement.held_out.examples)
        found["deleted"] = _joined(measurement, deletions, "deleted")
    return Measured(
        measurement=measurement,
        examples=read_table(answers / "examples.parquet")
        if answers
        else ANSWERS.empty_table().to_pandas(),
        throughput=read_throughput(answers) if answers else {},
        **found,
    )


def _probes(measurement: Measurement) -> pd.DataFrame:
    """All probes, as if they had been made together."""
    names = measurement.attributes()
    table = _joined(measurement, measurement.asked.probings(names), "probes")
    places: dict[str, Sequence[str]] = {"stream": STREAMS, "attribute": names}
    return table.sort_values(
        ["stream", "layer", "position", "attribute", "kind"],
        key=lambda column: (
            column.map(list(places[column.name]).index) if column.name in places else column
        ),
        ignore_index=True,
    )


def _joined(measurement: Measurement, requests: Sequence[Request], table: str) -> pd.DataFrame:
    return pd.concat(
        [read_table(measurement.part(request) / f"{table}.parquet") for request in requests],
        ignore_index=True,
    )
