"""A model of published size on a GPU, beside the same in a bare PyTorch loop.

    python benchmarks/gpu_training.py [--family qwen2_5_vl|molmo2] [--steps N] [--lora]

Random weights in the shape of Qwen2.5-VL 3B (or Molmo 2 8B), 448-pixel scenes with 7 packed turns,
bf16, activation checkpointing: a few dozen steps of the training loop with DeepSpeed ZeRO-1 in this
process, and before and after that the same batches in a loop of nothing but forward, backward,
clipping and fused AdamW over bf16 weights with fp32 masters left out (LoRA: over the adapters).
Tokens a second, model FLOPs utilisation and peak memory of both, the ratio of the median steps, and
the estimate of the memory beside the measured peak. Needs a CUDA GPU of 80 GB or more; without one
it says that nothing was measured. The last line is one JSON object.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mixlens.design import SweepSpec, asked_trials
from mixlens.mixture.local import LocalStream
from mixlens.models import VLM, load_adapter, model_config
from mixlens.spec import RunSpec, load_spec
from mixlens.training.context import alone
from mixlens.training.cost.memory import memory
from mixlens.training.cost.setting import setting_of
from mixlens.training.cost.shape import model_shape
from mixlens.training.cost.tokens import tokens_of
from mixlens.training.loop import train
from mixlens.training.lora import add_lora
from mixlens.training.objective import answer_loss_sum, before_answers
from mixlens.training.optimizer import adamw, parameter_groups
from mixlens.training.records import read_journal
from mixlens.training.utilisation import ModelFlops
from mixlens.training.zero import import_deepspeed

ROOT = Path(__file__).parent.parent
GOAL = 0.97
WARM_UP = 5  # steps that count on neither side
DEVICE = torch.device("cuda", 0)


def the_run(model: Path, steps: int, lora: bool) -> RunSpec:
    settings = [
        f"model={model}", f"training.steps={steps}", "design.ratios=[1.0]", "seeds=[0]",
        "training.global_batch=8", "training.micro_batch=8", "training.zero_stage=1",
        f"training.checkpoint_every={steps + 1}", "training.warmup_steps=1", "resources.workers=1",
        "training.log_every=1", *([] if lora else ["training.lora=null"]),
    ]  # fmt: skip
    return asked_trials(load_spec(SweepSpec, ROOT / "sweeps" / "qwen25_vl.yaml", settings))[0].run


def random_model(path: Path) -> VLM:
    from transformers import AutoModelForImageTextToText

    config = model_config(str(path))
    torch.manual_seed(0)
    with DEVICE:
        model = AutoModelForImageTextToText.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    adapter = load_adapter(str(path))
    return VLM(model, adapter.processor, adapter, str(path))  # type: ignore[attr-defined]


def bare_loop(run: RunSpec, vlm: VLM, batches: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    """Seconds of each step, and the peak of memory."""
    training = run.training
    model = add_lora(vlm, training.lora, run.seed) if training.lora else vlm.model
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    groups = parameter_groups(model, vlm.adapter.towers(vlm.model), training)
    optimizer = adamw(groups, training)
    trained = [weight for group in groups for weight in group["params"]]
    seconds = []
    torch.cuda.reset_peak_memory_stats()
    for batch in batches:
        torch.cuda.synchronize()
        started = time.perf_counter()
        inputs = {name: value.to(DEVICE) for name, value in batch.items()}
        labels = inputs.pop("labels")
        before = before_answers(labels)
        inputs = vlm.adapter.model_inputs(inputs)
        logits = model(**inputs, use_cache=False, logits_to_keep=before).logits
        wanted = labels[:, before + 1]
        (answer_loss_sum(logits, wanted) / (wanted >= 0).sum()).backward()
        torch.nn.utils.clip_grad_norm_(trained, training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds[WARM_UP:], "peak_gb": torch.cuda.max_memory_allocated() / 2**30}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", choices=("qwen2_5_vl", "molmo2"), default="qwen2_5_vl")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--lora", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("not measured: torch sees no GPU here")
        print(json.dumps({"measured": False}))
        return
    import_deepspeed()
    sys.path.insert(0, str(ROOT / "tests"))
    from published_shapes import write_shape

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        write_shape(arguments.family, path)
        run = the_run(path, arguments.steps, arguments.lora)
        adapter = load_adapter(run.model)
        stream = LocalStream(run, 0, 1, adapter.training_batch)
        batches = [micro.tensors for step in stream.steps(0, arguments.steps) for micro in step]
        flops_of = ModelFlops(run, adapter, 1, DEVICE)
        flops = statistics.median(flops_of(batch) for batch in batches)

        first = bare_loop(run, random_model(path), batches)
        torch.cuda.empty_cache()
        directory = Path(folder) / "run"
        directory.mkdir()
        stream = LocalStream(run, 0, 1, adapter.training_batch)
        train(run, alone(directory), random_model(path), stream)
        torch.cuda.empty_cache()
        second = bare_loop(run, random_model(path), batches)
        records = read_journal(directory / "training.jsonl")[WARM_UP:]

    bare = statistics.median(first["seconds"] + second["seconds"])
    ours = statistics.median(record["step_s"] for record in records)
    tokens = tokens_of(adapter, batches[0], 8)
    setting = setting_of(run.training, "cuda", 1, 1)
    needed = memory(model_shape(model_config(run.model), adapter.towers), tokens, setting)
    result = {
        "measured": True,
        "gpu": torch.cuda.get_device_name(),
        "ratio": round(bare / ours, 3),
        "tokens_per_s": round(statistics.median(r["tokens_per_s"] for r in records)),
        "mfu": round(statistics.median(r.get("mfu", float("nan")) for r in records), 3),
        "bare_mfu": round(flops / bare / flops_of.peak, 3) if flops_of.peak else None,
        "peak_gb": round(max(r["peak_memory_gb"] for r in records), 2),
        "bare_peak_gb": round(first["peak_gb"], 2),
        "estimated_by_measured_memory": round(
            needed.allocated / 2**30 / max(r["peak_memory_gb"] for r in records), 3
        ),
    }
    print(f"training loop {1 / ours:.2f} steps/s, bare {1 / bare:.2f}: ratio {result['ratio']} "
          f"(goal {GOAL}), MFU {result['mfu']}")  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
