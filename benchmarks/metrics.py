"""What the metrics cost: `python benchmarks/metrics.py`.

Three questions, each answered by a ratio of times taken in one run, on one core:

1. The default set (everything `image_values` measures) against the forward pass of the built-in
   model that it rides on, and one batch of nulls against the same.
2. Each metric of an image alone, and the default set, against the naive route: numpy in float64,
   image by image, a full SVD for every metric of the spectrum.
3. The default set of 33 states of a 7B-shaped decoder (576 tokens, width 4096) against the forward
   pass of its 32 blocks, random weights and states: on the CPU from one block, float32, and on a
   GPU, where torch has one, in bfloat16.

The last line is one JSON object.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from mixlens import metrics
from mixlens.activations.nulls import null_values
from mixlens.activations.reduce import image_values, layer_values, position_sums
from mixlens.activations.streams import visit
from mixlens.metrics.norms import no_sinks
from mixlens.models import keep_freed_memory, load_vlm
from mixlens.sources import open_source
from mixlens.spec import SceneComponent, SceneSpec

ROUNDS = 3  # the best counts: other work on the machine can only slow a round down
IMAGES = 64
STATES, BLOCKS = 33, 32
TOKENS, WIDTH = 576, 4096
# Images, tokens and width of a layer of the built-in model, and of the 7B shape.
SHAPES = {"64 x 128": (64, 64, 128), "576 x 4096": (4, TOKENS, WIDTH)}

Naive = Callable[[NDArray[np.float64]], object]


def seconds(call: Callable[[], object], rounds: int = ROUNDS, device: str = "cpu") -> float:
    """Time of one call, the best of some after a warm-up; on the CPU the process's own time."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    best = float("inf")
    for _ in range(rounds + 1):
        if device != "cpu":
            torch.cuda.synchronize()
        start = clock()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, clock() - start)
    return best


def built_in() -> dict[str, float]:
    """The default set and the nulls against a forward pass of the built-in model."""
    spec = SceneComponent(scene=SceneSpec(image_size=112, objects=(1, 10)), tasks={"coarse": 1})
    source = open_source("scenes", spec)
    images = [source.example(index).image for index in range(IMAGES)]
    vlm = load_vlm("builtin:tiny-vllm")
    sums = position_sums(vlm, images)
    forward = seconds(lambda: visit(vlm, images, lambda *state: None))
    reduced = seconds(lambda: image_values(vlm, images, sums, IMAGES - 1))
    nulls = seconds(lambda: null_values(vlm, images, sums))
    return {
        "built-in model: forward pass, ms an image": 1000 * forward / IMAGES,
        "built-in model: default set / forward pass": (reduced - forward) / forward,
        "built-in model: one batch of nulls / forward pass": nulls / forward,
    }


