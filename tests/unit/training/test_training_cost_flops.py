"""Operations are those that torch counts in real models, and parameters those that they have."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_families
import torch
from cost_cases import (
    LLAVA_TOKENS,
    ROWS,
    llava,
    llava_batch,
    llava_config,
    llava_towers,
    prepared,
    tokens_seen,
)
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from mixlens.models import load_vlm
from mixlens.training.cost.devices import mfu, peak_flops
from mixlens.training.cost.flops import forward_flops, step_flops
from mixlens.training.cost.setting import Setting, trained_parameters
from mixlens.training.cost.shape import model_shape, shape_of
from mixlens.training.cost.summary import sweep_hours

PLAIN = Setting(global_batch=ROWS, micro_batch=ROWS, precision="fp32", device="cpu")
LORA = {"lora_rank": 8, "lora_towers": ("vision", "projector", "language")}


# torch counts the fused kernels of GPUs; of that for CPUs it knows nothing.
aten = torch.ops.aten
FUSED = {
    aten._scaled_dot_product_flash_attention_for_cpu:
        lambda q, k, v, *_, out_shape, **__: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward:
        lambda grad, q, k, v, *_, out_shape, **__: sdpa_backward_flop_count(grad, q, k, v),
}  # fmt: skip


def counted(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[int, int]:
    """Operations of the forward and of the backward pass, as torch counts them."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as forward:
        logits = model(**inputs, use_cache=False).logits
    with FlopCounterMode(display=False, custom_mapping=FUSED) as backward:
        logits.float().sum().backward()
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("family", tiny_families.FAMILIES)
def test_every_family_costs_what_torch_counts(family: str, tmp_path: Path) -> None:
    """The rest, below one part in a hundred, is rotary tables and Molmo 2's mean of the pooled."""
    tiny_families.build(family, tmp_path)
    vlm = load_vlm(str(tmp_path))
    model = vlm.model.train()
    shape = shape_of(model, vlm.adapter.towers(model))
    assert shape.total == sum(parameter.numel() for parameter in model.parameters())
    assert sum(trained_parameters(shape, PLAIN).values()) == shape.total

    image = np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    inputs = dict(vlm.adapter.question_batch([image] * 2, ["what is red ?", "is it red ?"]))
    with torch.no_grad():
        tokens = tokens_seen(model, shape, lambda: model(**inputs, use_cache=False), 2)
    forward, backward = counted(model, inputs)
    cost = step_flops(shape, tokens, PLAIN, rows=2)
    assert cost.forward.total == pytest.approx(forward, rel=0.01)
    assert cost.model == pytest.approx(forward + backward, rel=0.01)
    assert cost.hardware == cost.model


@pytest.mark.parametrize(
    "changes",
    [
        {"freeze": ("vision",)},
        {"freeze": ("vision", "language")},
        {"freeze": ("language",)},
        {"freeze": ("vision", "projector")},
        LORA,
        {**LORA, "lora_towers": ("language",)},
        {**LORA, "lora_towers": ("vision",)},
        {"activation_checkpointing": True},
        {**LORA, "activation_checkpointing": True},
        {"freeze": ("vision",), "activation_checkpointing": True},
    ],
)
def test_what_is_frozen_adapted_or_recomputed(changes: dict[str, Any]) -> None:
    setting = replace(PLAIN, **changes)
    model = llava()
    shape = shape_of(model, llava_towers(model))
    ready = prepared(model, llava_towers(model), setting)
    trained = sum(trained_parameters(shape, setting).values())
    assert trained == sum(parameter.numel() for parameter in ready.trained)
    inputs, _ = llava_batch()
    forward, backward = counted(ready.model, inputs)
    cost = step_flops(shape, LLAVA_TOKENS, setting, rows=ROWS)
    # In the first block adapters need no gradient of its input, which is counted here.
    assert cost.hardware == pytest.approx(forward + backward, rel=0.03)
    if setting.activation_checkpointing:
        assert cost.model < 0.85 * cost.hardware
    else:
        assert cost.model == cost.hardware


