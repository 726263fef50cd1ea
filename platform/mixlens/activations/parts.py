"""The file that the hidden states of a batch of images are kept in.

Parquet, a row an (image, layer, stream), a row group a (stream, layer): a layer of a batch is one
stretch of its file, and any Parquet reader that is asked for a layer skips the others. The states
are bf16, not compressed (which gains little on them), with a checksum a page.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.activations.streams import Place
from mixlens.errors import DataError, explain

ROWS = pa.schema(
    [
        pa.field("stream", pa.string(), nullable=False),
        pa.field("layer", pa.int32(), nullable=False),
        pa.field("example_id", pa.string(), nullable=False),
        pa.field("tokens", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("states", pa.large_binary(), nullable=False),  # [tokens, width], row-major
    ]
)
_PLACES, _IMAGES = b"mixlens.places", b"mixlens.example_ids"


@dataclass(frozen=True)
class Part:
    """What the footer of a whole file says: row group i holds place i of all images, in order."""

    places: tuple[Place, ...]
    example_ids: tuple[str, ...]


class PartWriter:
    """Writes a file layer by layer; it can be read once its `with` has ended without an error."""

    def __init__(self, sink: Any, example_ids: Sequence[str]):
        self._example_ids = list(example_ids)
        self._places: list[Place] = []
        self._writer = pq.ParquetWriter(
            sink,
            ROWS,
            compression="none",
            use_dictionary=False,
            # By these a reader finds a row group. Those of the states would be states themselves.
            write_statistics=["stream", "layer"],
            write_page_checksum=True,
            # Once in so many rows it is asked whether the page is full: one can hold an image.
            write_batch_size=1,
        )

    def write(
        self,
        place: Place,
        tokens: Float[Tensor, "images tokens width"],
        exists: Bool[Tensor, "images tokens"],
    ) -> None:
        """One row an image, with the tokens that exist."""
        images, width = len(self._example_ids), tokens.shape[-1]
        counts = exists.sum(-1).cpu().numpy()
        states = tokens.to(torch.bfloat16)[exists].cpu()
        ends = np.cumsum(counts, dtype=np.int64) * width * states.itemsize
        column = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(),
            images,
            [
                None,
                pa.py_buffer(np.append(0, ends)),
                pa.py_buffer(states.view(torch.int16).numpy()),
            ],
        )
        stream, layer = place
        rows = {
            "stream": [stream] * images,
            "layer": [layer] * images,
            "example_id": self._example_ids,
            "tokens": counts.astype(np.int32),
            "width": [width] * images,
            "states": column,
        }
        self._writer.write_table(pa.table(rows, schema=ROWS))
        self._places.append(place)

    @property
    def rows(self) -> int:
        """Written so far."""
        return len(self._places) * len(self._example_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._writer.add_key_value_metadata(
                {_PLACES: json.dumps(self._places), _IMAGES: json.dumps(self._example_ids)}
            )
        self._writer.close()


def part_of(path: Path) -> Part | None:
    """What a file holds; None if it is not whole."""
    try:
        status = path.stat()
    except FileNotFoundError:  # another process has removed it
        return None
    return _footer(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 14)  # a run looks at the files before every batch
def _footer(path: Path, size: int, changed: int) -> Part | None:
    """What the footer says: it is written last, so a file that was cut off has none."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return None
    notes = metadata.metadata or {}
    if _PLACES not in notes or _IMAGES not in notes:
        return None
    places = tuple((stream, layer) for stream, layer in json.loads(notes[_PLACES]))
    return Part(places, tuple(json.loads(notes[_IMAGES])))


def read_group(path: Path, group: int, columns: list[str]) -> pa.Table:
    """Columns of one row group, in one stretch of the file.

    Raises:
        DataError: the file is damaged.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read_row_group(group, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(damaged_message(path)) from error


def arrays(column: pa.ChunkedArray, width: int) -> Iterator[np.ndarray]:
    """uint16 [tokens, width], the bits of the bf16 states of each row, without a copy."""
    for chunk in column.chunks:
        for value in chunk:
            yield np.frombuffer(value.as_buffer(), np.uint16).reshape(-1, width)


def damaged_message(path: Path) -> str:
    return explain(
        str(path), "a damaged file", "its hidden states cannot be read",
        "Delete it and store the same images again: only what is missing is made anew.",
    )  # fmt: skip
