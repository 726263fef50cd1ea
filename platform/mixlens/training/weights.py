"""The finished model as an ordinary folder that transformers or peft loads."""

import shutil
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor

from mixlens.models import VLM, save_adapter_names, save_config, save_processor
from mixlens.training.records import MODEL
from mixlens.training.sharded import whole_shapes
from mixlens.training.zero import import_deepspeed


def save_model(engine: Any, vlm: VLM, directory: Path) -> Path:
    """Write `directory/model`: weights and processor, or adapters and the name of their base.

    The parameters are gathered one at a time, so no rank but 0 ever holds more than its share,
    and rank 0 the whole model in main memory. All ranks must call it. The folder appears under
    its name only when it is complete.
    """
    model = engine.module
    is_lora = hasattr(model, "peft_config")
    state = _gather(engine, trained_only=is_lora)
    folder = directory / MODEL
    if dist.get_rank() == 0:
        part = directory / f"{MODEL}.part"
        shutil.rmtree(part, ignore_errors=True)
        options = {"save_embedding_layers": False} if is_lora else {}
        with whole_shapes():
            model.save_pretrained(part, state_dict=state, safe_serialization=True, **options)
        if is_lora:
            save_adapter_names(vlm, part)
        else:
            save_config(model, part)
        save_processor(vlm, part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    dist.barrier()
    return folder


def _gather(engine: Any, trained_only: bool) -> dict[str, Tensor]:
    """On rank 0 the whole state dict in main memory, elsewhere nothing."""
    deepspeed = import_deepspeed()
    model, sharded = engine.module, engine.zero_optimization_stage() == 3
    rank = dist.get_rank()
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if trained_only and not parameter.requires_grad:
            continue
        with deepspeed.zero.GatheredParameters([parameter], enabled=sharded):
            if rank == 0:
                state[name] = parameter.detach().cpu().clone()
    if rank == 0 and not trained_only:
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        state |= {
            name: buffer.detach().cpu().clone()
            for name, buffer in model.state_dict().items()
            if name not in parameters
        }
    return state
