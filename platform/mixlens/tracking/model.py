"""Which numbers of one measured model go to MLflow under which names.

    accuracy/<group>                    headline score of a task group; /low and /high beside it
    layers/<metric>/<stream>            layer profile with /low and /high: step = layer
    controls/<control>/<metric>         the same of the visual tokens of a control
    probes/<attribute>/<stream>_<kind>  held-out score on the mean token: step = layer
    deletion/<policy>/<group>           accuracy behind the encoder: step = percent deleted
    transfer/<scope>/<what>             of trends on other images; see `transfer_points`
    evaluation/answers_per_s            how fast it answered; tokens_per_s beside it

so that MLflow's charts overlay the curves of several models.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from mixlens.analysis.measured import MODEL, ModelTables
from mixlens.probing.probes import POOLED
from mixlens.probing.settings import SEEDLESS
from mixlens.spec import ENCODER
from mixlens.tracking.results import log_files, log_provenance, speed_points, transfer_points
from mixlens.tracking.sink import Point, Sink


def log_model(
    sink: Sink,
    tables: ModelTables,
    throughput: Mapping[str, float],
    sentences: Sequence[str],
    folder: Path,
) -> None:
    """Log a measured model: its numbers, its diagnosis, and the files in `folder`."""
    sink.log_metrics("model", [*model_points(tables), *speed_points(throughput)])
    sink.log_text("diagnosis.txt", "\n".join(sentences) + "\n")
    log_provenance(sink, folder)
    log_files(sink, folder)


def model_points(tables: ModelTables) -> Iterator[Point]:
    """Every number with its name and step."""
    own = tables.accuracy[tables.accuracy["model"] == MODEL]
    yield from _points(own, "accuracy/" + own["group"], None)
    layers = tables.layers
    own = layers[layers["model"] == MODEL]
    yield from _points(own, "layers/" + own["metric"] + "/" + own["stream"], own["layer"])
    other = layers[(layers["model"] != MODEL) & (layers["stream"] == "visual")]
    names = "controls/" + other["model"].str.replace(" ", "_") + "/" + other["metric"]
    yield from _points(other, names, other["layer"])
    if len(tables.probes):
        mean = tables.probes[tables.probes["position"] == POOLED]
        names = "probes/" + mean["attribute"] + "/" + mean["stream"] + "_" + mean["kind"]
        yield from _points(mean, names, mean["layer"])
    if len(tables.deletion):
        some = tables.deletion[
            (tables.deletion["layer"] == ENCODER)
            & (tables.deletion["seed"] == SEEDLESS)
            & (tables.deletion["objects"] == "all")
        ]
        names = "deletion/" + some["policy"] + "/" + some["group"]
        yield from _points(some, names, (100 * some["share"]).round().astype(int))
    yield from transfer_points(tables.transfer_summary)


def _points(table: pd.DataFrame, names: pd.Series, steps: pd.Series | None) -> Iterator[Point]:
    places = [0] * len(table) if steps is None else [int(step) for step in steps]
    for end, suffix in (("value", ""), ("low", "/low"), ("high", "/high")):
        for name, value, step in zip(names, table[end], places, strict=True):
            yield f"{name}{suffix}", float(value), step
