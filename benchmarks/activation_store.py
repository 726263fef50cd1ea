"""How fast hidden states are stored and read: `python benchmarks/activation_store.py`.

A decoder of 8 layers and width 1024 with 576 tokens an image, 4 batches of 16 images, with no model
before it: what is timed is the store alone. Beside it `torch.save` and `torch.load` of the same
states as bf16, one file a layer of a batch. Read is one layer of all images, to float32 in both.
Times are the process's own, so that waiting for the disk is in neither: its bytes are the same.
The last line is one JSON object.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mixlens.activations import store
from mixlens.sources import Example

LAYERS, TOKENS, WIDTH, BATCH, BATCHES = 8, 576, 1024, 16, 4
STATES = torch.randn(BATCH, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
ROUNDS = 5  # the best counts: other work on the machine can only slow a round down


def layers(vlm: object, images: object, take: Callable[..., None]) -> None:
    """In place of a forward pass: the states of every layer, made before."""
    exists = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    for layer in range(LAYERS):
        take(("visual", layer), STATES, exists)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def write_store(folder: Path) -> None:
    for batch in range(BATCHES):
        ids = [f"a/{batch * BATCH + image}" for image in range(BATCH)]
        examples = [Example(name, "a", np.zeros((1, 1, 3), np.uint8), (), {}) for name in ids]
        store.write_states(None, examples, folder, "benchmark", ("visual",))


def read_store(folder: Path) -> torch.Tensor:
    ids = [f"a/{image}" for image in range(BATCH * BATCHES)]
    return store.read_layer(folder, "visual", LAYERS // 2, ids).tokens


def write_plain(folder: Path) -> None:
    folder.mkdir()
    for batch in range(BATCHES):
        for layer in range(LAYERS):
            torch.save(STATES.bfloat16(), folder / f"{batch}-{layer}.pt")


def read_plain(folder: Path) -> torch.Tensor:
    files = [folder / f"{batch}-{LAYERS // 2}.pt" for batch in range(BATCHES)]
    return torch.cat([torch.load(file).float() for file in files])


def main() -> None:
    store.visit = layers
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for count in range(ROUNDS):
            ours, plain = (Path(scratch) / f"{name}-{count}" for name in ("store", "plain"))
            spent = {
                "store: write": seconds(lambda folder=ours: write_store(folder)),
                "torch: write": seconds(lambda folder=plain: write_plain(folder)),
                "store: read": seconds(lambda folder=ours: read_store(folder)),
                "torch: read": seconds(lambda folder=plain: read_plain(folder)),
            }
            best = {name: min(best.get(name, value), value) for name, value in spent.items()}
            assert torch.equal(read_store(ours), read_plain(plain))
        states = STATES.numel() * 2 * BATCHES
        disk = sum(file.stat().st_size for file in ours.glob("states-*"))
    result = {
        f"{name}, GB/s": states * (LAYERS if "write" in name else 1) / 1e9 / value
        for name, value in best.items()
    }
    result["write time / torch.save time"] = best["store: write"] / best["torch: write"]
    result["read time / torch.load time"] = best["store: read"] / best["torch: read"]
    result["bytes on disk / bytes of states"] = disk / (states * LAYERS)
    for name, value in result.items():
        print(f"{name:35s} {value:8.3f}")
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