def singular(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.svd(image, compute_uv=False)


def shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / values.sum()


def entropy(share: NDArray[np.float64]) -> float:
    share = share[share > 0]
    return float(-(share * np.log(share)).sum())


def norms(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(image, axis=1)


def cosines(image: NDArray[np.float64]) -> NDArray[np.float64]:
    units = image / norms(image)[:, None]
    return units @ units.T


def k_of(image: NDArray[np.float64], share: float) -> int:
    return int(np.argmax(shares(singular(image) ** 2).cumsum() >= share)) + 1


def naive_gini(image: NDArray[np.float64]) -> float:
    e = norms(image)
    return float(np.abs(e[:, None] - e).sum() / (2 * len(e) * e.sum()))


def naive_condition(image: NDArray[np.float64]) -> float:
    s = singular(image)
    return float(s[0] / s[int(np.argmax(shares(s**2).cumsum() >= 0.99))])


def naive_alpha(image: NDArray[np.float64]) -> float:
    i = np.arange(6, 31)
    return float(-np.polyfit(np.log(i), np.log(singular(image)[i - 1] ** 2), 1)[0])


def naive_similarity(image: NDArray[np.float64]) -> float:
    """Both similarities of the redundancy score, an image standing for its neighbour too."""
    return float((cosines(image) ** 2).sum() + (cosines(image) ** 2).sum())


# Metric: the public function of a layer's tokens, and the naive route for one image.
METRICS: dict[str, tuple[Callable[[Tensor], Any], Naive]] = {
    "gini": (lambda x: metrics.gini(metrics.token_norms(x)), naive_gini),
    "hoyer": (
        lambda x: metrics.hoyer(metrics.token_norms(x)),
        lambda x: norms(x).sum() / np.linalg.norm(norms(x)),
    ),
    "energy_entropy": (
        lambda x: metrics.energy_entropy(metrics.token_norms(x)),
        lambda x: entropy(shares(norms(x) ** 2)),
    ),
    "norm_cv": (
        lambda x: metrics.norm_cv(metrics.token_norms(x)),
        lambda x: norms(x).std() / norms(x).mean(),
    ),
    "sink_share": (
        lambda x: no_sinks(metrics.token_norms(x), torch.ones(x.shape[:-1], dtype=torch.bool)),
        lambda x: (norms(x) > 3 * np.median(norms(x))).mean(),
    ),
    "mean_cosine": (metrics.mean_cosine, lambda x: cosines(x).mean()),
    "participation_ratio": (
        metrics.participation_ratio,
        lambda x: 1 / (shares(singular(x) ** 2) ** 2).sum(),
    ),
    "stable_rank": (metrics.stable_rank, lambda x: 1 / shares(singular(x) ** 2)[0]),
    "effective_rank": (metrics.effective_rank, lambda x: np.exp(entropy(shares(singular(x))))),
    "von_neumann_entropy": (
        metrics.von_neumann_entropy,
        lambda x: entropy(shares(singular(x) ** 2)),
    ),
    "numerical_rank": (
        metrics.numerical_rank,
        lambda x: (lambda s: (s > 0.01 * s[0]).sum())(singular(x)),
    ),
    "spectral_k90": (lambda x: metrics.spectral_k(x, share=0.9), lambda x: k_of(x, 0.9)),
    "spectral_k95": (lambda x: metrics.spectral_k(x, share=0.95), lambda x: k_of(x, 0.95)),
    "spectral_k99": (lambda x: metrics.spectral_k(x, share=0.99), lambda x: k_of(x, 0.99)),
    "condition_number": (lambda x: metrics.condition_number(x, share=0.99), naive_condition),
    "alpha_req": (lambda x: metrics.alpha_req(x, window=(6, 30)), naive_alpha),
    "top_subspace": (
        lambda x: metrics.top_subspace(x, 5),
        lambda x: np.linalg.svd(x, full_matrices=False)[2][:5],
    ),
    "redundancy_score": (
        lambda x: metrics.redundancy_score(x, centre="none", pairs="ring"),
        naive_similarity,
    ),
}


def against_naive(name: str, shape: tuple[int, int, int]) -> dict[str, float]:
    """Times faster than the naive route: each metric alone, and the set against all of them."""
    tokens = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images = list(tokens.double().numpy())
    rounds = 1 if shape[1] == TOKENS else ROUNDS
    naive = {
        metric: seconds(lambda one=one: [one(image) for image in images], rounds)
        for metric, (_, one) in METRICS.items()
    }
    result = {
        f"{name}: {metric}, times faster than naive": naive[metric]
        / seconds(lambda ours=ours: ours(tokens), rounds)
        for metric, (ours, _) in METRICS.items()
    }
    own = default_set(tokens)
    whole = seconds(own, rounds)
    result[f"{name}: default set, ms an image and layer"] = 1000 * whole / len(tokens)
    result[f"{name}: default set, times faster than naive"] = sum(naive.values()) / whole
    return result


def default_set(tokens: Tensor) -> Callable[[], object]:
    """A call that measures a layer's states, the first image standing for the next one too."""
    ring = torch.arange(len(tokens) + 1, device=tokens.device) % len(tokens)
    exists = torch.ones(len(ring), tokens.shape[1], dtype=torch.bool, device=tokens.device)
    mean, states = tokens.double().mean(0), tokens[ring]
    return lambda: layer_values(states, exists, mean, tokens.shape[1])


def against_decoder(device: str, dtype: torch.dtype, images: int, blocks: int) -> dict[str, float]:
    """The default set of all states of a 7B-shaped decoder against the pass through its blocks."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=11008, num_hidden_layers=blocks,
        num_attention_heads=32, vocab_size=32, dtype=dtype,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        decoder = LlamaModel(config).to(dtype).eval()
    states = torch.randn(images, TOKENS, WIDTH, device=device, dtype=dtype)

    def forward() -> None:
        with torch.inference_mode():
            decoder(inputs_embeds=states, use_cache=False)

    passed = seconds(forward, device=device) * BLOCKS / blocks
    measured = seconds(default_set(states), device=device) * STATES
    name = f"7B shape on {device}"
    return {
        f"{name}: forward pass, ms an image": 1000 * passed / images,
        f"{name}: default set of {STATES} states, ms an image": 1000 * measured / images,
        f"{name}: default set / forward pass": measured / passed,
    }


def main() -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    result: dict[str, float] = {}
    with threadpool_limits(1):
        for part in (
            built_in,
            *(lambda n=n, s=s: against_naive(n, s) for n, s in SHAPES.items()),
            lambda: against_decoder("cpu", torch.float32, images=1, blocks=1),
        ):
            found = part()
            for name, value in found.items():
                print(f"{name:65s} {value:10.3f}", flush=True)
            result |= found
        if torch.cuda.is_available():
            found = against_decoder("cuda", torch.bfloat16, images=8, blocks=4)
            for name, value in found.items():
                print(f"{name:65s} {value:10.3f}")
            result |= found
        else:
            print("7B shape on a GPU: no GPU: not measured")
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
