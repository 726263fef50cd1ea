"""Greedy answers to many questions about few images: each image is read once."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mixlens.models import Vllm
from mixlens.models.adapter import Image

# The text behind the image does not depend on the image, so it is tokenised behind a small one.
_STAND_IN = np.zeros((32, 32, 3), np.uint8)


@dataclass(frozen=True)
class Prefix:
    """What the decoder has read of each image: everything up to its last visual token.

    Attributes:
        cache: keys and values of every decoder block.
        present: which places of the first block's cache hold a token.
        start: position of the first token behind.
        late: which places hold one in the caches of the blocks behind a deletion; None: as in the
            first block.
    """

    cache: Any
    present: Int[Tensor, "images tokens"]
    start: Int[Tensor, " images"]
    late: Int[Tensor, "images kept"] | None = None


@dataclass(frozen=True)
class Asked:
    """The tokens of questions behind their image, left-padded."""

    ids: Int[Tensor, "questions tokens"]
    present: Int[Tensor, "questions tokens"]


Passes = Callable[[Tensor, int], AbstractContextManager[None]]
"""Wraps a pass of so many tokens whose later blocks see other keys [questions, keys]."""


@torch.inference_mode()
def generate(
    vllm: Vllm,
    images: Sequence[Image],
    questions: Sequence[str],
    image_of: Sequence[int],
    limits: Sequence[int],
) -> list[tuple[str, bool]]:
    """Answer each question about its image as the first turn of a conversation.

    The most probable token at every step, like `model.generate(do_sample=False)`, but everything up
    to the last visual token is computed once an image and shared by its questions. This is exact in
    a causal decoder, where nothing before a question can depend on it.

    Args:
        vllm: the model.
        images: the images.
        questions: what is asked.
        image_of: for each question the place of its image in `images`.
        limits: for each question the most tokens its answer may have.

    Returns:
        For each question the answer, and whether it ended before its limit.
    """
    device = next(vllm.model.parameters()).device
    shown = {
        name: tensor.to(device)
        for name, tensor in vllm.adapter.question_batch(images, [""] * len(images)).items()
    }
    ids, present = before_questions(vllm, shown)
    shown.update(input_ids=ids, attention_mask=present, position_ids=_positions(present))
    out = vllm.model(**shown, use_cache=True, logits_to_keep=1)
    prefix = Prefix(out.past_key_values, present, present.sum(-1))
    return respond(vllm, prefix, asked_tokens(vllm, questions), image_of, limits)


def before_questions(
    vllm: Vllm, batch: dict[str, Tensor]
) -> tuple[Int[Tensor, "images tokens"], Int[Tensor, "images tokens"]]:
    """Of a `question_batch` the tokens up to the last visual one, left-padded, and which exist."""
    before, _ = _split(vllm, batch)
    return _packed(batch["input_ids"], before)


def asked_tokens(vllm: Vllm, questions: Sequence[str]) -> Asked:
    """The questions as they stand behind any image."""
    device = next(vllm.model.parameters()).device
    batch = vllm.adapter.question_batch([_STAND_IN] * len(questions), questions)
    batch = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
    _, behind = _split(vllm, batch)
    return Asked(*_packed(batch["input_ids"], behind))


@torch.inference_mode()
def respond(
    vllm: Vllm,
    prefix: Prefix,
    asked: Asked,
    image_of: Sequence[int],
    limits: Sequence[int],
    late_keys: Passes = lambda keys, queries: nullcontext(),
) -> list[tuple[str, bool]]:
    """The answers of `generate` for images that were already read; uses up `prefix.cache`.

    Args:
        vllm: the model.
        prefix: the images.
        asked: the questions.
        image_of: for each question the place of its image in `prefix`.
        limits: for each question the most tokens its answer may have.
        late_keys: wraps each pass where `prefix.late` differs from `prefix.present`.
    """
    model, device, questions = vllm.model, prefix.present.device, len(image_of)
    owner = torch.tensor(image_of, device=device)
    cache, mask, at = prefix.cache, prefix.present[owner], prefix.start[owner]
    late = mask if prefix.late is None else prefix.late[owner]
    cache.batch_select_indices(owner)
    ids, present = asked.ids, asked.present

    ends = torch.tensor(_end_tokens(vllm), device=device)
    limit = torch.tensor(limits, device=device)
    said = torch.zeros(questions, max(limits), dtype=torch.long, device=device)
    length = limit.clone()
    finished = torch.zeros(questions, dtype=torch.bool, device=device)
    rows = torch.arange(questions, device=device)  # the questions still being answered
    for step in range(max(limits)):
        mask, late = torch.cat([mask, present], 1), torch.cat([late, present], 1)
        with late_keys(late, ids.shape[1]):
            out = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=at[:, None] + _positions(present),
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        at = at + present.sum(-1)
        token = out.logits[:, -1].argmax(-1)
        ended = torch.isin(token, ends)
        said[rows, step] = token
        length[rows[ended]] = step
        finished[rows[ended]] = True
        going = ~ended & (step + 1 < limit[rows])
        if not going.any():
            break
        if going.sum() <= 0.8 * len(rows):  # below that, dropping rows costs more than it saves
            keep = going.nonzero()[:, 0]
            rows, token, at = rows[keep], token[keep], at[keep]
            mask, late = mask[keep], late[keep]
            cache.batch_select_indices(keep)
        ids, present = token[:, None], torch.ones_like(token[:, None])
    return [
        (_text(vllm, row[:end]), bool(done))
        for row, end, done in zip(said.tolist(), length.tolist(), finished.tolist(), strict=True)
    ]


def _split(
    vllm: Vllm, batch: dict[str, Tensor]
) -> tuple[Bool[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
    """Positions up to the last visual token, and the ones behind it; padding is neither."""
    present = batch["attention_mask"].bool()
    visual = vllm.adapter.spans(batch["input_ids"], batch["attention_mask"]).visual
    behind = present & (visual.flip(-1).long().cumsum(-1).flip(-1) == 0)
    return present & ~behind, behind


def _packed(
    ids: Int[Tensor, "batch seq"], chosen: Bool[Tensor, "batch seq"]
) -> tuple[Int[Tensor, "batch tokens"], Int[Tensor, "batch tokens"]]:
    """The chosen tokens in order, left-padded, and which positions hold one."""
    most = int(chosen.sum(-1).max())
    index = chosen.long().argsort(dim=-1, stable=True)[:, chosen.shape[1] - most :]
    return ids.gather(1, index), chosen.gather(1, index).long()


def _positions(mask: Int[Tensor, "batch seq"]) -> Int[Tensor, "batch seq"]:
    """Position ids that count what the mask holds."""
    return (mask.cumsum(-1) - 1).clamp_min(0)


def _end_tokens(vllm: Vllm) -> list[int]:
    ends: Any = vllm.model.generation_config.eos_token_id
    if ends is None:
        ends = vllm.processor.tokenizer.eos_token_id
    return list(ends) if isinstance(ends, list | tuple) else [ends]


def _text(vllm: Vllm, tokens: list[int]) -> str:
    return str(vllm.processor.tokenizer.decode(tokens, skip_special_tokens=True)).strip()
