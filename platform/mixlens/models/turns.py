"""Several turns about one image in one sequence, none of which sees another.

The tokens up to the end of the image stand once; then come the turns, each a conversation of its
own: it attends to the image and to itself, and its positions go on from the image. So a turn is
trained exactly as it is asked later, alone, and the visual tokens are paid for once. Several images
with their turns may share a row, in which likewise none sees another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

IGNORED = -100
IMAGE_OF_TOKEN = "image_of_token"  # in a training batch; `Adapter.training_batch` says what it is


@dataclass(frozen=True)
class TurnTokens:
    """The tokens of a turn behind the image; labels are -100 but at its answer."""

    ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Item:
    """An image's tokens, once, and the turns about it.

    Attributes:
        shared: tokens up to the end of the image; none where there is no image.
        positions: their position ids, one row an axis.
        both_ways: which of the shared tokens see each other in both directions.
        turns: what stands behind.
    """

    shared: Int[Tensor, " shared"]
    positions: Int[Tensor, "axes shared"]
    both_ways: Bool[Tensor, " shared"]
    turns: Sequence[TurnTokens]

    def __len__(self) -> int:
        return len(self.shared) + sum(len(turn.ids) for turn in self.turns)


@dataclass(frozen=True)
class Packed:
    """Rows of `items_a_row` consecutive items each, padded on the right.

    Attributes:
        input_ids: tokens.
        labels: -100 but at answers.
        position_ids: of each token, one plane an axis.
        item: which item of the batch a token belongs to; -1: padding.
        turn: which of the item's turns, from 1; 0: its shared tokens; -1: padding.
        both_ways: which tokens see those of their item in both directions.
        sees: which positions each position attends to.
    """

    input_ids: Int[Tensor, "rows seq"]
    labels: Int[Tensor, "rows seq"]
    position_ids: Int[Tensor, "axes rows seq"]
    item: Int[Tensor, "rows seq"]
    turn: Int[Tensor, "rows seq"]
    both_ways: Bool[Tensor, "rows seq"]
    sees: Bool[Tensor, "rows seq seq"]


def items_a_row(lengths: Sequence[int], width: int) -> int:
    """How many consecutive items share a row, so that there is least to compute.

    More items a row leave less padding, all in one row none, and longer rows to attend over. A
    block of the decoder costs about 24 width^2 operations a position in its products and 4 width
    seq in its attention, which is counted in full, because a kernel that is given a mask computes
    what the mask then hides. All rows get equally many items, so that they stay alike in images.

    Args:
        lengths: positions of each item.
        width: of the decoder's states.
    """

    def cost(each: int) -> float:
        starts = range(0, len(lengths), each)
        longest = max(sum(lengths[first : first + each]) for first in starts)
        return len(starts) * longest * (1 + longest / (6 * width))

    divisors = [each for each in range(1, len(lengths) + 1) if len(lengths) % each == 0]
    return min(divisors, key=cost)


def pack(items: Sequence[Item], each: int, pad_id: int) -> Packed:
    """Lay out items, `each` a row (a divisor of their number)."""
    rows = [items[first : first + each] for first in range(0, len(items), each)]
    shape = len(rows), max(sum(map(len, row)) for row in rows)
    axes = len(items[0].positions)
    ids, labels = torch.full(shape, pad_id), torch.full(shape, IGNORED)
    positions = torch.zeros(axes, *shape, dtype=torch.long)
    item_of, turn_of = torch.full(shape, -1), torch.full(shape, -1)
    both_ways = torch.zeros(shape, dtype=torch.bool)
    for row, members in enumerate(rows):
        end = 0
        for place, item in enumerate(members, start=row * each):
            start, end = end, end + len(item.shared)
            ids[row, start:end] = item.shared
            positions[:, row, start:end] = item.positions
            both_ways[row, start:end] = item.both_ways
            item_of[row, start:end], turn_of[row, start:end] = place, 0
            follows = int(item.positions.max()) + 1 if len(item.shared) else 0
            for number, turn in enumerate(item.turns, start=1):
                start, end = end, end + len(turn.ids)
                ids[row, start:end] = torch.tensor(turn.ids)
                labels[row, start:end] = torch.tensor(turn.labels)
                positions[:, row, start:end] = torch.arange(follows, follows + len(turn.ids))
                item_of[row, start:end], turn_of[row, start:end] = place, number
    sees = _sees(item_of, turn_of, both_ways)
    return Packed(ids, labels, positions, item_of, turn_of, both_ways, sees)


def _sees(
    item: Int[Tensor, "rows seq"],
    turn: Int[Tensor, "rows seq"],
    both_ways: Bool[Tensor, "rows seq"],
) -> Bool[Tensor, "rows seq seq"]:
    same_item = (item[:, :, None] == item[:, None, :]) & (item >= 0)[:, None, :]
    same_turn = (turn[:, :, None] == turn[:, None, :]) | (turn == 0)[:, None, :]
    causal = torch.ones(item.shape[1], item.shape[1], dtype=torch.bool).tril()
    ordered = causal | (both_ways[:, :, None] & both_ways[:, None, :])
    sees = same_item & same_turn & ordered
    sees[:, :, 0] |= item < 0  # padding looks at something, so that no softmax is empty
    return sees


def count_tokens(attention_mask: Tensor) -> int:
    """Positions that are no padding, of a mask [batch, seq] or [batch, 1, seq, seq]."""
    if attention_mask.dim() == 2:
        return int(attention_mask.sum())
    return int(attention_mask.diagonal(dim1=-2, dim2=-1).sum())
