"""Rendering on the cluster: a unit of positions -> rows. Imports no torch, so it starts fast."""

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from mixlens.mixture.batches import Reader, accumulation, micro_positions
from mixlens.sources.example import to_row
from mixlens.spec import RunSpec

# A unit costs Ray about 20 ms of CPU whatever is in it, so many rows share one. It is also what a
# rank waits for at the start and what lies in the object store: 10 MB at 224 x 224 pixels.
_ROWS_A_UNIT = 64


def stream_units(run: RunSpec, first: int, last: int, world_size: int) -> pa.Table:
    """Rank and micro-batches [start, stop) of every unit of steps first ... last - 1, in order."""
    micros = accumulation(run, world_size)
    size = max(1, _ROWS_A_UNIT // run.training.micro_batch)
    starts = np.arange(first * micros, last * micros, size)
    return pa.table(
        {
            "rank": np.tile(np.arange(world_size), len(starts)),
            "world_size": np.full(len(starts) * world_size, world_size),
            "start": np.repeat(starts, world_size),
            "stop": np.repeat(np.minimum(starts + size, last * micros), world_size),
        }
    )


def render_units(units: pa.Table, content: str) -> pa.Table:
    """The rows of units of the run whose JSON is `content`: each `to_row` and its position."""
    run, read = _opened(content)
    rows: list[dict[str, Any]] = []
    for unit in units.to_pylist():
        micros = range(unit["start"], unit["stop"])
        positions = [
            position
            for micro in micros
            for position in micro_positions(run, unit["rank"], unit["world_size"], micro)
        ]
        for position, example in zip(positions, read(positions), strict=True):
            rows.append({"position": position, **to_row(example)})
    return pa.Table.from_pylist(rows)


@lru_cache(maxsize=2)
def _opened(content: str) -> tuple[RunSpec, Reader]:
    """Opened once in a rendering process, which serves many units."""
    run = RunSpec.model_validate_json(content)
    return run, Reader(run)
