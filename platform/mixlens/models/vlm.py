"""Load a vision LLM from a folder, a hub id or the package, with the adapter of its family."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mixlens.errors import CheckpointError, explain, first_line
from mixlens.models.accounting import check_whole, refuse_incomplete
from mixlens.models.adapter import Adapter
from mixlens.models.folder import CONFIG, base_of, resolve_model, weight_files
from mixlens.models.peft_adapters import check_adapters, put_adapters
from mixlens.models.processor import load_processor, offline
from mixlens.spec import Attention


@dataclass(frozen=True)
class VLM:
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


def model_config(path: str) -> Any:
    """The model's transformers configuration, from this machine or the hub, without its weights.

    Raises:
        CheckpointError: there is none at `path`, the hub does not have or give it, or the model is
            of a family without an adapter.
    """
    return _config(base_of(resolve_model(path)))


def model_folder(path: str) -> Path | None:
    """Where the files of a model lie on this machine; None for a hub id that was never fetched."""
    source = resolve_model(path)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(source, CONFIG)
    return Path(config).parent if isinstance(config, str) else None


def load_vlm(
    path: str,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    attention: Attention = "auto",
) -> VLM:
    """Load weights and processor; a peft folder is put on the base that it names.

    Every tensor is accounted for (`mixlens.models.accounting`).

    Within `mixlens.training.sharded.sharded` every parameter is spread over the workers as it is
    made, and none is ever whole on `device`. transformers then tells nothing of tensors that were
    of no use: `check_weights` does.

    Raises:
        CheckpointError: nothing loadable at `path`, weights that are not those of the model, or a
            family without an adapter.
    """
    source = resolve_model(path)
    base_source = base_of(source)
    if base_source != source:
        weight_files(Path(source))  # before gigabytes are loaded that they would be put on
    base = _load_full(base_source, dtype, device, attention)
    if base_source == source:
        return base
    return VLM(put_adapters(base.model, source), base.processor, base.adapter, source)


def check_model(path: str) -> None:
    """Refuse what `load_vlm` would refuse of a model on this machine; a second or two at most.

    Of weights only the headers are read. Of a hub id that was never fetched nothing is known.

    Raises:
        CheckpointError: nothing loadable at `path`, weights that are not those of the model, a
            processor that makes no inputs, or a family without an adapter.
    """
    from mixlens.models.family import BLANK

    try:
        load_adapter(path).image_batch([BLANK])
    except CheckpointError:
        raise
    except Exception as error:  # whatever a setting that is missing or wrong leads to
        raise CheckpointError(
            explain("model", path, f"its processor makes no inputs of a blank image: "
                    f"{type(error).__name__}: {first_line(error).rstrip('.')}",
                    "Compare its processor_config.json and preprocessor_config.json with those "
                    "that the model was published with.")
        ) from error  # fmt: skip
    check_weights(path)


def check_weights(path: str) -> None:
    """Refuse weights on this machine that are not those of the model, by their headers.

    Raises:
        CheckpointError: tensors are missing, of no use, or of another shape.
    """
    source = resolve_model(path)
    base = base_of(source)
    config = _config(base)
    if (folder := _folder_with_weights(base)) is not None:
        check_whole(config, folder)
    if base != source:
        check_adapters(meta_model(config), source)


def load_adapter(path: str) -> Adapter:
    """The adapter of a model whose weights are not needed.

    Raises:
        CheckpointError: no configuration or processor at `path`, or a family without an adapter.
    """
    return _processor_and_adapter(base_of(resolve_model(path)))[1]


def load_without_weights(path: str) -> VLM:
    """The model, or the base of adapters, as modules of the meta device: a few seconds at most.

    Raises:
        CheckpointError: no configuration or processor at `path`, or a family without an adapter.
    """
    source = base_of(resolve_model(path))
    processor, adapter = _processor_and_adapter(source)
    return VLM(meta_model(adapter.config), processor, adapter, source)


def meta_model(config: Any) -> Any:
    """The modules that a transformers `config` describes, without memory for their weights."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def _folder_with_weights(source: str) -> Path | None:
    """Where the weights of a model lie; None for a hub id of which they were not all fetched."""
    folder = model_folder(source)
    if folder is not None and str(folder) != source:
        try:
            weight_files(folder)
        except CheckpointError:
            return None
    return folder


def _processor_and_adapter(source: str) -> tuple[Any, Adapter]:
    from mixlens.models.families import adapters

    config = _config(source)
    processor = load_processor(source, config)
    return processor, adapters()[config.model_type](processor, config)


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
                f"its config.json cannot be had{offline(source)}: {reason}",
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


def _load_full(source: str, dtype: torch.dtype, device: str, attention: Attention) -> VLM:
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    processor, adapter = _processor_and_adapter(source)
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            attn_implementation=_implementation(attention, device),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report
        )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise CheckpointError(
            explain("model", source, f"it cannot be loaded{offline(source)}: {reason}",
                    "Give a whole folder as save_pretrained writes it, or check the name.")
        ) from error  # fmt: skip
    refuse_incomplete(source, report)
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        # ZeRO-3 has spread the parameters already, and keeps them where the run wants them.
        for buffer in model.buffers():
            buffer.data = buffer.data.to(device)
        # transformers undoes renamings when it saves: like elsewhere, only those it has done.
        renamings = getattr(model, "_weight_conversions", None) or []
        model._weight_conversions = [renaming for renaming in renamings if renaming.was_used()]
        return VLM(model, processor, adapter, source)
    return VLM(model.to(device), processor, adapter, source)


def _implementation(attention: Attention, device: str) -> str:
    """The name by which transformers knows an attention."""
    from mixlens.models.attention import PLAIN

    if attention == "auto":
        attention = "plain" if device == "cpu" else "sdpa"
    return PLAIN if attention == "plain" else attention
