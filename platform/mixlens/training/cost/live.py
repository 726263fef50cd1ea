"""Bytes of all tensors that are alive, measured operation by operation: the estimator's judge."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """While it is entered, follows every storage that an operation makes until it is freed.

    On CPUs there is no allocator to ask. What kernels take inside and give back is not seen.

    Attributes:
        now: bytes alive that were seen being made, or told by `watch`.
        peak: the most they ever were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were made before."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._alive or tensor.device.type == "meta":
                continue
            self._alive.add(key)
            size = storage.nbytes()
            self.now += size
            weakref.finalize(storage, self._freed, key, size)
        self.peak = max(self.peak, self.now)

    def _freed(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.watch(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out


def live_peak(step: Callable[[], object], held: Iterable[Tensor]) -> int:
    """Peak bytes alive during `step()`, the tensors `held` before it included."""
    with LiveBytes() as live:
        live.watch(held)
        step()
        return live.peak


def cuda_peak(step: Callable[[], object]) -> int:
    """Peak bytes that PyTorch's allocator handed out on the current GPU during `step()`."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
