"""Estimated memory is that which is measured in real training steps."""

import gc
import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_families
import torch
from cost_cases import (
    ANSWERS,
    LLAVA_TOKENS,
    ROWS,
    llava,
    llava_batch,
    llava_config,
    llava_towers,
    measured_peak,
    prepared,
    tokens_seen,
)
from torch import Tensor, nn

from mixlens.errors import ResourceError
from mixlens.models import load_vlm
from mixlens.spec import LoraSpec, TrainingSpec
from mixlens.training.context import alone
from mixlens.training.cost.fits import check_fits, remedy_for
from mixlens.training.cost.live import live_peak
from mixlens.training.cost.memory import memory, model_states
from mixlens.training.cost.setting import Setting, setting_of
from mixlens.training.cost.shape import ModelShape, model_shape, shape_of
from mixlens.training.cost.summary import summary
from mixlens.training.cost.tokens import RowTokens
from mixlens.training.zero import deepspeed_config, import_deepspeed, weights_dtype

CPU = Setting(global_batch=ROWS, micro_batch=ROWS, precision="fp32", device="cpu")
LORA = {"lora_rank": 8, "lora_towers": ("vision", "projector", "language")}
GIB = 2**30


def beyond_states(shape: ModelShape, tokens: RowTokens, setting: Setting, peak: int) -> float:
    """Estimated by measured bytes, both without weights and optimiser state, which are exact."""
    estimate = memory(shape, tokens, setting)
    states = estimate.device["weights"] + estimate.device["optimizer"]
    return (estimate.allocated - states) / (peak - states)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": precision, "activation_checkpointing": checkpoints, **lora}
        for precision in ("fp32", "bf16")
        for checkpoints in (False, True)
        for lora in ({}, LORA)
    ]
    + [
        {"freeze": ("vision",)},
        {"freeze": ("language",)},
        {"freeze": ("vision", "language"), "precision": "bf16"},
        {"freeze": ("vision", "projector"), "activation_checkpointing": True},
        {**LORA, "lora_towers": ("language",)},
        {**LORA, "lora_dropout": 0.1},
        {"attention": "eager", "precision": "bf16"},
        {"attention": "fused"},
        {"attention": "fused", "precision": "bf16", **LORA},
    ],
    ids=str,
)
def test_memory_beyond_states_is_that_which_is_measured(changes: dict[str, Any]) -> None:
    # CPUs without instructions for bf16 take long for it.
    rows = 1 if changes.get("precision") == "bf16" else ROWS
    setting = replace(CPU, global_batch=rows, micro_batch=rows, **changes)
    model = llava(setting.attention)
    towers = llava_towers(model)
    shape = shape_of(model, towers)
    ready = prepared(model, towers, setting)
    peak = measured_peak(ready, *llava_batch(rows), setting)
    tokens = replace(LLAVA_TOKENS, logits=ANSWERS)
    assert beyond_states(shape, tokens, setting, peak) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("checkpoints", [False, True])
@pytest.mark.parametrize("family", tiny_families.FAMILIES)
def test_memory_of_every_family(family: str, checkpoints: bool, tmp_path: Path) -> None:
    tiny_families.build(family, tmp_path)
    vlm = load_vlm(str(tmp_path), attention="plain")
    towers = vlm.adapter.towers(vlm.model)
    shape = shape_of(vlm.model, towers)
    rows = 4
    image = np.random.default_rng(0).integers(0, 255, (96, 160, 3), dtype=np.uint8)
    questions = ["what is red in this picture ? " * 6] * rows
    inputs = dict(vlm.adapter.question_batch([image] * rows, questions))
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -20:] = inputs["input_ids"][:, -20:].clamp(max=shape.vocabulary - 1)
    setting = replace(
        CPU, global_batch=rows, micro_batch=rows, activation_checkpointing=checkpoints
    )
    with torch.no_grad():
        tokens = tokens_seen(vlm.model, shape, lambda: vlm.model(**inputs, use_cache=False), rows)
    ready = prepared(vlm.model, {}, setting)
    peak = measured_peak(ready, inputs, labels, setting)
    ratio = beyond_states(shape, replace(tokens, logits=20, answers=20), setting, peak)
    assert ratio == pytest.approx(1, abs=0.15)


def test_the_judge_counts_what_is_alive() -> None:
    held = torch.zeros(100)

    def step() -> None:
        made = held + 1
        other = made.view(10, 10) * 2
        del made
        other.sum()

    # What was there, and two of the same size at once; views are not another.
    assert live_peak(step, [held]) == 3 * 400
    assert live_peak(lambda: None, [held, held[3:]]) == 400


