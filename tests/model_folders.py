"""Copies of model folders with something changed, and adapters for a tiny model."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def copy_with(source: Path, target: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """A copy of a folder whose weights went through `change`."""
    shutil.copytree(source, target)
    (weights,) = target.glob("*model.safetensors")
    tensors = {name: tensor.contiguous() for name, tensor in change(load_file(weights)).items()}
    save_file(tensors, weights, metadata={"format": "pt"})
    return target


def edit_json(file: Path, **values: Any) -> None:
    """Set fields of a JSON file; None removes a field, and ... writes null."""
    content = json.loads(file.read_text())
    for field, value in values.items():
        if value is None:
            content.pop(field, None)
        else:
            content[field] = None if value is ... else value
    file.write_text(json.dumps(content))


def linear_layers(model: Any) -> list[str]:
    """All linear layers but the head."""
    head = model.get_output_embeddings()
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    ]


def save_adapters(
    model: Any, base: Path, target: Path, modules: str | Iterable[str], **more: Any
) -> Path:
    """Write LoRA adapters of rank 2, with an effect, on some modules of `model`, as peft does."""
    from peft import LoraConfig, get_peft_model

    chosen = modules if isinstance(modules, str) else list(modules)
    config = LoraConfig(r=2, target_modules=chosen, **more)
    adapted = get_peft_model(model, config)
    draw = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=draw) * 0.3)
    adapted.peft_config["default"].base_model_name_or_path = str(base)
    adapted.save_pretrained(target)
    return target
