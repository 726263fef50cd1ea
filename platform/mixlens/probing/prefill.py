"""The decoder's pass over images of which some visual tokens are taken out, and what it costs.

Tokens that stay keep the positions they had, so that only the absence of others changes and every
distance between the rest stays. A deletion before a block makes the states, keys and values of that
block and of all later ones shorter; earlier blocks see every token.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mixlens.errors import CheckpointError, explain
from mixlens.evaluation.generate import Prefix, before_questions
from mixlens.models import Batch, DeletingAdapter, Vllm

Kwargs = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """Images as the decoder will read them.

    Attributes:
        ids: tokens up to the last visual one.
        present: which of them exist.
        visual: which of them stand for visual tokens, as many in each image.
        tokens: the visual tokens, as the projector gives them.
        seconds: what vision encoder and projector took for an image.
    """

    ids: Int[Tensor, "images seq"]
    present: Int[Tensor, "images seq"]
    visual: Bool[Tensor, "images seq"]
    tokens: Float[Tensor, "images tokens width"]
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What reading an image took.

    Attributes:
        seconds: wall-clock time of vision encoder, projector and decoder up to the last visual
            token. The choice of the tokens is not in it.
        peak_bytes: memory that the decoder needs for it at most, beyond the weights. On a GPU the
            allocator's peak; elsewhere reckoned from shapes: the cache that is left behind, and
            the largest block's scores and activations.
    """

    seconds: float
    peak_bytes: float


def look(vllm: Vllm, adapter: DeletingAdapter, batch: Batch, tokens: int | None = None) -> Look:
    """Encode the images of a `question_batch`.

    Args:
        vllm: the model.
        adapter: its adapter.
        batch: the images, on the model's device.
        tokens: None: as they are; else shrunk to give as nearly so many visual tokens as they can.
    """
    ids, present = before_questions(vllm, batch)
    visual = adapter.spans(ids, present).visual
    pixels = batch["pixel_values"]
    if tokens is not None:
        pixels = adapter.shrunk(pixels, tokens)
    start = _now(pixels.device)
    found = adapter.visual_tokens(vllm.model, pixels)
    seconds = (_now(pixels.device) - start) / len(ids)
    if tokens is not None:
        first = visual & (visual.cumsum(-1) <= found.shape[1])
        index, exists = _packing(present.bool() & (~visual | first))
        ids, present, visual = ids.gather(1, index), exists.long(), visual.gather(1, index) & exists
    if not bool((visual.sum(-1) == found.shape[1]).all()):
        raise CheckpointError(
            explain("model", vllm.path, "its processor and its vision encoder disagree on the "
                    "number of visual tokens", "Check its processor.")
        )  # fmt: skip
    return Look(ids, present, visual, found, seconds)


def prefill(
    vllm: Vllm, seen: Look, stays: Bool[Tensor, "images tokens"], layer: int
) -> tuple[Prefix, Cost]:
    """Read images without the visual tokens that do not stay.

    Args:
        vllm: the model.
        seen: the images.
        stays: which visual tokens stay; images may differ in how many.
        layer: the decoder block before which the others go; -1 (behind the vision encoder) and 0
            are the same place.

    Raises:
        CheckpointError: nothing would be left to read.
    """
    device = seen.ids.device
    positions = (seen.present.cumsum(-1) - 1).clamp_min(0)
    chosen = seen.present.bool()
    chosen[seen.visual] = stays.to(device).flatten()
    index, exists = _packing(chosen)
    if index.shape[1] == 0:
        raise CheckpointError(
            explain("model", vllm.path, "no text stands before the image, so nothing would be left "
                    "to read", "Leave out the share 1.")
        )  # fmt: skip
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    start = _now(device)
    kept = Prefix(None, exists.long(), seen.present.sum(-1))
    if layer <= 0:
        ids, visual = seen.ids.gather(1, index), seen.visual.gather(1, index) & exists
        tokens = seen.tokens[stays.to(device)]
        cache = _read(vllm, ids, visual, tokens, kept.present, positions.gather(1, index))
        prefix = Prefix(cache, kept.present, kept.start)
    else:
        blocks = vllm.adapter.blocks(vllm.model)["language"][layer:]
        with _shortened(blocks, index, exists):
            tokens = seen.tokens.flatten(0, 1)
            cache = _read(vllm, seen.ids, seen.visual, tokens, seen.present, positions)
        prefix = Prefix(cache, seen.present, kept.start, kept.present)
    seconds = (_now(device) - start) / len(index)
    if device.type == "cuda":
        peak = (torch.cuda.max_memory_allocated(device) - before) / len(index)
    else:
        peak = _reckoned(vllm.model.config.get_text_config(), cache, prefix.present.shape[1])
    return prefix, Cost(seen.seconds + seconds, peak)