def shape_7b() -> ModelShape:
    config = llava_config(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=32064,
    )  # fmt: skip
    return model_shape(config, llava_towers)


GPU = Setting(
    global_batch=64, micro_batch=4, precision="bf16", device="cuda", zero_stage=3, workers=8,
    workers_per_node=8, attention="fused",
)  # fmt: skip


def test_states_are_those_of_zero() -> None:
    """Sixteen bytes a parameter and more, and what each stage divides (ZeRO, section 3)."""
    shape = shape_7b()
    total, workers = shape.total, GPU.workers
    whole = model_states(shape, replace(GPU, zero_stage=0, workers=1, precision="fp32"))
    assert whole.weights + whole.optimizer + whole.gradients == 16 * total
    first = model_states(shape, replace(GPU, zero_stage=1))
    assert first.weights == 2 * total
    assert first.optimizer == 12 * total / workers
    assert first.gradients == (2 + 4) * total  # DeepSpeed holds them whole, in both types
    second = model_states(shape, replace(GPU, zero_stage=2))
    assert second.gradients == 4 * total / workers
    third = model_states(shape, GPU)
    live = 2 * 1.05e9
    assert third.weights == pytest.approx(2 * total / workers + live)
    # Offloading moves states, and nothing of them is lost.
    off = model_states(shape, replace(GPU, offload_optimizer="cpu"))
    assert (off.optimizer, off.gradients) == (0, 0)
    assert off.host == 20 * total / workers
    to_disk = {"offload_optimizer": "nvme", "offload_parameters": "nvme"}
    both = model_states(shape, replace(GPU, **to_disk))
    assert both.weights == live
    assert both.nvme == (2 + 12 + 4) * total / workers
    # Buffers on the way to the disk are of 10^9 elements at most: it spares what is above that.
    alone = replace(GPU, workers=1)
    spared = model_states(shape, replace(alone, **to_disk)).host
    assert spared < 0.5 * model_states(shape, replace(alone, offload_optimizer="cpu")).host


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "precision"),
    [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")],
)
def test_states_are_those_that_deepspeed_holds(
    stage: Any, precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a step of one worker, under the configuration of CPUs in fp32 and of GPUs in bf16."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    # Stage 3 puts a product of its own there, for good.
    monkeypatch.setattr(nn.functional, "linear", nn.functional.linear)
    deepspeed = import_deepspeed()
    alone(tmp_path)
    before = tensors()
    model = llava(hidden_size=128, num_hidden_layers=1, vocab_size=1000).train()
    shape = shape_of(model, llava_towers(model))
    training = TrainingSpec(
        steps=1, global_batch=1, micro_batch=1, zero_stage=stage, precision=precision
    )
    setting = setting_of(training, "cuda" if precision == "bf16" else "cpu", 1, 1)
    model = model.to(weights_dtype(training, setting.device))
    config = deepspeed_config(training, 1, setting.device)
    config["zero_optimization"]["overlap_comm"] = False  # which takes streams
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=config, dist_init_required=False
    )
    inputs, labels = llava_batch(rows=1)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    before += [*inputs.values(), labels]
    for last in (False, True):  # after the first step the optimiser has its state
        engine.backward(engine(**inputs, use_cache=False).logits.float().square().mean())
        if not last:
            engine.step()
    old = storages(before)
    held = sum(size for key, size in storages(tensors()).items() if key not in old)

    states = model_states(shape, setting)
    expected = states.weights + states.optimizer + states.gradients
    if stage == 3:  # neither whole weights nor a step are there now; the bucket stays
        passing = setting.weight_bytes * shape.total + 4 * shape.total
        expected += states.buckets - passing
    assert held == pytest.approx(expected, rel=0.01)


def tensors() -> list[Tensor]:
    """All that Python knows of in this process; whoever has the list keeps them alive."""
    gc.collect()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # looking at some objects is deprecated
        return [thing for thing in gc.get_objects() if type(thing) in (Tensor, nn.Parameter)]


def storages(of: list[Tensor]) -> dict[int, int]:
    """Bytes of every storage behind some tensors, without those that have no memory."""
    real = [tensor.untyped_storage() for tensor in of if tensor.device.type != "meta"]
    return {storage._cdata: storage.nbytes() for storage in real}


