"""Transformer blocks that are called with other arguments than their model gives them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor, nn

Kwargs = dict[str, Any]
Change = Callable[[int, Tensor, Kwargs], tuple[Tensor, Kwargs]]


@contextmanager
def changed(blocks: Sequence[nn.Module], change: Change) -> Iterator[None]:
    """Inside, the blocks are called with what `change(place, states, kwargs)` makes of a call."""

    def hook_of(place: int) -> Callable[..., tuple[Any, Kwargs]]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: Kwargs) -> tuple[Any, Kwargs]:
            states, given = change(place, args[0], kwargs)
            return (states, *args[1:]), given

        return hook

    handles = [
        block.register_forward_pre_hook(hook_of(place), with_kwargs=True)
        for place, block in enumerate(blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def picked(
    states: Shaped[Tensor, "*axes rows seq width"], index: Int[Tensor, "rows kept"]
) -> Shaped[Tensor, "*axes rows kept width"]:
    """The states at these places of each row."""
    wide = index[..., None].expand(*states.shape[:-3], -1, -1, states.shape[-1])
    return states.gather(-2, wide)


def causal(
    present: Tensor, queries: int, dtype: torch.dtype
) -> Shaped[Tensor, "rows 1 queries keys"]:
    """What is added to scores: 0 where a query may see a key, the lowest number elsewhere."""
    keys = present.shape[1]
    at = torch.arange(keys, device=present.device)
    sees = (at <= at[keys - queries :, None]) & present.bool()[:, None, None]
    return torch.zeros(sees.shape, dtype=dtype, device=present.device).masked_fill(
        ~sees, torch.finfo(dtype).min
    )


def seen_of(
    mask: Shaped[Tensor, "rows 1 seq seq"] | None,
    index: Int[Tensor, "rows kept"],
    exists: Bool[Tensor, "rows kept"],
    dtype: torch.dtype,
) -> Shaped[Tensor, "rows 1 kept kept"]:
    """The part of a block's mask between these places; no mask means a causal one."""
    if mask is None:
        return causal(exists, index.shape[1], dtype)
    rows = picked(mask, index[:, None])
    part = rows.gather(-1, index[:, None, None].expand(*rows.shape[:3], -1))
    hidden = ~exists[:, None, None]
    if mask.dtype == torch.bool:
        return part & ~hidden
    return part.masked_fill(hidden, torch.finfo(part.dtype).min)
