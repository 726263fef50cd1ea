"""The decoder's pass over images of which some visual tokens are taken out, and what it costs.

Tokens that stay keep the positions they had, so that only the absence of others changes and every
distance between the rest stays. A deletion before a block makes the states, keys and values of that
block and of all later ones shorter; earlier blocks see every token. Of a decoder that reads the
image by cross-attention, the keys and values of the image become fewer, in the same blocks.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mixlens.errors import CheckpointError, explain
from mixlens.evaluation.generate import Passes, Prefix, next_position
from mixlens.models import VLM, Batch, Encoded
from mixlens.models.family import TOKEN_TYPES
from mixlens.probing.blocks import causal, changed, picked, seen_of

Kwargs = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """Images as the decoder will read them.

    Attributes:
        batch: their `image_batch`, on the model's device.
        positions: position ids.
        visual: which places of the decoder's sequence hold visual tokens.
        encoded: the visual tokens, as the projector gives them.
        seconds: what vision encoder and projector took for an image.
    """

    batch: Batch
    positions: Tensor
    visual: Bool[Tensor, "images seq"]
    encoded: Encoded
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What reading an image took.

    Attributes:
        seconds: wall-clock time of vision encoder, projector and decoder up to the image's end. The
            choice of the tokens is not in it.
        peak_bytes: memory that the decoder needs for it at most, beyond the weights. On a GPU the
            allocator's peak; elsewhere reckoned from shapes: the cache that is left behind, and
            the largest block's scores and activations.
    """

    seconds: float
    peak_bytes: float


@dataclass(frozen=True)
class Read:
    """Images that the decoder has read.

    Attributes:
        prefix: what `respond` goes on from.
        cost: what reading took.
        passes: what wraps each later pass, because some blocks hold fewer keys.
    """

    prefix: Prefix
    cost: Cost
    passes: Passes


def look(vlm: VLM, batch: Batch) -> Look:
    """Encode the images of an `image_batch` that is on the model's device."""
    adapter, device = vlm.adapter, batch["input_ids"].device
    visual = adapter.spans(batch["input_ids"], batch["attention_mask"]).visual
    start = _now(device)
    encoded = adapter.encode(vlm.model, batch)
    seconds = (_now(device) - start) / len(visual)
    return Look(batch, adapter.positions(batch), visual, encoded, seconds)


def prefill(vlm: VLM, seen: Look, stays: Bool[Tensor, "images tokens"], layer: int) -> Read:
    """Read images without the visual tokens that do not stay.

    Args:
        vlm: the model.
        seen: the images.
        stays: which visual tokens stay; images may differ in how many.
        layer: the decoder block before which the others go; -1 (behind the vision encoder) and 0
            are the same place.

    Raises:
        CheckpointError: nothing would be left to read.
    """
    device = seen.visual.device
    stays = stays.to(device) & seen.encoded.exists
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    start = _now(device)
    crossed = bool(vlm.adapter.cross_attention(vlm.model))
    read = _read_beside if crossed else _read_in_sequence
    prefix, passes = read(vlm, seen, stays, layer)
    seconds = (_now(device) - start) / len(stays)
    if device.type == "cuda":
        peak = (torch.cuda.max_memory_allocated(device) - before) / len(stays)
    else:
        peak = _reckoned(vlm.model.config.get_text_config(), prefix)
    return Read(prefix, Cost(seen.seconds + seconds, peak), passes)


def _read_in_sequence(
    vlm: VLM, seen: Look, stays: Bool[Tensor, "images tokens"], layer: int
) -> tuple[Prefix, Passes]:
    """Where visual tokens stand in the decoder's sequence."""
    batch, whole = seen.batch, seen.batch["attention_mask"]
    chosen = whole.bool().clone()
    chosen[seen.visual] = stays[seen.encoded.exists]
    index, exists = packing(chosen)
    if index.shape[1] == 0:
        raise CheckpointError(
            explain("model", vlm.path, "no text stands before the image, so nothing would be left "
                    "to read", "Leave out the share 1.")
        )  # fmt: skip
    start = next_position(seen.positions)
    if layer <= 0:
        cache = _pass(vlm, seen, stays, index, exists)
        return Prefix(cache, exists.long(), start, behind=vlm.adapter.behind(batch)), _as_it_is
    late = vlm.adapter.blocks(vlm.model)["language"][layer:]
    everything = torch.arange(whole.shape[1], device=whole.device).expand_as(whole)
    with _shortened(late, index, exists):
        cache = _pass(vlm, seen, seen.encoded.exists, everything, whole.bool())

    @contextmanager
    def passes(keys: Int[Tensor, "rows keys"], queries: int) -> Iterator[None]:
        def change(place: int, states: Tensor, kwargs: Kwargs) -> tuple[Tensor, Kwargs]:
            mask = causal(keys, queries, states.dtype)
            # Blocks that look back a window of places only have forgotten earlier keys.
            held = _cache_among(kwargs).layers[layer + place].keys.shape[2] + queries
            return states, {**kwargs, "attention_mask": mask[..., -held:]}

        with changed(late, change):
            yield

    behind = vlm.adapter.behind(batch)
    return Prefix(cache, whole, start, exists.long(), behind), passes


def _cache_among(kwargs: Kwargs) -> Any:
    """The cache that a block is given: `past_key_values`, from transformers 5.24 on `cache`."""
    from transformers import Cache

    return next(value for value in kwargs.values() if isinstance(value, Cache))


