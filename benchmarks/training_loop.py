"""The training loop beside a bare PyTorch loop.

    python benchmarks/training_loop.py [--steps N]

The built-in model's size, the quickstart's training at ratio 0.5, one worker with one thread: once
as `launch` runs it (Ray Train, Ray Data, DeepSpeed), and before and after that in a loop of this
process with nothing but forward, backward and AdamW over the same batches, made beforehand. Both
speeds are those of the median step, so that other work on the machine weighs little. The last line
is one JSON object.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ray
import torch

from mixlens.design import SweepSpec, asked_trials
from mixlens.mixture.local import LocalStream
from mixlens.models import load_vlm
from mixlens.models.precision import computes_in_bf16
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import RunSpec, load_spec
from mixlens.tasks import vocabulary
from mixlens.training.launch import launch
from mixlens.training.records import read_journal
from mixlens.training.zero import import_deepspeed

SWEEP = Path(__file__).parent.parent / "sweeps" / "quickstart.yaml"
GOAL = 0.95
WARM_UP = 5  # steps that count on neither side


def the_run(model: Path, steps: int) -> RunSpec:
    settings = [f"model={model}", f"training.steps={steps}", "design.ratios=[0.5]", "seeds=[0]",
                "training.micro_batch=32", f"training.checkpoint_every={steps + 1}"]  # fmt: skip
    return asked_trials(load_spec(SweepSpec, SWEEP, settings))[0].run


def bare_loop(run: RunSpec, batches: list[dict[str, torch.Tensor]]) -> list[float]:
    """Seconds of each step."""
    training = run.training
    vlm = load_vlm(run.model)
    model = vlm.model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.learning_rates.language, betas=training.betas, fused=True
    )
    bf16 = computes_in_bf16(training.precision, "cpu")  # as the run itself
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            inputs = vlm.adapter.model_inputs(batch)
            loss = model(**inputs, labels=batch["labels"], use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - started)
    return seconds


def launched(run: RunSpec, directory: Path) -> tuple[list[dict[str, Any]], float]:
    """The records of a run on a Ray of its own, and the seconds it took in all."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
             logging_level="ERROR")  # fmt: skip
    started = time.perf_counter()
    launch(run, directory)
    seconds = time.perf_counter() - started
    ray.shutdown()
    return read_journal(directory / "training.jsonl"), seconds


def seconds_in(records: list[dict[str, Any]]) -> float:
    """Seconds of all steps, by the records of some."""
    done = [0, *(record["step"] for record in records)]
    return sum(r["step_s"] * (r["step"] - d) for d, r in zip(done, records, strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    torch.set_num_threads(1)
    import_deepspeed()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        build_tiny_vlm(model, vocabulary(), size="base")
        run = the_run(model, steps)
        stream = LocalStream(run, 0, 1, load_vlm(run.model).adapter.training_batch)
        batches = [micro.tensors for step in stream.steps(0, steps) for micro in step]
        assert len(batches) == steps, "the quickstart accumulates; compare whole global batches"

        seconds = bare_loop(run, batches[: steps // 2])[WARM_UP:]
        records, in_all = launched(run, Path(folder) / "run")
        seconds += bare_loop(run, batches[steps // 2 :])[WARM_UP:]

    # A record is the mean over the steps since the last one.
    counted = [record for record in records if record["step"] > WARM_UP]
    images = run.training.global_batch
    result = {
        "bare_images_per_s": round(images / statistics.median(seconds), 1),
        "mixlens_images_per_s": round(
            images / statistics.median(record["step_s"] for record in counted), 1
        ),
        "ratio": round(
            statistics.median(seconds) / statistics.median(r["step_s"] for r in counted), 3
        ),
        "data_wait_share": round(statistics.mean(r["data_wait_share"] for r in counted), 4),
        "seconds_around_the_loop": round(in_all - seconds_in(records), 1),
    }
    print(
        f"Ray + DeepSpeed {result['mixlens_images_per_s']} images/s, bare PyTorch "
        f"{result['bare_images_per_s']} images/s: ratio {result['ratio']} (goal {GOAL})"
    )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
