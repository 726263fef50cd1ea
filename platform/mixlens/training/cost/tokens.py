"""How many tokens a row of a micro-batch has, in each part of a vision LLM."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mixlens.models import Adapter
from mixlens.training.objective import before_answers


@dataclass(frozen=True)
class RowTokens:
    """Tokens of one row, padding included.

    Attributes:
        encoder: what the vision tower runs on, over all crops, tiles or images of the row.
        encoder_length: how many of them attend to each other: those of one crop in LLaVA-like
            families, of one image in Qwen-VL, of all padded tiles of an image in Llama 3.2 Vision.
        projected: what the projector gives the decoder.
        decoder: positions of the decoder's sequence. Visual tokens count where they stand in it,
            which they do in every family but those with cross-attention.
        logits: positions that the output layer is computed for.
        answers: positions whose token counts for the loss.
    """

    encoder: int
    encoder_length: int
    projected: int
    decoder: int
    logits: int
    answers: int


def tokens_of(adapter: Adapter, batch: dict[str, Tensor], examples: int) -> RowTokens:
    """Tokens an example of a training batch, padding included.

    Rows that hold several examples count as shorter ones: what longer rows add to attention is left
    out.
    """
    labels = batch["labels"]
    encoder, together = adapter.encoder_positions(batch)
    projected = adapter.visual_count(batch)
    return RowTokens(
        encoder=round(encoder / examples),
        encoder_length=together,
        projected=round(projected / examples),
        decoder=round(labels.numel() / examples),
        logits=round(len(before_answers(labels)) * len(labels) / examples),
        answers=round(int((labels[:, 1:] >= 0).sum()) / examples),
    )


def padding_share(batch: dict[str, Tensor]) -> float:
    """Share of the positions of a training batch that hold no token."""
    mask = batch["attention_mask"]
    present = mask if mask.dim() == 2 else torch.diagonal(mask[:, 0], dim1=-2, dim2=-1)
    return 1 - float(present.float().mean())
