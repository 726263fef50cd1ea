"""Low-rank adapters on the towers that a run names."""

from typing import Any

import torch
from torch import nn

from mixlens.models import Vllm
from mixlens.models.towers import tower_of
from mixlens.spec import LoraSpec


def add_lora(vllm: Vllm, lora: LoraSpec, seed: int) -> Any:
    """A peft model around `vllm.model` with adapters on every linear layer of `lora.towers`.

    The output layer stays as it is (it is usually tied to the embedding); everything but the
    adapters is frozen. The adapters start the same for the same seed.
    """
    from peft import LoraConfig, get_peft_model

    tower = tower_of(vllm.model, vllm.adapter.towers(vllm.model))
    head = vllm.model.get_output_embeddings()
    wanted = [
        name
        for name, layer in vllm.model.named_modules()
        if isinstance(layer, nn.Linear)
        and layer is not head
        and tower[f"{name}.weight"] in lora.towers
    ]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=wanted,
        base_model_name_or_path=vllm.path,
    )
    torch.manual_seed(seed)
    model = get_peft_model(vllm.model, config, autocast_adapter_dtype=False)
    # peft takes the base's name from the config object it was loaded with, which may be relative.
    model.peft_config["default"].base_model_name_or_path = vllm.path
    return model
