"""The realised order as a table, so that two runs can be compared example by example."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mixlens.mixture.order import order_of
from mixlens.sources import open_source
from mixlens.spec import RunSpec

_ROWS_AT_ONCE = 1 << 18


def write_manifest(run: RunSpec, path: Path, steps: int) -> None:
    """Write the first `steps` optimiser steps of a run as Parquet, in constant memory.

    One row a position: position (int64, from 0), step (int64), component (name), index (int64 in
    the component), file (name of a photograph's file; none for a scene).
    """
    order, batch = order_of(run), run.training.global_batch
    names = pa.array(order.components, pa.string())
    sources = [open_source(name, run.components[name], run.data) for name in order.components]
    schema = pa.schema(
        {
            "position": pa.int64(),
            "step": pa.int64(),
            "component": pa.string(),
            "index": pa.int64(),
            "file": pa.string(),
        }
    )
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, steps * batch, _ROWS_AT_ONCE):
            position = np.arange(first, min(first + _ROWS_AT_ONCE, steps * batch))
            component, index = order.take(position)
            entries = zip(component.tolist(), index.tolist(), strict=True)
            files = [sources[c].file_name(i) for c, i in entries]
            columns = [position, position // batch, names.take(pa.array(component)), index, files]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))
