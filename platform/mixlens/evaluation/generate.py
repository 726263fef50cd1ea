"""Greedy answers to many questions about few images: each image is read once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mixlens.models import Vllm
from mixlens.models.adapter import Image

# The text behind the image does not depend on the image, so it is tokenised behind a small one.
_STAND_IN = np.zeros((32, 32, 3), np.uint8)


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
    model, device = vllm.model, next(vllm.model.parameters()).device
    owner = torch.tensor(image_of, device=device)
    shown = {
        name: tensor.to(device)
        for name, tensor in vllm.adapter.question_batch(images, [""] * len(images)).items()
    }
    before, _ = _split(vllm, shown)
    ids, present = _packed(shown["input_ids"], before)
    shown.update(input_ids=ids, attention_mask=present, position_ids=_positions(present))
    out = model(**shown, use_cache=True, logits_to_keep=1)
    cache, mask = out.past_key_values, present[owner]
    cache.batch_select_indices(owner)

    asked = vllm.adapter.question_batch([_STAND_IN] * len(questions), questions)
    asked = {name: asked[name].to(device) for name in ("input_ids", "attention_mask")}
    _, behind = _split(vllm, asked)
    ids, present = _packed(asked["input_ids"], behind)

    ends = torch.tensor(_end_tokens(vllm), device=device)
    limit = torch.tensor(limits, device=device)
    said = torch.zeros(len(questions), max(limits), dtype=torch.long, device=device)
    length = limit.clone()
    finished = torch.zeros(len(questions), dtype=torch.bool, device=device)
    rows = torch.arange(len(questions), device=device)  # the questions still being answered
    for step in range(max(limits)):
        mask = torch.cat([mask, present], 1)
        out = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=_positions(mask)[:, -ids.shape[1] :],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
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
            rows, mask, token = rows[keep], mask[keep], token[keep]
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
