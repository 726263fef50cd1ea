"""Low-rank adapters on the towers that a run names."""

from typing import Any

import torch
from torch import nn

from mixlens.errors import SpecError, explain
from mixlens.models import VLM
from mixlens.models.towers import tower_of
from mixlens.spec import LoraSpec


def add_lora(vlm: VLM, lora: LoraSpec, seed: int) -> Any:
    """A peft model around `vllm.model` with adapters on every linear layer of `lora.towers`.

    The output layer stays as it is (it is usually tied to the embedding); everything but the
    adapters is frozen. Towers that the family does not have are passed over. The adapters start
    the same for the same seed, on every rank, also on a base that ZeRO-3 has split.

    Raises:
        SpecError: the model has none of the towers.
    """
    from peft import LoraConfig, get_peft_model

    towers = vlm.adapter.towers(vlm.model)
    tower = tower_of(vlm.model, towers)
    head = vlm.model.get_output_embeddings()
    wanted = [
        name
        for name, layer in vlm.model.named_modules()
        if isinstance(layer, nn.Linear)
        and layer is not head
        and tower[f"{name}.weight"] in lora.towers
    ]
    if not wanted:
        raise SpecError(
            explain("training.lora.towers", list(lora.towers), "this model has no such tower, so "
                    "nothing would be trained", f"It has {', '.join(towers)}.")
        )  # fmt: skip
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=wanted,
        base_model_name_or_path=vlm.path,
    )
    torch.manual_seed(seed)
    model = get_peft_model(vlm.model, config, autocast_adapter_dtype=False)
    # peft takes the base's name from the config object it was loaded with, which may be relative.
    model.peft_config["default"].base_model_name_or_path = vlm.path
    return model