@contextmanager
def late_keys(
    blocks: Sequence[nn.Module], present: Int[Tensor, "rows keys"], queries: int
) -> Iterator[None]:
    """Inside, these blocks mask the keys of their own, shorter cache."""
    masks: dict[torch.dtype, Tensor] = {}

    def change(place: int, args: tuple[Any, ...], kwargs: Kwargs) -> tuple[Any, Kwargs]:
        dtype = args[0].dtype
        if dtype not in masks:
            masks[dtype] = _causal(present, queries, dtype)
        return args, {**kwargs, "attention_mask": masks[dtype]}

    with _changed(blocks, change):
        yield


@contextmanager
def _shortened(
    blocks: Sequence[nn.Module], index: Int[Tensor, "rows kept"], exists: Bool[Tensor, "rows kept"]
) -> Iterator[None]:
    """Inside, the first of these blocks drops all places but these, and the others go on so."""

    def pick(states: Tensor) -> Tensor:
        return states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))

    def change(place: int, args: tuple[Any, ...], kwargs: Kwargs) -> tuple[Any, Kwargs]:
        states = pick(args[0]) if place == 0 else args[0]
        return (states, *args[1:]), {
            **kwargs,
            "attention_mask": _causal(exists, index.shape[1], states.dtype),
            "position_embeddings": tuple(pick(part) for part in kwargs["position_embeddings"]),
            "position_ids": kwargs["position_ids"].gather(1, index),
        }

    with _changed(blocks, change):
        yield


@contextmanager
def _changed(
    blocks: Sequence[nn.Module],
    change: Callable[[int, tuple[Any, ...], Kwargs], tuple[Any, Kwargs]],
) -> Iterator[None]:
    """Inside, the blocks are called with what `change(place, args, kwargs)` makes of a call."""

    def hook_of(place: int) -> Callable[..., tuple[Any, Kwargs]]:
        return lambda module, args, kwargs: change(place, args, kwargs)

    handles = [
        block.register_forward_pre_hook(hook_of(place), with_kwargs=True)
        for place, block in enumerate(blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _read(
    vllm: Vllm,
    ids: Int[Tensor, "images seq"],
    visual: Bool[Tensor, "images seq"],
    tokens: Float[Tensor, "visual width"],
    present: Int[Tensor, "images seq"],
    positions: Int[Tensor, "images seq"],
) -> Any:
    """The keys and values of a pass over text and visual tokens, in the order of their places."""
    embedded = vllm.model.get_input_embeddings()(ids)
    embedded[visual] = tokens.to(embedded.dtype)
    out = vllm.model(
        inputs_embeds=embedded,
        attention_mask=present,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
    )
    return out.past_key_values


def _packing(
    chosen: Bool[Tensor, "rows seq"],
) -> tuple[Int[Tensor, "rows kept"], Bool[Tensor, "rows kept"]]:
    """Where the chosen places of each row are, in order, left-padded, and which exist."""
    most = int(chosen.sum(-1).max())
    index = chosen.long().argsort(dim=-1, stable=True)[:, chosen.shape[1] - most :]
    return index, chosen.gather(1, index)


def _causal(
    present: Tensor, queries: int, dtype: torch.dtype
) -> Float[Tensor, "rows 1 queries keys"]:
    """What is added to scores: 0 where a query may see a key, the lowest number elsewhere."""
    keys = present.shape[1]
    at = torch.arange(keys, device=present.device)
    sees = (at <= at[keys - queries :, None]) & present.bool()[:, None, None]
    return torch.zeros(sees.shape, dtype=dtype, device=present.device).masked_fill(
        ~sees, torch.finfo(dtype).min
    )


def _reckoned(config: Any, cache: Any, longest: int) -> float:
    """Bytes an image: its keys and values, and the working memory of a block of `longest` tokens.

    The block holds its input, the queries, keys, values and output (5 widths), three times the
    inner width of its feed-forward layer, and the scores of its heads before and after softmax.
    """
    held = sum(part.nbytes for layer in cache.layers for part in (layer.keys, layer.values))
    first = cache.layers[0].keys
    scores = 2 * config.num_attention_heads * longest**2
    states = longest * (5 * config.hidden_size + 3 * config.intermediate_size)
    return held / len(first) + first.element_size() * (scores + states)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
