"""Folders of models: where they are, what lies in them, and what of it decides the model."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mixlens.errors import CheckpointError, explain, first_line
from mixlens.spec.base import BUILTIN_MODELS

BUILTIN = {
    name: Path(__file__).parent / "builtin" / name.partition(":")[2] for name in BUILTIN_MODELS
}
CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def resolve_model(path: str) -> str:
    """The folder or hub id that `path` stands for, checked as far as possible without loading.

    Raises:
        CheckpointError: a folder that is missing or holds no model, or an unknown builtin name.
    """
    if path in BUILTIN:
        return str(BUILTIN[path])
    if path.startswith("builtin:"):
        raise CheckpointError(
            explain("model", path, "no such built-in model", f"There is {', '.join(BUILTIN)}.")
        )
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not any((folder / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
            raise CheckpointError(
                explain("model", path, "the folder holds no config.json or adapter_config.json",
                        "Give the folder that save_pretrained wrote.")
            )  # fmt: skip
        return str(folder.resolve())
    if path.startswith((".", "/", "~")) or not _HUB_ID.match(path):
        raise CheckpointError(
            explain("model", path, "no such folder", "Give a model folder, a hub id like "
                    f"'organisation/name', or {', '.join(BUILTIN)}.")
        )  # fmt: skip
    return path


def base_of(source: str) -> str:
    """The model that a peft folder builds on; any other model is its own.

    Raises:
        CheckpointError: the folder names no base, or one that is not there or has adapters itself.
    """
    folder = Path(source)
    if not (folder / ADAPTER_CONFIG).is_file():
        return source
    name = read_adapter_config(folder).get("base_model_name_or_path")
    field = f"model {folder / ADAPTER_CONFIG}, base_model_name_or_path"
    remedy = "Put there the folder or hub id of the model that the adapters were trained on."
    if not isinstance(name, str) or not name.strip():
        raise CheckpointError(
            explain(field, name, "the adapters do not say which model they belong to", remedy)
        )
    try:
        base = resolve_model(name)
    except CheckpointError as error:
        raise CheckpointError(f"{field}: {error} {remedy}") from None
    if (Path(base) / ADAPTER_CONFIG).is_file():
        raise CheckpointError(
            explain(field, name, "that is a folder of adapters itself, and adapters are put on a "
                    "whole model only", "Merge those by `mixlens merge`, and name the folder that "
                    "it writes.")
        )  # fmt: skip
    return base


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file of a model's folder.

    Raises:
        CheckpointError: the file cannot be read, or holds anything else.
    """
    remedy = "Copy it anew from where the model came from; the copy here is cut short or changed."
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            explain(f"model {file}", _beginning(file), f"it cannot be read as JSON: "
                    f"{first_line(error).rstrip('.')}", remedy)
        ) from None  # fmt: skip
    if not isinstance(content, dict):
        raise CheckpointError(
            explain(f"model {file}", _beginning(file), "it holds no JSON object", remedy)
        )
    return content


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """What a folder of adapters says about them."""
    return read_json(folder / ADAPTER_CONFIG)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers or peft reads the weights of a folder from.

    Raises:
        CheckpointError: one is missing, or there is none.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        return [_there(folder / ADAPTER_WEIGHTS, "the weights of the adapters")]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    index = folder / WEIGHTS_INDEX
    if not index.is_file():
        return [_there(folder / WEIGHTS, f"the weights (there is no {WEIGHTS_INDEX} either)")]
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(
            explain(f"model {index}, weight_map", shards, "it names no file of weights",
                    "Copy it anew from where the model came from.")
        )  # fmt: skip
    parts = sorted(set(map(str, shards.values())))
    return [_there(folder / name, f"weights, as {index.name} says") for name in parts]


def tensor_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, from the headers of safetensors files.

    Raises:
        CheckpointError: a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - the open file is no mapping
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                explain(f"model {file}", f"{file.stat().st_size} bytes", "its weights cannot be "
                        f"read: {first_line(error).rstrip('.')}",
                        "Copy it anew from where the model came from.")
            ) from None  # fmt: skip
    return shapes


def _there(file: Path, what: str) -> Path:
    if not file.is_file():
        others = sorted(file.parent.glob("*.bin"))
        pickled = f" {others[0].name} is pickled, and such files are not loaded." if others else ""
        raise CheckpointError(
            explain(f"model {file.parent}", file.name, f"the file is not there; it holds {what}",
                    f"Give a whole folder as save_pretrained writes it.{pickled}")
        )  # fmt: skip
    return file


def _beginning(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")[:40]
    except OSError:
        return ""
