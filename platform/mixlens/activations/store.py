"""Hidden states on disk, for what needs more of them than their metrics.

One Parquet file a batch of images, a row an (image, layer, stream), a row group a (stream, layer),
so that a layer of a batch is one stretch of its file and any Parquet reader that is asked for a
layer skips the others. The states are bf16 without compression (which gains little on them), a
checksum a page. The forward pass makes all rows of an image at once, so an image is stored with
all of them or with none: a file gets its name only when it is whole. `store.json` says what made
the folder, which refuses the states of another model, prompt or choice of streams.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.activations.streams import PROMPT, STREAMS, Place, visit
from mixlens.errors import DataError, ResourceError, explain
from mixlens.models import Vllm
from mixlens.models.adapter import Image
from mixlens.sources import Example

RECORD = "store.json"
STORED = ("visual", "text")  # the streams of the decoder; the others are only its input

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

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class States:
    """The hidden states of some images at one place.

    Attributes:
        example_ids: the images, in the order of the rows.
        tokens: float32 values of the stored bf16, 0 where an image has no token.
        exists: which tokens an image has; the first so many of its row.
    """

    example_ids: tuple[str, ...]
    tokens: Float[Tensor, "images tokens width"]
    exists: Bool[Tensor, "images tokens"]


@dataclass(frozen=True)
class _Part:
    """What the footer of a whole file says: row group i holds place i of all images, in order."""

    places: tuple[Place, ...]
    example_ids: tuple[str, ...]


def store_bytes(
    vllm: Vllm,
    images: int,
    sample: Image,
    streams: Sequence[str] = STORED,
    batch_size: int = 64,
) -> int:
    """Bytes on disk of the states of `images` images with as many tokens as `sample`.

    Runs the model on the sample, and takes the sizes of a file with it once and twice: what one
    row more and one file more cost follows from the two.
    """
    sizes = []
    sinks = [pa.MockOutputStream() for _ in range(2)]
    writers = [_writer(sink) for sink in sinks]
    places: list[Place] = []

    def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
        if place[0] in streams:
            places.append(place)
            for rows, writer in enumerate(writers, start=1):
                some = [f"component/{images + row}" for row in range(rows)]
                writer.write_table(
                    _rows(place, some, tokens.expand(rows, -1, -1), exists.expand(rows, -1))
                )

    visit(vllm, [sample], take)
    for rows, (sink, writer) in enumerate(zip(sinks, writers, strict=True), start=1):
        _finish(writer, places, [f"component/{images + row}" for row in range(rows)])
        sizes.append(sink.size())
    one_image = sizes[1] - sizes[0]
    one_file = sizes[0] - one_image
    return one_image * images + one_file * -(-images // batch_size)


def check_room(directory: Path, needed: int) -> None:
    """Check that a store of `needed` bytes fits on the disk of `directory`.

    What is stored there already is a part of the `needed` bytes and not asked for again.

    Raises:
        ResourceError: the disk has less room.
    """
    there = next(folder for folder in (directory, *directory.parents) if folder.exists())
    held = sum(part.stat().st_size for part in directory.glob("*.parquet"))
    free = shutil.disk_usage(there).free
    if needed - held > free:
        raise ResourceError(
            explain(
                str(directory),
                f"{free:,} bytes free",
                f"the hidden states need {needed - held:,} bytes ({(needed - held) / 1e9:.1f} GB)",
                "Free space, name a folder on a larger disk, or take fewer images.",
            )
        )


def write_states(
    vllm: Vllm,
    examples: Sequence[Example],
    directory: Path,
    digest: str,
    streams: Sequence[str] = STORED,
) -> int:
    """Store the states of these images, in one forward pass over those that are not yet there.

    Never more than one layer's states of the batch are in memory. Several processes may write
    other images into the same folder. A damaged file that is found is removed and logged; its
    images are then missing, and stored again when their turn comes.

    Args:
        vllm: the model.
        examples: one batch of images.
        directory: the store; made if missing.
        digest: of the model (its `fingerprint`, say): one folder holds one model's states.
        streams: of `STREAMS`.

    Returns:
        rows newly written, images times (stream, layer); 0 if all were there.

    Raises:
        DataError: the folder holds the states of another model, prompt or choice of streams.
    """
    assert set(streams) <= set(STREAMS), f"unknown streams {streams}"
    _claim(directory, digest, streams)
    for damaged in damaged_parts(directory):
        _log.warning("%s is damaged: its images are stored again", damaged)
        damaged.unlink(missing_ok=True)  # another process may have been faster
    there = {example_id for _, part in _parts(directory) for example_id in part.example_ids}
    new = {e.example_id: e.image for e in examples if e.example_id not in there}
    if not new:
        return 0
    example_ids = list(new)
    places: list[Place] = []
    name = sha256("\n".join(example_ids).encode()).hexdigest()[:16]
    unfinished = directory / f"{name}.unfinished"
    with unfinished.open("wb") as file:
        writer = _writer(file)

        def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
            if place[0] in streams:
                writer.write_table(_rows(place, example_ids, tokens, exists))
                places.append(place)

        visit(vllm, list(new.values()), take)
        _finish(writer, places, example_ids)
    unfinished.replace(directory / f"{name}.parquet")
    return len(places) * len(example_ids)


def damaged_parts(directory: Path) -> list[Path]:
    """Files of the store that are not whole; `write_states` removes them."""
    return [path for path in _files(directory) if _part_of(path) is None]


def layers_of(directory: Path) -> list[Place]:
    """Every (stream, layer) of the store, streams in the order of `STREAMS`, layers from below.

    Raises:
        DataError: nothing is stored there.
    """
    for _, part in _parts(directory):
        return sorted(part.places, key=lambda place: (STREAMS.index(place[0]), place[1]))
    raise DataError(_missing(directory, "no hidden states"))


def read_layer(
    directory: Path, stream: str, layer: int, example_ids: Sequence[str] | None = None
) -> States:
    """The states of one layer, files read one after the other, each in one stretch.

    Args:
        directory: the store.
        stream: of which stream.
        layer: of which layer.
        example_ids: which images, in which order; None for all, sorted by their id.

    Raises:
        DataError: an image or the layer is not stored, or a file is damaged.
    """
    if damaged := damaged_parts(directory):
        raise DataError(_damaged(damaged[0]))
    parts = list(_parts(directory))
    held = {example_id for _, part in parts for example_id in part.example_ids}
    wanted = sorted(held) if example_ids is None else list(example_ids)
    if missing := [example_id for example_id in wanted if example_id not in held]:
        raise DataError(
            _missing(directory, f"no states of {len(missing)} images, such as {missing[0]}")
        )
    if (stream, layer) not in layers_of(directory):
        raise DataError(_missing(directory, f"no stream {stream!r} with layer {layer}"))

    files = [
        (path, part.places.index((stream, layer)))
        for path, part in parts
        if not set(wanted).isdisjoint(part.example_ids)
    ]
    sizes = [_read(path, group, ["tokens", "width"]) for path, group in files]
    most = max(compute.max(size["tokens"]).as_py() for size in sizes)
    width = sizes[0]["width"][0].as_py()
    tokens = torch.zeros(len(wanted), most, width)
    counts = torch.zeros(len(wanted), dtype=torch.long)
    rows_of: dict[str, list[int]] = {}
    for row, example_id in enumerate(wanted):
        rows_of.setdefault(example_id, []).append(row)
    # A bf16 is the upper half of the float32 of the same value, and the lower half is 0.
    upper = tokens.numpy().view(np.uint16)[..., 1::2]
    for path, group in files:
        found = _read(path, group, ["example_id", "states"])
        for example_id, states in zip(
            found["example_id"].to_pylist(), _arrays(found["states"], width), strict=True
        ):
            for row in rows_of.get(example_id, ()):
                upper[row, : len(states)] = states
                counts[row] = len(states)
    return States(tuple(wanted), tokens, torch.arange(most) < counts[:, None])


def _rows(
    place: Place,
    example_ids: Sequence[str],
    tokens: Float[Tensor, "images tokens width"],
    exists: Bool[Tensor, "images tokens"],
) -> pa.Table:
    """One row an image, with the tokens that exist."""
    rows, width = len(example_ids), tokens.shape[-1]
    counts = exists.sum(-1).cpu().numpy()
    there = tokens[exists].to(torch.bfloat16).contiguous().cpu()
    offsets = np.concatenate([[0], np.cumsum(counts * width * there.itemsize)]).astype(np.int64)
    states = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(),
        rows,
        [None, pa.py_buffer(offsets), pa.py_buffer(there.view(torch.int16).numpy())],
    )
    stream, layer = place
    return pa.table(
        {
            "stream": [stream] * rows,
            "layer": [layer] * rows,
            "example_id": list(example_ids),
            "tokens": counts.astype(np.int32),
            "width": [width] * rows,
            "states": states,
        },
        schema=ROWS,
    )


def _writer(sink: Any) -> pq.ParquetWriter:
    return pq.ParquetWriter(
        sink,
        ROWS,
        compression="none",
        use_dictionary=False,
        # By these a reader finds a row group; those of the states would be states themselves.
        write_statistics=["stream", "layer"],
        write_page_checksum=True,
        # A page ends where it is large enough, which is looked at once in so many rows.
        write_batch_size=1,
    )


def _finish(writer: pq.ParquetWriter, places: list[Place], example_ids: list[str]) -> None:
    writer.add_key_value_metadata({_PLACES: json.dumps(places), _IMAGES: json.dumps(example_ids)})
    writer.close()


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.parquet"))


def _parts(directory: Path) -> Iterator[tuple[Path, _Part]]:
    """Every whole file of the store."""
    for path in _files(directory):
        if (part := _part_of(path)) is not None:
            yield path, part


def _part_of(path: Path) -> _Part | None:
    try:
        status = path.stat()
    except FileNotFoundError:  # another process has removed it
        return None
    return _footer(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1 << 14)  # a run looks at the files before every batch
def _footer(path: Path, size: int, changed: int) -> _Part | None:
    """What the footer says, None if it is not there: the end of a file is written last."""
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return None
    notes = metadata.metadata or {}
    if _PLACES not in notes or _IMAGES not in notes:
        return None
    places = tuple((stream, layer) for stream, layer in json.loads(notes[_PLACES]))
    return _Part(places, tuple(json.loads(notes[_IMAGES])))


def _read(path: Path, group: int, columns: list[str]) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read_row_group(group, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise DataError(_damaged(path)) from error


def _arrays(column: pa.ChunkedArray, width: int) -> Iterator[np.ndarray]:
    """uint16 [tokens, width], the bits of the bf16 states of each row, without a copy."""
    for chunk in column.chunks:
        for value in chunk:
            yield np.frombuffer(value.as_buffer(), np.uint16).reshape(-1, width)


def _claim(directory: Path, digest: str, streams: Iterable[str]) -> None:
    """Note what the folder holds the states of, or check that it is this."""
    ours = {"model": digest, "prompt": PROMPT, "streams": sorted(streams)}
    record = directory / RECORD
    if not record.exists():
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = directory / f"{RECORD}.{uuid4().hex}"  # several may start at once
        unfinished.write_text(json.dumps(ours, indent=2))
        unfinished.replace(record)
    theirs = json.loads(record.read_text())
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise DataError(
                explain(str(record), theirs.get(name), f"stored states are of another {name} than "
                        f"{value!r}", "Name another folder, or delete this one.")
            )  # fmt: skip


def _missing(directory: Path, what: str) -> str:
    return explain(
        str(directory),
        what,
        "they were never stored here",
        "Store them first, or name their folder.",
    )


def _damaged(path: Path) -> str:
    return explain(
        str(path), "a damaged file", "its hidden states cannot be read",
        "Delete it and store the same images again: only what is missing is made anew.",
    )  # fmt: skip
