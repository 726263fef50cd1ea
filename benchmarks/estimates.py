"""Estimated memory and operations beside measured ones: `python benchmarks/estimates.py`.

A LLaVA of width 256 on rows of 300 tokens takes one training step in plain PyTorch with AdamW, for
all weights and for LoRA, with and without activation checkpointing, in fp32 and with bf16 autocast
(which CPUs without instructions for it take long for; `--fp32` leaves that out). Memory is compared
without weights and optimiser state, whose size is exact: on CPUs as bytes of live tensors, on a GPU
as what PyTorch's allocator handed out, for a model of width 1024 there. Operations are those that
torch counts. The last line is one JSON object of estimated by measured.
"""

import argparse
import itertools
import json
import os
import warnings
from typing import Any, Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mixlens.models.torchvision_ops import make_torchvision_importable
from mixlens.training.cost.flops import step_flops
from mixlens.training.cost.live import cuda_peak, live_peak
from mixlens.training.cost.memory import memory
from mixlens.training.cost.setting import Setting
from mixlens.training.cost.shape import shape_of
from mixlens.training.cost.tokens import RowTokens
from mixlens.training.objective import answer_loss_sum, before_answers

ROWS, VISUAL, TEXT, ANSWERS, IMAGE = 2, 196, 104, 40, 5
TOKENS = RowTokens(VISUAL + 1, VISUAL + 1, VISUAL, VISUAL + TEXT, ANSWERS, ANSWERS)
TOWERS = ("vision", "projector", "language")
RANK = 8


def build(width: int) -> Any:
    make_torchvision_importable()
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    import mixlens.models.attention  # noqa: F401 - makes "mixlens_plain" known

    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=width // 2, intermediate_size=2 * width, num_hidden_layers=3,
            num_attention_heads=4, image_size=112, patch_size=8,
        ),
        text_config=LlamaConfig(
            hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4,
            num_attention_heads=8, num_key_value_heads=4, vocab_size=2000,
            tie_word_embeddings=False,
        ),
        image_token_id=IMAGE,
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def towers(model: Any) -> dict[str, list[nn.Module]]:
    inner = model.model
    return {
        "vision": [inner.vision_tower],
        "projector": [inner.multi_modal_projector],
        "language": [inner.language_model, model.lm_head],
    }


def batch(device: str) -> tuple[dict[str, Tensor], Tensor]:
    length = VISUAL + TEXT
    ids = torch.randint(10, 1000, (ROWS, length))
    ids[:, :VISUAL] = IMAGE
    labels = torch.full_like(ids, -100)
    labels[:, -ANSWERS:] = ids[:, -ANSWERS:]
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    inputs = {
        "input_ids": ids,
        "attention_mask": mask[None, None].repeat(ROWS, 1, 1, 1),
        "position_ids": torch.arange(length)[None].repeat(ROWS, 1),
        "pixel_values": torch.randn(ROWS, 3, 112, 112),
    }
    return {name: value.to(device) for name, value in inputs.items()}, labels.to(device)


def compare(
    width: int, device: str, precision: Literal["fp32", "bf16"], lora: bool, checkpoints: bool
) -> dict[str, float]:
    """Estimated by measured: memory beyond states, and operations."""
    model = build(width).to(device)
    # The same on both devices, and torch can count all of its operations.
    model.set_attn_implementation("mixlens_plain")
    shape = shape_of(model, towers(model))
    setting = Setting(
        global_batch=ROWS, micro_batch=ROWS, precision=precision, device="cpu", attention="plain",
        lora_rank=RANK if lora else None, lora_towers=TOWERS if lora else (),
        activation_checkpointing=checkpoints,
    )  # fmt: skip
    if lora:
        from peft import LoraConfig, get_peft_model

        linear = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and module is not model.lm_head
        ]
        adapters = LoraConfig(r=RANK, target_modules=linear)
        model = get_peft_model(model, adapters, autocast_adapter_dtype=False)
    if checkpoints:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.disable_input_require_grads()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    inputs, labels = batch(device)
    before = before_answers(labels)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(**inputs, use_cache=False, logits_to_keep=before).logits
        loss = answer_loss_sum(logits, labels[:, before + 1])
        del logits
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    with FlopCounterMode(display=False) as counter:
        step()
    if device == "cuda":
        peak = cuda_peak(step)
    else:
        states = [value for state in optimizer.state.values() for value in state.values()]
        held = [*model.parameters(), *model.buffers(), *inputs.values(), labels, *states]
        peak = live_peak(step, held)
    estimate = memory(shape, TOKENS, setting)
    states_of = estimate.device["weights"] + estimate.device["optimizer"]
    work = step_flops(shape, TOKENS, setting, rows=ROWS).hardware
    return {
        "memory": (estimate.allocated - states_of) / (peak - states_of),
        "memory_with_states": estimate.allocated / peak,
        "operations": work / counter.get_total_flops(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fp32", action="store_true", help="leave out bf16")
    fp32_alone = parser.parse_args().fp32
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    devices = {"cpu": 256} | ({"cuda": 1024} if torch.cuda.is_available() else {})
    precisions: tuple[Literal["fp32", "bf16"], ...] = ("fp32",) if fp32_alone else ("fp32", "bf16")
    result: dict[str, float] = {}
    for device, precision, lora, checkpoints in itertools.product(
        devices, precisions, (False, True), (False, True)
    ):
        found = compare(devices[device], device, precision, lora, checkpoints)
        name = f"{device}_{precision}_{'lora' if lora else 'full'}"
        name += "_checkpointing" if checkpoints else ""
        said = ", ".join(f"{what.replace('_', ' ')} {ratio:.3f}" for what, ratio in found.items())
        print(f"{name}: estimated by measured: {said}")
        result |= {f"{name}_{what}": round(ratio, 3) for what, ratio in found.items()}
    off = {what: max(abs(r - 1) for n, r in result.items() if n.endswith(what))
           for what in ("_memory", "_operations")}  # fmt: skip
    print(
        f"farthest from 1: memory by {off['_memory']:.3f}, operations by {off['_operations']:.3f}"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
