"""Several turns about one image in one sequence, none of which sees another.

The tokens up to the image stand once; then come the turns, each a conversation of its own: it
attends to the image and to itself, and its positions go on from the image. So a turn is trained
exactly as it is asked later, alone, and the visual tokens are paid for once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SHARED = 0  # the tokens up to the image; the turns are 1, 2, ...
PADDING = -1


@dataclass(frozen=True)
class TurnTokens:
    """The tokens of a turn behind the image; labels are -100 but at its answer."""

    ids: list[int]
    labels: list[int]


def pack(
    shared: Sequence[Sequence[int]], turns: Sequence[Sequence[TurnTokens]], pad_id: int
) -> dict[str, Tensor]:
    """One row an image: its shared tokens, then its turns, padded on the right.

    Returns:
        input_ids, labels, position_ids [images, seq], and attention_mask [images, 1, seq, seq],
        which is added to the attention scores: 0, or the lowest float32 where a position must not
        look.
    """
    lengths = [
        len(first) + sum(len(turn.ids) for turn in rest)
        for first, rest in zip(shared, turns, strict=True)
    ]
    shape = len(lengths), max(lengths)
    ids = torch.full(shape, pad_id)
    labels = torch.full(shape, -100)
    positions = torch.zeros(shape, dtype=torch.long)
    owner = torch.full(shape, PADDING)
    for row, (first, rest) in enumerate(zip(shared, turns, strict=True)):
        start = len(first)
        ids[row, :start] = torch.tensor(first)
        positions[row, :start] = torch.arange(start)
        owner[row, :start] = SHARED
        for number, turn in enumerate(rest, start=1):
            end = start + len(turn.ids)
            ids[row, start:end] = torch.tensor(turn.ids)
            labels[row, start:end] = torch.tensor(turn.labels)
            positions[row, start:end] = torch.arange(len(first), len(first) + len(turn.ids))
            owner[row, start:end] = number
            start = end
    return {
        "input_ids": ids,
        "labels": labels,
        "position_ids": positions,
        "attention_mask": _mask(owner),
    }


def _mask(owner: Int[Tensor, "images seq"]) -> Float[Tensor, "images 1 seq seq"]:
    query, key = owner[:, :, None], owner[:, None, :]
    seen = ((query == key) | (key == SHARED)) & (key != PADDING)
    seen &= torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool).tril()
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape).masked_fill(~seen, lowest)[:, None]


def count_tokens(attention_mask: Tensor) -> int:
    """Positions that are no padding, of a mask [batch, seq] or [batch, 1, seq, seq]."""
    if attention_mask.dim() == 2:
        return int(attention_mask.sum())
    return int((attention_mask.diagonal(dim1=-2, dim2=-1) == 0).sum())
