"""Adapters put into the weights of their base: an ordinary full checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mixlens.errors import CheckpointError, explain
from mixlens.models import load_vlm, model_config, save_config, save_processor

DROWNED = 0.01  # from this share on it is told
Tell = Callable[[str], None]


def merge(folder: Path, target: Path, tell: Tell = lambda message: None) -> Path:
    """Write the model of a peft folder to `target` as a folder that needs no peft and no base.

    Weights have the type of the base's checkpoint; all of them are in main memory once. `target`
    appears under its name only when it is complete. `tell` hears of it where much of the adapters
    is lost between the numbers that this type has.

    Raises:
        CheckpointError: `folder` holds no adapter or one whose base is not there, or `target`
            exists.
    """
    if not (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            explain("MODEL_FOLDER", str(folder), "it holds no adapter_config.json, so there is "
                    "nothing to merge", "Give the model folder of a run with training.lora; any "
                    "other is a full checkpoint already.")
        )  # fmt: skip
    if target.exists():
        raise CheckpointError(
            explain("TARGET", str(target), "it exists", "Name a new folder, or remove this one.")
        )
    vlm = load_vlm(str(folder), _stored_dtype(model_config(str(folder))))
    share = share_drowned(vlm.model)
    if share >= DROWNED:
        tell(
            f"{100 * share:.0f} % of the weights that the adapters move stay as they were: what is "
            f"added is less than half the distance between two numbers of {_name(vlm.model)}. The "
            "merged model is that much nearer to its base. Use the adapters unmerged where this "
            "matters."
        )
    model = vlm.model.merge_and_unload(safe_merge=True)
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part, safe_serialization=True)
    save_config(model, part)
    save_processor(vlm, part)
    return part.rename(target)


@torch.no_grad()
def share_drowned(model: Any) -> float:
    """Of all weights that adapters would move, the share that merging leaves as they are."""
    from peft.tuners.lora import LoraLayer

    moved = stay = 0
    for layer in model.modules():
        if not isinstance(layer, LoraLayer):
            continue
        weight = layer.get_base_layer().weight
        for name in layer.active_adapters:
            delta = layer.get_delta_weight(name)
            moves = delta != 0
            moved += int(moves.sum())
            stay += int((moves & (weight + delta.to(weight.dtype) == weight)).sum())
    return stay / moved if moved else 0.0


def _name(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")


def _stored_dtype(config: Any) -> torch.dtype:
    """The type that a checkpoint's configuration says its weights have; of old ones fp32."""
    parts = (config, config.get_text_config())
    return next((part.dtype for part in parts if part.dtype is not None), torch.float32)
