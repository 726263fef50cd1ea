"""The base model's top subspaces on disk, for comparison with its fine-tuned descendants.

One safetensors file a batch of images: a tensor [images, width, k] for each "stream/layer" in
float16 (an error of up to 2e-4 in an alignment), and the example ids in its metadata.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mixlens.activations.reduce import Subspaces
from mixlens.activations.streams import STREAMS
from mixlens.errors import DataError, explain

FOLDER = "subspaces"


def write_subspaces(directory: Path, example_ids: Sequence[str], subspaces: Subspaces) -> None:
    """Write the subspaces of some images; writing them again replaces the file."""
    folder = directory / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = example_ids[0].replace("/", "-")
    tensors = {
        f"{stream}/{layer}": basis.half().contiguous()
        for (stream, layer), basis in subspaces.items()
    }
    unfinished = folder / f"{name}.unfinished"
    save_file(tensors, unfinished, metadata={"example_ids": json.dumps(list(example_ids))})
    unfinished.replace(folder / f"{name}.safetensors")


def read_subspaces(directory: Path, example_ids: Sequence[str]) -> Subspaces:
    """The subspaces of these images, in this order.

    Raises:
        DataError: they were not measured in `directory`.
    """
    wanted = {example_id: row for row, example_id in enumerate(example_ids)}
    found: dict[int, Subspaces] = {}
    for file in sorted((directory / FOLDER).glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            held = json.loads(content.metadata()["example_ids"])
            rows = [row for row, example_id in enumerate(held) if example_id in wanted]
            if not rows:
                continue
            # The open file has keys() but is no mapping.
            parts = {key: content.get_tensor(key)[rows] for key in content.keys()}  # noqa: SIM118
        for i, row in enumerate(rows):
            found[wanted[held[row]]] = {_place(key): part[i] for key, part in parts.items()}
    missing = [example_id for example_id, row in wanted.items() if row not in found]
    if missing:
        raise DataError(
            explain(
                str(directory / FOLDER),
                f"no subspaces of {len(missing)} images, such as {missing[0]}",
                "the base was measured on other images",
                "Delete the base's measure folder and start the sweep's command again.",
            )
        )
    return {
        place: torch.stack([found[row][place] for row in range(len(example_ids))])
        for place in found[0]
    }


def _place(key: str) -> tuple[str, int]:
    stream, layer = key.split("/")
    assert stream in STREAMS, f"unknown stream {stream}"
    return stream, int(layer)
