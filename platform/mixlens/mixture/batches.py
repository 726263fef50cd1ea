"""Which positions a rank trains on in a step, and the examples at those positions."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixlens.errors import SpecError, explain
from mixlens.mixture.decoding import Replacement
from mixlens.mixture.order import order_of
from mixlens.sources import open_source
from mixlens.sources.example import Example
from mixlens.spec import RunSpec

if TYPE_CHECKING:  # rendering processes import this file and need no torch
    from torch import Tensor

_REQUESTS = 16  # images that are fetched from an object store at once

Collate = Callable[[list[Example]], "dict[str, Tensor]"]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The examples of one forward pass on one rank.

    Attributes:
        positions: their positions in the mixture order.
        example_ids: `component/index`, one a position.
        components: their names, one a position.
        tensors: what collate made of the examples.
        replaced: what stands at some of the positions in place of a damaged photograph.
    """

    positions: list[int]
    example_ids: list[str]
    components: list[str]
    tensors: "dict[str, Tensor]"
    replaced: tuple[Replacement, ...] = ()


def micro_batch(
    positions: list[int],
    examples: list[Example],
    collate: Collate,
    replaced: tuple[Replacement, ...] = (),
) -> MicroBatch:
    """Collate decoded examples that were found at `positions`."""
    return MicroBatch(
        positions=positions,
        example_ids=[example.example_id for example in examples],
        components=[example.component for example in examples],
        tensors=collate(examples),
        replaced=replaced,
    )


def accumulation(run: RunSpec, world_size: int) -> int:
    """Micro-batches a rank has in an optimiser step.

    Raises:
        SpecError: that many workers cannot share a global batch evenly.
    """
    batch, rows = run.training.global_batch, run.training.micro_batch * world_size
    if batch % rows:
        raise SpecError(
            explain(
                "training.global_batch",
                batch,
                f"no multiple of micro_batch x workers = {run.training.micro_batch} x {world_size}",
                "Choose a number of workers that divides global_batch / micro_batch = "
                f"{batch // run.training.micro_batch}.",
            )
        )
    return batch // rows


def micro_positions(run: RunSpec, rank: int, world_size: int, micro: int) -> range:
    """Positions of a rank's `micro`-th micro-batch, counted from the start of the run.

    Step s has positions [s G, (s + 1) G) of the order for any number of workers W; its j-th
    micro-batch of b rows on rank r is [s G + (j W + r) b, + b).
    """
    step, j = divmod(micro, accumulation(run, world_size))
    rows = run.training.micro_batch
    start = step * run.training.global_batch + (j * world_size + rank) * rows
    return range(start, start + rows)


class Reader:
    """The examples of a run, by position."""

    def __init__(self, run: RunSpec) -> None:
        self._order = order_of(run)
        self._sources = {
            name: open_source(name, run.components[name], run.data)
            for name in self._order.components
        }

    def __call__(self, positions: Iterable[int]) -> list[Example]:
        entries = [self._order.at(position) for position in positions]
        if not any(source.is_remote for source in self._sources.values()):
            return [self._sources[component].example(index) for component, index in entries]
        # Scenes are rendered while photographs are on their way.
        with ThreadPoolExecutor(_REQUESTS, thread_name_prefix="fetch") as pool:
            fetched = {
                place: pool.submit(self._sources[component].example, index)
                for place, (component, index) in enumerate(entries)
                if self._sources[component].is_remote
            }
            return [
                fetched[place].result()
                if place in fetched
                else self._sources[component].example(index)
                for place, (component, index) in enumerate(entries)
            ]
