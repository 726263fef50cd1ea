"""The tokens of real training batches."""

import torch
from torch import Tensor

from mixlens.models import Adapter
from mixlens.training.cost.tokens import RowTokens
from mixlens.training.objective import before_answers


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