def _pass(
    vlm: VLM,
    seen: Look,
    stays: Bool[Tensor, "images tokens"],
    index: Int[Tensor, "images kept"],
    exists: Bool[Tensor, "images kept"],
) -> Any:
    """The keys and values of a pass over the places `index` of the images."""
    padding = vlm.processor.tokenizer.pad_token_id or 0
    # What stands at a place of padding could be a placeholder whose token is gone.
    kept = {
        name: seen.batch[name].gather(1, index).masked_fill(~exists, padding if at == 0 else 0)
        for at, name in enumerate(("input_ids", *TOKEN_TYPES))
        if name in seen.batch
    }
    planes = seen.positions.dim() == 3
    at = index.expand(len(seen.positions), -1, -1) if planes else index
    out = vlm.model(
        **kept,
        attention_mask=exists.long(),
        position_ids=seen.positions.gather(-1, at),
        use_cache=True,
        logits_to_keep=1,
        **vlm.adapter.without(seen.batch, seen.encoded, stays),
    )
    return out.past_key_values


@contextmanager
def _shortened(
    blocks: Sequence[Any], index: Int[Tensor, "rows kept"], exists: Bool[Tensor, "rows kept"]
) -> Iterator[None]:
    """Inside, the first of these blocks drops all places but these, and the others go on so."""

    def change(place: int, states: Tensor, kwargs: Kwargs) -> tuple[Tensor, Kwargs]:
        positions = kwargs.get("position_ids")
        if positions is not None:
            planes = positions.shape[:-2]
            kwargs = kwargs | {"position_ids": positions.gather(-1, index.expand(*planes, -1, -1))}
        return picked(states, index) if place == 0 else states, kwargs | {
            "attention_mask": seen_of(kwargs["attention_mask"], index, exists, states.dtype),
            "position_embeddings": tuple(
                picked(part, index) for part in kwargs["position_embeddings"]
            ),
        }

    with changed(blocks, change):
        yield


def _read_beside(
    vlm: VLM, seen: Look, stays: Bool[Tensor, "images tokens"], layer: int
) -> tuple[Prefix, Passes]:
    """Where the decoder reads visual tokens by cross-attention."""
    blocks = vlm.adapter.blocks(vlm.model)["language"]
    late = [blocks[i] for i in vlm.adapter.cross_attention(vlm.model) if i >= layer]
    # Tokens of empty tiles are no visual tokens and stay: what stands before the image sees them.
    index, there = packing(stays | ~seen.encoded.exists)
    if index.shape[1] == 0:
        index, there = torch.zeros_like(stays[:, :1], dtype=torch.long), stays[:, :1]
    exists = there & seen.encoded.exists.gather(1, index)
    # Of an image of which nothing stays, keys and values are zeros: attention to it adds nothing.
    left = exists.any(-1)[:, None, None]

    def fewer(place: int, states: Tensor, kwargs: Kwargs) -> tuple[Tensor, Kwargs]:
        kept = picked(kwargs["cross_attention_states"], index)
        mask = kwargs["cross_attention_mask"]
        mask = mask.gather(-1, index[:, None, None].expand(*mask.shape[:3], -1))
        hidden = ~there[:, None, None] & left[..., None]
        return states, kwargs | {
            "cross_attention_states": kept * left,
            "cross_attention_mask": mask.masked_fill(hidden, torch.finfo(mask.dtype).min),
        }

    with changed(late, fewer):
        out = vlm.model(
            input_ids=seen.batch["input_ids"],
            attention_mask=seen.batch["attention_mask"],
            position_ids=seen.positions,
            use_cache=True,
            logits_to_keep=1,
            **vlm.adapter.without(seen.batch, seen.encoded, stays),
        )

    @contextmanager
    def passes(keys: Int[Tensor, "rows keys"], queries: int) -> Iterator[None]:
        kept = keys[:, None, None, : index.shape[1]].bool()

        def change(place: int, states: Tensor, kwargs: Kwargs) -> tuple[Tensor, Kwargs]:
            mask = torch.zeros(len(kept), 1, queries, index.shape[1], device=kept.device)
            mask = mask.to(states.dtype).masked_fill(~kept, torch.finfo(states.dtype).min)
            return states, kwargs | {"cross_attention_mask": mask}

        with changed(late, change):
            yield

    return Prefix(
        out.past_key_values,
        seen.batch["attention_mask"],
        next_position(seen.positions),
        exists.long(),
        vlm.adapter.behind(seen.batch),
    ), passes


def packing(
    chosen: Bool[Tensor, "rows places"],
) -> tuple[Int[Tensor, "rows kept"], Bool[Tensor, "rows kept"]]:
    """Where the chosen places of each row are, in order, left-padded, and which exist."""
    most = int(chosen.sum(-1).max())
    index = chosen.long().argsort(dim=-1, stable=True)[:, chosen.shape[1] - most :]
    return index, chosen.gather(1, index)


def _as_it_is(keys: Tensor, queries: int) -> nullcontext[None]:
    return nullcontext()


def _reckoned(config: Any, prefix: Prefix) -> float:
    """Bytes an image: its keys and values, and the working memory of the block with most of them.

    The block holds its input, the queries, keys, values and output (5 widths), three times the
    inner width of its feed-forward layer, and the scores of its heads before and after softmax.
    """
    layers = prefix.cache.layers
    held = sum(part.nbytes for layer in layers for part in (layer.keys, layer.values))
    first, queries = layers[0].keys, prefix.present.shape[1]
    keys = max(layer.keys.shape[2] for layer in layers)
    scores = 2 * config.num_attention_heads * queries * keys
    states = queries * (5 * config.hidden_size + 3 * config.intermediate_size)
    return held / len(first) + first.element_size() * (scores + states)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
