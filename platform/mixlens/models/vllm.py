"""Load a vision LLM from a folder, a hub id or the package, with the adapter of its family."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mixlens.errors import CheckpointError, explain, first_line
from mixlens.models.adapter import Adapter
from mixlens.spec import Attention

BUILTIN = {"builtin:tiny-vllm": Path(__file__).parent / "builtin" / "tiny-vllm"}
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


@dataclass(frozen=True)
class Vllm:
    """A loaded vision LLM.

    Attributes:
        model: the transformers model, or a peft model around it.
        processor: its processor (tokenizer, image processor, chat template).
        adapter: what is special about its family.
        path: the folder or hub id that its weights came from.
    """

    model: Any
    processor: Any
    adapter: Adapter
    path: str


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
        if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
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


def model_config(path: str) -> Any:
    """The model's transformers configuration, from this machine or the hub, without its weights.

    Raises:
        CheckpointError: there is none at `path`, the hub does not have or give it, or the model is
            of a family without an adapter.
    """
    return _config(_base_of(resolve_model(path)))


def model_folder(path: str) -> Path | None:
    """Where the files of a model lie on this machine; None for a hub id that was never fetched."""
    source = resolve_model(path)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def fingerprint(path: str) -> str:
    """16 hex digits that change when the weights at `path` do; a hub id stands for itself.

    Reads name, size and both ends (1 MiB each) of every safetensors file: the start holds names and
    shapes, and training moves every part of a tensor, so a full read of many GB adds nothing.
    """
    source = resolve_model(path)
    digest = hashlib.sha256()
    if not Path(source).is_dir():
        return hashlib.sha256(source.encode()).hexdigest()[:16]
    for file in sorted(Path(source).glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as weights:
            digest.update(weights.read(1 << 20))
            weights.seek(max(0, size - (1 << 20)))
            digest.update(weights.read())
    return digest.hexdigest()[:16]


def load_vllm(
    path: str,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    attention: Attention = "auto",
) -> Vllm:
    """Load weights and processor; a peft folder is put on the base that it names.

    Within `mixlens.training.sharded.sharded` every parameter is spread over the workers as it is
    made, and none is ever whole on `device`.

    Raises:
        CheckpointError: nothing loadable at `path`, or a family without an adapter.
    """
    source = resolve_model(path)
    base_source = _base_of(source)
    base = _load_full(base_source, dtype, device, attention)
    if base_source == source:
        return base
    from peft import PeftModel

    model = PeftModel.from_pretrained(base.model, source, autocast_adapter_dtype=False)
    return Vllm(model, base.processor, base.adapter, source)


def load_adapter(path: str) -> Adapter:
    """The adapter of a model whose weights are not needed.

    Raises:
        CheckpointError: no configuration or processor at `path`, or a family without an adapter.
    """
    return _processor_and_adapter(_base_of(resolve_model(path)))[1]


def load_without_weights(path: str) -> Vllm:
    """The model, or the base of adapters, as modules of the meta device: a few seconds at most.

    Raises:
        CheckpointError: no configuration or processor at `path`, or a family without an adapter.
    """
    source = _base_of(resolve_model(path))
    processor, adapter = _processor_and_adapter(source)
    return Vllm(meta_model(adapter.config), processor, adapter, source)


def meta_model(config: Any) -> Any:
    """The modules that a transformers `config` describes, without memory for their weights."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def _processor_and_adapter(source: str) -> tuple[Any, Adapter]:
    from mixlens.models.families import adapters

    config = _config(source)
    processor = _processor(source)
    return processor, adapters()[config.model_type](processor, config)


def _processor(source: str) -> Any:
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(source)
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(
            explain("model", source, f"its processor cannot be had{_offline()}: "
                    f"{first_line(error).rstrip('.')}",
                    "Give a folder with the files of the processor too, as save_pretrained of the "
                    "processor writes them.")
        ) from error  # fmt: skip


def _base_of(source: str) -> str:
    """The model that a peft folder builds on; any other model is its own."""
    peft_config = Path(source) / "adapter_config.json"
    if not peft_config.is_file():
        return source
    return resolve_model(json.loads(peft_config.read_text())["base_model_name_or_path"])


def _config(source: str) -> Any:
    """The model's transformers configuration, of a family that has an adapter."""
    # Here, because transformers takes 150 MB and processes that load no model import this module.
    from transformers import AutoConfig

    from mixlens.models.families import adapters

    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        reason = first_line(error).rstrip(".")
        raise CheckpointError(
            explain(
                "model",
                source,
                f"its config.json cannot be had{_offline()}: {reason}",
                "Check the name, and for a hub id the network and your access to it, or give the "
                "folder of a model.",
            )
        ) from error
    supported = sorted(adapters())
    if config.model_type not in supported:
        raise CheckpointError(
            explain("model", source, f"no adapter for the family {config.model_type!r}",
                    f"Supported: {', '.join(supported)}.")
        )  # fmt: skip
    return config


def _offline() -> str:
    return " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""


def _load_full(source: str, dtype: torch.dtype, device: str, attention: Attention) -> Vllm:
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    processor, adapter = _processor_and_adapter(source)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation=_implementation(attention, device),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"model {source}: it cannot be loaded{_offline()}: {error}"
        ) from error
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        # ZeRO-3 has spread the parameters already, and keeps them where the run wants them.
        for buffer in model.buffers():
            buffer.data = buffer.data.to(device)
        # transformers undoes renamings when it saves: like elsewhere, only those it has done.
        renamings = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [renaming for renaming in renamings if renaming.was_used()]
        return Vllm(model, processor, adapter, source)
    return Vllm(model.to(device), processor, adapter, source)


def _implementation(attention: Attention, device: str) -> str:
    """The name by which transformers knows an attention."""
    from mixlens.models.attention import PLAIN

    if attention == "auto":
        attention = "plain" if device == "cpu" else "sdpa"
    return PLAIN if attention == "plain" else attention
