"""Greedy answers to many questions about few images: each image is read once."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mixlens.models import VLM, Batch
from mixlens.models.adapter import Image


@dataclass(frozen=True)
class Prefix:
    """What the decoder has read of each image: everything up to the image's end.

    Attributes:
        cache: keys and values of every decoder block.
        present: which places of the first block's cache hold a token.
        start: position of the first token behind.
        late: which places hold one in the caches of the blocks behind a deletion; None: as in the
            first block.
        behind: what later passes need besides, [images, 1, ...] (`Adapter.behind`).
    """

    cache: Any
    present: Int[Tensor, "images tokens"]
    start: Int[Tensor, " images"]
    late: Int[Tensor, "images kept"] | None = None
    behind: Batch = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """The tokens of questions behind their image, left-padded."""

    ids: Int[Tensor, "questions tokens"]
    present: Int[Tensor, "questions tokens"]


Passes = Callable[[Tensor, int], AbstractContextManager[None]]
"""Wraps a pass of so many tokens whose later blocks see other keys [questions, keys]."""


def generate(
    vlm: VLM,
    images: Sequence[Image],
    questions: Sequence[str],
    image_of: Sequence[int],
    limits: Sequence[int],
) -> list[tuple[str, bool]]:
    """Answer each question about its image as the first turn of a conversation.

    The most probable token at every step, like `model.generate(do_sample=False)`, but everything up
    to the image's end is computed once an image and shared by its questions. This is exact in a
    causal decoder, where nothing before a question can depend on it.

    Args:
        vlm: the model.
        images: the images.
        questions: what is asked.
        image_of: for each question the place of its image in `images`.
        limits: for each question the most tokens its answer may have.

    Returns:
        For each question the answer, and whether it ended before its limit.
    """
    return [spoken(vlm, said) for said in say(vlm, images, questions, image_of, limits)]


@torch.inference_mode()
def say(
    vlm: VLM,
    images: Sequence[Image],
    questions: Sequence[str],
    image_of: Sequence[int],
    limits: Sequence[int],
) -> list[list[int]]:
    """`generate` in tokens: all that were made, the one that ends an answer among them."""
    shown = on_device(vlm, vlm.adapter.image_batch(images))
    positions = vlm.adapter.positions(shown)
    out = vlm.model(**shown, position_ids=positions, use_cache=True, logits_to_keep=1)
    prefix = Prefix(
        out.past_key_values,
        shown["attention_mask"],
        next_position(positions),
        behind=vlm.adapter.behind(shown),
    )
    return _say(vlm, prefix, asked_tokens(vlm, questions), image_of, limits)


def spoken(vlm: VLM, said: Sequence[int]) -> tuple[str, bool]:
    """The answer that tokens stand for, and whether it ended: what follows its end is no part."""
    ends = end_tokens(vlm)
    places = [place for place, token in enumerate(said) if token in ends]
    tokens = list(said[: places[0]] if places else said)
    text = vlm.processor.tokenizer.decode(tokens, skip_special_tokens=True)
    return str(text).strip(), bool(places)


def end_tokens(vlm: VLM) -> list[int]:
    """The tokens of which each ends an answer: those of the model, and the one it learns."""
    ends: Any = vlm.model.generation_config.eos_token_id
    if ends is None:
        ends = vlm.processor.tokenizer.eos_token_id
    own = list(ends) if isinstance(ends, list | tuple) else [ends]
    return list(dict.fromkeys([*own, vlm.adapter.end_token_id]))


def on_device(vlm: VLM, batch: Batch) -> Batch:
    """The tensors of a batch where the model is."""
    device = next(vlm.model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}


def next_position(
    positions: Int[Tensor, "images seq"] | Int[Tensor, "axes images seq"],
) -> Int[Tensor, " images"]:
    """The position of the token behind each image: one more than the largest so far."""
    largest = positions.amax(-1)
    return (largest.amax(0) if largest.dim() == 2 else largest) + 1


def asked_tokens(vlm: VLM, questions: Sequence[str]) -> Asked:
    """The questions as they stand behind any image."""
    device = next(vlm.model.parameters()).device
    told = vlm.adapter.question_tokens(questions)
    most = max(map(len, told))
    ids = torch.zeros(len(told), most, dtype=torch.long, device=device)
    present = torch.zeros_like(ids)
    for row, tokens in enumerate(told):
        ids[row, most - len(tokens) :] = torch.tensor(tokens)
        present[row, most - len(tokens) :] = 1
    return Asked(ids, present)


@torch.inference_mode()
def respond(
    vlm: VLM,
    prefix: Prefix,
    asked: Asked,
    image_of: Sequence[int],
    limits: Sequence[int],
    late_keys: Passes = lambda keys, queries: nullcontext(),
) -> list[tuple[str, bool]]:
    """The answers of `generate` for images that were already read; uses up `prefix.cache`.

    Questions are padded between image and question. Blocks that look back a window of places only
    would see less for it once a sequence is longer than that: then only questions of equal length
    go together.

    Args:
        vlm: the model.
        prefix: the images.
        asked: the questions.
        image_of: for each question the place of its image in `prefix`.
        limits: for each question the most tokens its answer may have.
        late_keys: wraps each pass where `prefix.late` differs from `prefix.present`.
    """
    return [spoken(vlm, said) for said in _say(vlm, prefix, asked, image_of, limits, late_keys)]


def _say(
    vlm: VLM,
    prefix: Prefix,
    asked: Asked,
    image_of: Sequence[int],
    limits: Sequence[int],
    late_keys: Passes = lambda keys, queries: nullcontext(),
) -> list[list[int]]:
    """`respond` in tokens."""
    longest = prefix.present.shape[1] + asked.ids.shape[1] + max(limits)
    if longest <= _window(vlm):
        return _say_together(vlm, prefix, asked, image_of, limits, late_keys)
    lengths = asked.present.sum(-1).tolist()
    said: dict[int, list[int]] = {}
    for length in sorted(set(lengths)):
        own = [number for number, other in enumerate(lengths) if other == length]
        part = Asked(asked.ids[own, -length:], asked.present[own, -length:])
        again = replace(prefix, cache=copy.deepcopy(prefix.cache))
        owners, most = [image_of[i] for i in own], [limits[i] for i in own]
        answers = _say_together(vlm, again, part, owners, most, late_keys)
        said |= dict(zip(own, answers, strict=True))
    return [said[number] for number in range(len(lengths))]


def _window(vlm: VLM) -> float:
    """How many places back every decoder block looks at least."""
    config = vlm.model.config.get_text_config()
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    return config.sliding_window if sliding else math.inf


def _say_together(
    vlm: VLM,
    prefix: Prefix,
    asked: Asked,
    image_of: Sequence[int],
    limits: Sequence[int],
    late_keys: Passes,
) -> list[list[int]]:
    """`_say` for questions that may be padded."""
    model, device, questions = vlm.model, prefix.present.device, len(image_of)
    owner = torch.tensor(image_of, device=device)
    cache, mask, at = prefix.cache, prefix.present[owner], prefix.start[owner]
    late = mask if prefix.late is None else prefix.late[owner]
    cache.batch_select_indices(owner)
    ids, present = asked.ids, asked.present

    ends = torch.tensor(end_tokens(vlm), device=device)
    length = torch.tensor(limits, device=device)
    said = torch.zeros(questions, max(limits), dtype=torch.long, device=device)
    rows = torch.arange(questions, device=device)  # the questions still being answered
    for step in range(max(limits)):
        mask, late = torch.cat([mask, present], 1), torch.cat([late, present], 1)
        queries = ids.shape[1]
        besides = {
            name: value[owner[rows]].expand(-1, queries, *value.shape[2:])
            for name, value in prefix.behind.items()
        }
        with late_keys(late, queries):
            out = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=at[:, None] + place_of(present),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **besides,
            )
        at = at + present.sum(-1)
        token = out.logits[:, -1].argmax(-1)
        ended = torch.isin(token, ends)
        said[rows, step] = token
        # A row that has its answer may stay for a while, and end again: that counts no more.
        length[rows[ended]] = length[rows[ended]].clamp_max(step + 1)
        going = step + 1 < length[rows]
        if not going.any():
            break
        if going.sum() <= 0.8 * len(rows):  # below that, dropping rows costs more than it saves
            keep = going.nonzero()[:, 0]
            rows, token, at = rows[keep], token[keep], at[keep]
            mask, late = mask[keep], late[keep]
            cache.batch_select_indices(keep)
        ids, present = token[:, None], torch.ones_like(token[:, None])
    return [row[:end] for row, end in zip(said.tolist(), length.tolist(), strict=True)]


def place_of(mask: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """How many tokens of the mask stand before each one."""
    return (mask.cumsum(-1) - 1).clamp_min(0)