def test_fused_attention_computes_its_scores_again() -> None:
    model = llava("fused")
    shape = shape_of(model, llava_towers(model))
    inputs, _ = llava_batch()
    forward, backward = counted(model.train(), inputs)
    cost = step_flops(shape, LLAVA_TOKENS, replace(PLAIN, attention="fused"), rows=ROWS)
    assert cost.forward.total == pytest.approx(forward, rel=0.01)
    assert cost.hardware == pytest.approx(forward + backward, rel=0.01)
    assert cost.model == pytest.approx(3 * forward, rel=0.01)


def test_logits_are_counted_where_they_are_computed() -> None:
    shape = model_shape(llava_config(), llava_towers)
    every = forward_flops(shape, LLAVA_TOKENS).total
    few = forward_flops(shape, replace(LLAVA_TOKENS, logits=40)).total
    assert every - few == 2 * 256 * 2000 * (LLAVA_TOKENS.logits - 40)


def test_a_shape_needs_no_weights() -> None:
    real = llava()
    assert model_shape(llava_config(), llava_towers) == shape_of(real, llava_towers(real))


def test_tied_weights_are_one_tensor_that_is_multiplied_once() -> None:
    config = llava_config(tie_word_embeddings=True)
    config.tie_word_embeddings = True
    tied, apart = model_shape(config, llava_towers), model_shape(llava_config(), llava_towers)
    assert tied.tied
    assert not apart.tied
    assert apart.total - tied.total == 256 * 2000
    same = forward_flops(tied, LLAVA_TOKENS).total
    assert same == forward_flops(apart, LLAVA_TOKENS).total


def test_a_large_model_is_close_to_six_operations_a_parameter_and_token() -> None:
    """Kaplan's rule, for a decoder of which embeddings and attention are a small part."""
    config = llava_config(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=32064,
    )  # fmt: skip
    shape = model_shape(config, llava_towers)
    assert shape.parameters["language"] == 6_738_939_904  # LLaMA 2 7B with 64 more words
    cost = step_flops(shape, LLAVA_TOKENS, replace(PLAIN, freeze=("vision",)))
    rule = 6 * shape.parameters["language"] * LLAVA_TOKENS.decoder
    assert cost.model == pytest.approx(rule, rel=0.03)


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("NVIDIA A10G", 70), ("NVIDIA L4", 121), ("NVIDIA L40S", 362),
        ("NVIDIA A100-SXM4-80GB", 312), ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989), ("NVIDIA H100 PCIe", 756), ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989), ("NVIDIA H200 NVL", 835), ("NVIDIA B200", 2250),
        ("NVIDIA GeForce RTX 3090", 71), ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA RTX A6000", 155), ("Tesla V100-SXM2-32GB", None), ("Tesla T4", None),
        ("NVIDIA GH200 480GB", None), ("NVIDIA L40", None), ("NVIDIA A10", None),
        ("NVIDIA GeForce RTX 3090 Ti", None), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("Radeon", None),
    ],
)  # fmt: skip
def test_peaks_are_known_or_none(name: str, tera: float | None) -> None:
    assert peak_flops(name) == (None if tera is None else tera * 1e12)


def test_old_gpus_have_a_peak_in_fp16_alone() -> None:
    assert peak_flops("Tesla T4", "fp16") == 65e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "fp16") == 312e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "fp32") is None


def test_utilisation_and_hours() -> None:
    assert mfu(312e12, 2.0, 312e12) == 0.5
    assert mfu(1.0, 1.0, None) is None
    known = sweep_hours(3.5e18, 10, 1e15, "NVIDIA X", assumed_mfu=0.35)
    assert known.gpu_hours == pytest.approx(3.5e19 / 3.5e14 / 3600)
    assert "an assumed 35% of the 1000 TFLOP/s" in known.sentence
    assert "27.8 GPU hours" in known.sentence
    unknown = sweep_hours(1e18, 10, None, "NVIDIA X")
    assert unknown.gpu_hours is None
    assert "peak is unknown" in unknown.sentence
