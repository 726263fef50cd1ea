"""The Ray stream beside a plain loop over the same order: python benchmarks/stream.py.

The same positions of the quickstart's order at ratio 0.5, made by a loop in this process (read,
collate, nothing else) and by the Ray stream for one worker; then the share of time that a consumer
waits whose step takes as long as a training step of the built-in model on a CPU core, which it
keeps busy. The last line is one JSON object.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import ray
import torch

from mixlens.design import SweepSpec, asked_trials
from mixlens.mixture.batches import Reader, micro_positions
from mixlens.mixture.stream import RayStream, make_cursor, stream_options, training_dataset
from mixlens.sources.example import Example
from mixlens.spec import RunSpec, load_spec

SWEEP = Path(__file__).parent.parent / "sweeps" / "quickstart.yaml"


def collate(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Images scaled to [-1, 1]."""
    images = torch.from_numpy(np.stack([example.image for example in examples]))
    return {"pixel_values": images.permute(0, 3, 1, 2).float() / 127.5 - 1}


def plain_loop(run: RunSpec, steps: int) -> float:
    """Examples a second of a loop without any stream."""
    read, micros = Reader(run), run.training.global_batch // run.training.micro_batch
    collate(read(range(8)))
    started = time.perf_counter()
    for micro in range(steps * micros):
        collate(read(micro_positions(run, 0, 1, micro)))
    return steps * run.training.global_batch / (time.perf_counter() - started)


def busy(seconds: float) -> None:
    """Keep one core at work, as a training step does."""
    matrix, until = torch.ones(256, 256), time.perf_counter() + seconds
    while time.perf_counter() < until:
        matrix @ matrix


def stream(run: RunSpec, steps: int, compute: float) -> dict[str, float]:
    """Times of the Ray stream with a consumer that computes so many seconds a step."""
    cursor = make_cursor()
    dataset = training_dataset(run, cursor)
    dataset.context.execution_options = stream_options()
    (shard,) = dataset.streaming_split(1, equal=True)
    source = RayStream(shard, run, 0, 1, collate, cursor)
    batches = source.steps(0, steps)
    started = time.perf_counter()
    next(batches)
    running, before = time.perf_counter(), source.waited
    for _ in batches:
        busy(compute)
    spent = time.perf_counter() - running
    return {
        "first batch after seconds": running - started,
        "examples/s": (steps - 1) * run.training.global_batch / spent,
        "data-wait share": (source.waited - before) / spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="steps of 32 examples")
    parser.add_argument("--compute", type=float, default=0.25, help="seconds of a training step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trials = asked_trials(load_spec(SweepSpec, SWEEP))
    run = next(one.run for one in trials if one.level.id == "ratio=0.5")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")

    stream(run, 2, 0.0)  # starts Ray's workers
    plain = plain_loop(run, options.steps)
    flood = stream(run, options.steps, 0.0)
    paced = stream(run, max(2, options.steps // 2), options.compute)
    result = {
        "plain loop: examples/s": plain,
        "stream, nothing else to do: examples/s": flood["examples/s"],
        "stream / plain loop": flood["examples/s"] / plain,
        f"stream, {options.compute:g} s compute a step: examples/s": paced["examples/s"],
        "its data-wait share (goal: below 0.02)": paced["data-wait share"],
        "its first batch after seconds": paced["first batch after seconds"],
    }
    for name, value in result.items():
        print(f"{name:50s} {value:10.4g}")
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
