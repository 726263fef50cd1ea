"""Hidden states on disk, for what needs more of them than their metrics.

A folder of files, one a batch of images (see `parts`). The forward pass makes all rows of an image
at once, so an image is stored with all of them or with none: a file gets its name only when it is
whole. `store.json` says what made the folder, which refuses the states of another model, prompt or
choice of streams.
"""

import errno
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as compute
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mixlens.activations.parts import (
    Part,
    PartWriter,
    arrays,
    damaged_message,
    part_of,
    read_group,
)
from mixlens.activations.streams import PROMPT, STREAMS, Place, visit
from mixlens.errors import DataError, ResourceError, explain, read_record
from mixlens.models import VLM
from mixlens.models.adapter import Image
from mixlens.sources import Example

RECORD = "store.json"
PREFIX = "states-"  # damaged files are removed: no one else's may be taken for ours
STORED = ("visual", "text")  # the streams of the decoder; the others are only its input

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


def store_bytes(
    vlm: VLM,
    images: int,
    sample: Image,
    streams: Sequence[str] = STORED,
    batch_size: int = 64,
) -> int:
    """Bytes on disk of the states of `images` images with as many tokens as `sample`.

    Runs the model on the sample, and takes the sizes of a file with it once and twice: what one
    row more and one file more cost follows from the two.
    """
    sinks = [pa.MockOutputStream() for _ in range(2)]
    ids = [f"component/{images + row}" for row in range(2)]
    with PartWriter(sinks[0], ids[:1]) as one, PartWriter(sinks[1], ids) as two:

        def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
            if place[0] in streams:
                one.write(place, tokens, exists)
                two.write(place, tokens.expand(2, -1, -1), exists.expand(2, -1))

        visit(vlm, [sample], take)
    once, twice = (sink.size() for sink in sinks)
    files = -(-images // batch_size)
    return (twice - once) * images + (2 * once - twice) * files


def check_room(directory: Path, needed: int) -> None:
    """Check that a store of `needed` bytes fits on the disk of `directory`.

    What is stored there already is a part of the `needed` bytes and not asked for again.

    Raises:
        ResourceError: the disk has less room.
    """
    there = next(folder for folder in (directory, *directory.parents) if folder.exists())
    held = sum(part.stat().st_size for part in _files(directory))
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
    vlm: VLM,
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
        vlm: the model.
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
    name = sha256("\n".join(new).encode()).hexdigest()[:16]
    unfinished = directory / f"{PREFIX}{name}.unfinished"
    try:
        with unfinished.open("wb") as file, PartWriter(file, list(new)) as writer:

            def take(place: Place, tokens: Tensor, exists: Tensor) -> None:
                if place[0] in streams:
                    writer.write(place, tokens, exists)

            visit(vlm, list(new.values()), take)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        unfinished.unlink()
        raise ResourceError(
            explain(str(directory), error.strerror, "the hidden states do not fit",
                    "Free space and start again: what is whole is kept.")
        ) from error  # fmt: skip
    unfinished.replace(directory / f"{PREFIX}{name}.parquet")
    return writer.rows


def damaged_parts(directory: Path) -> list[Path]:
    """Files of the store that are not whole; `write_states` removes them."""
    return [path for path in _files(directory) if part_of(path) is None]


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
        raise DataError(damaged_message(damaged[0]))
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
    sizes = [read_group(path, group, ["tokens", "width"]) for path, group in files]
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
        found = read_group(path, group, ["example_id", "states"])
        for example_id, states in zip(
            found["example_id"].to_pylist(), arrays(found["states"], width), strict=True
        ):
            for row in rows_of.get(example_id, ()):
                upper[row, : len(states)] = states
                counts[row] = len(states)
    return States(tuple(wanted), tokens, torch.arange(most) < counts[:, None])


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob(f"{PREFIX}*.parquet"))


def _parts(directory: Path) -> Iterator[tuple[Path, Part]]:
    """Every whole file of the store."""
    for path in _files(directory):
        if (part := part_of(path)) is not None:
            yield path, part


def _claim(directory: Path, digest: str, streams: Iterable[str]) -> None:
    """Note what the folder holds the states of, or check that it is this."""
    ours = {"model": digest, "prompt": PROMPT, "streams": sorted(streams)}
    record = directory / RECORD
    if not record.exists():
        directory.mkdir(parents=True, exist_ok=True)
        unfinished = directory / f"{RECORD}.{uuid4().hex}"  # several may start at once
        unfinished.write_text(json.dumps(ours, indent=2))
        unfinished.replace(record)
    theirs = read_record(record)
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
        "they are not stored here",
        "Store them first, or name their folder.",
    )