def test_lora_trains_little_and_keeps_the_frozen_weights() -> None:
    shape = shape_7b()
    setting = replace(GPU, zero_stage=1, lora_rank=16, lora_towers=("language",))
    states = model_states(shape, setting)
    adapters = 32 * 16 * (4 * 2 * 4096 + 3 * (4096 + 11008))
    assert states.weights == 2 * (shape.total + adapters)
    assert states.optimizer == 12 * adapters / 8


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_weights_are_held_as_training_holds_them(device: Any, precision: Any, stage: Any) -> None:
    training = TrainingSpec(
        steps=1, global_batch=4, micro_batch=2, precision=precision, zero_stage=stage,
        lora=LoraSpec(rank=4, towers=("language",)), activation_checkpointing=True,
    )  # fmt: skip
    setting = setting_of(training, device, workers=2, workers_per_node=1)
    assert setting.weight_bytes == weights_dtype(training, device).itemsize
    assert setting.lora_rank == 4
    assert setting.activation_checkpointing
    assert not setting.accumulates
    assert setting.attention == ("plain" if device == "cpu" else "fused")
    assert setting_of(training, device, workers=1, workers_per_node=1).accumulates


def test_what_fits_is_let_through_and_what_is_unknown_is_not_judged() -> None:
    shape = shape_7b()
    assert check_fits(shape, LLAVA_TOKENS, GPU, 80 * GIB).peak < 80 * GIB
    assert check_fits(shape, LLAVA_TOKENS, replace(GPU, workers=1), None).peak > 80 * GIB


def test_a_refusal_names_settings_that_fit_by_the_same_estimate() -> None:
    shape = shape_7b()
    for stage, micro, gib in itertools.product((1, 2, 3), (1, 16), (16, 24, 40, 80)):
        setting = replace(GPU, zero_stage=stage, micro_batch=micro, global_batch=256, workers=4)
        if memory(shape, LLAVA_TOKENS, setting).peak <= gib * GIB:
            check_fits(shape, LLAVA_TOKENS, setting, gib * GIB)
            continue
        with pytest.raises(ResourceError, match=rf"GiB a GPU and {gib}\.0 are there") as refused:
            check_fits(shape, LLAVA_TOKENS, setting, gib * GIB)
        found = remedy_for(shape, LLAVA_TOKENS, setting, gib * GIB)
        assert found is not None
        changes, less = found
        assert less.peak <= gib * GIB
        message = str(refused.value)
        assert "training: got 'micro_batch" in message
        assert all(f"{name}: " in message for name in changes)
        assert f"{less.peak / GIB:.1f} GiB a GPU" in message


def test_one_change_is_preferred_to_several_and_lora_comes_last() -> None:
    shape = shape_7b()
    # Activations alone are too much: checkpointing is enough.
    crowded = replace(GPU, micro_batch=32, global_batch=256)
    needed = memory(shape, LLAVA_TOKENS, crowded).peak
    found = remedy_for(shape, LLAVA_TOKENS, crowded, needed * 0.9)
    assert found is not None
    assert found[0] == {"activation_checkpointing": True}
    # States alone are too much: sharding is enough.
    whole = replace(GPU, zero_stage=1, micro_batch=1, activation_checkpointing=True)
    found = remedy_for(shape, LLAVA_TOKENS, whole, 30 * GIB)
    assert found is not None
    assert list(found[0]) == ["zero_stage"]
    # One GPU of 24 GB for seven billion parameters.
    alone = replace(GPU, workers=1, workers_per_node=1, zero_stage=1)
    found = remedy_for(shape, LLAVA_TOKENS, alone, 24 * GIB)
    assert found is not None
    assert found[0] == {"zero_stage": 2, "offload_optimizer": "cpu"}
    # Too little even for the weights in bf16.
    found = remedy_for(shape, LLAVA_TOKENS, alone, 8 * GIB)
    assert found is not None
    assert found[0]["offload_parameters"] == "cpu"
    assert "lora" not in found[0]
    assert remedy_for(shape, LLAVA_TOKENS, alone, GIB) is None
    with pytest.raises(ResourceError, match="take a smaller model or larger GPUs"):
        check_fits(shape, LLAVA_TOKENS, alone, GIB)


def test_the_summary_says_what_it_is_made_of() -> None:
    rows = dict(summary(shape_7b(), LLAVA_TOKENS, replace(GPU, offload_optimizer="cpu"), 80 * GIB))
    assert rows["parameters"].startswith("6.76 G (vision")
    assert "of 80.00 GiB" in rows["memory a device"]
    assert f"{ANSWERS} of answers" in rows["tokens an example"]
    # 20 bytes a parameter on one node, whatever the number of workers there.
    assert rows["main memory a node"].startswith(f"{20 * shape_7b().total / GIB:.2f} GiB")
