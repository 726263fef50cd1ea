"""Planted measurements: their parts on the disk, as measuring leaves them."""

import json
from pathlib import Path

import pandas as pd

from mixlens.activations.nulls import NULLS
from mixlens.analysis.measurement import read_measure_file
from mixlens.evaluation.throughput import Effort, write_throughput
from mixlens.measurement import Measurement, controls_of, model_of, other_of
from mixlens.measurement.measurement import RECORD
from mixlens.measurement.request import Deletion, Embeddings, Probe, Request

SINGLE = ("examples", "image_metrics", "pooled_metrics", "nulls", "attributes", "embeddings")
EMPTY = {
    "nulls": NULLS.empty_table().to_pandas(),
    "embeddings": pd.DataFrame(columns=["stream", "layer", "example_id", "vector"]),
}


def write_parts(measurement: Measurement, **tables: pd.DataFrame) -> None:
    """Write every part that is asked for from tables of the whole measurement."""
    tokens = {
        name: tables.get(name, EMPTY.get(name))
        for name in ("image_metrics", "pooled_metrics", "nulls", "attributes")
    }
    _write(measurement, measurement.tokens, **tokens)
    for request in measurement.requests():
        if request == measurement.asked.answers:
            folder = _write(measurement, request, examples=tables["examples"])
            write_throughput(folder, "transformers", Effort(30, 90, 1.5))
        elif isinstance(request, Embeddings):
            _write(measurement, request, embeddings=tables.get("embeddings", EMPTY["embeddings"]))
        elif isinstance(request, Probe):
            table = tables["probes"]
            own = table["kind"].eq(request.kind) & table["attribute"].isin(request.attributes)
            _write(measurement, request, probes=table[own])
        elif isinstance(request, Deletion):
            table = tables["deleted"]
            own = pd.Series(True, table.index)
            for name, value in vars(request.setting).items():
                own &= table[name].eq(value)
            assert own.any(), request
            _write(measurement, request, deleted=table[own])


def table_file(measurement: Measurement, name: str) -> Path:
    """Where one of the tables lies that are one file."""
    assert name in SINGLE, name
    if name == "examples":
        assert measurement.asked.answers
        return measurement.part(measurement.asked.answers) / "examples.parquet"
    part = Embeddings() if name == "embeddings" else measurement.tokens
    return measurement.part(part) / f"{name}.parquet"


def part_of(folder: Path, which: str = "model") -> Measurement:
    """A measurement of the folder of a measured model: "model", "transfer" or a control."""
    spec = read_measure_file(folder)
    found = {"model": model_of(spec, folder), **controls_of(spec, folder)}
    if other := other_of(spec, folder):
        found["transfer"] = other
    return found[which]


def _write(measurement: Measurement, request: Request, **tables: pd.DataFrame) -> Path:
    folder = measurement.part(request)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / RECORD).write_text(json.dumps({"left_out": [], "seconds": {}}) + "\n")
    return folder
