"""The stream in one plain process: used alone, under torchrun, and in tests."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from mixlens.mixture.batches import (
    Collate,
    MicroBatch,
    Reader,
    accumulation,
    micro_batch,
    micro_positions,
)
from mixlens.mixture.decoding import Decoder
from mixlens.mixture.refused import Refuses, takes_all
from mixlens.spec import RunSpec

_READ_AHEAD = 2


class LocalStream:
    """Micro-batches of one rank, made in a background thread.

    Attributes:
        waited: seconds that the consumer has waited for data so far.
    """

    def __init__(
        self,
        run: RunSpec,
        rank: int,
        world_size: int,
        collate: Collate,
        refuses: Refuses = takes_all,
    ) -> None:
        """Open the sources of `run`; `refuses` is the model's (`Adapter.refuses`).

        Raises:
            SpecError: `world_size` workers cannot share a global batch evenly.
        """
        self.waited = 0.0
        self._accumulation = accumulation(run, world_size)
        self._run, self._rank, self._world_size = run, rank, world_size
        self._read, self._decode, self._collate = Reader(run), Decoder(run, refuses), collate

    def steps(self, first: int, last: int) -> Iterator[list[MicroBatch]]:
        """The accumulated micro-batches of steps first ... last - 1, a list a step."""
        micros = iter(range(first * self._accumulation, last * self._accumulation))
        pool = ThreadPoolExecutor(1, thread_name_prefix="stream")
        try:
            ahead: deque[Future[MicroBatch]] = deque(
                pool.submit(self._make, micro) for micro in islice(micros, _READ_AHEAD)
            )
            for _ in range(first, last):
                step = []
                for _ in range(self._accumulation):
                    ahead.extend(pool.submit(self._make, micro) for micro in islice(micros, 1))
                    started = time.perf_counter()
                    step.append(ahead.popleft().result())
                    self.waited += time.perf_counter() - started
                yield step
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, micro: int) -> MicroBatch:
        positions = list(micro_positions(self._run, self._rank, self._world_size, micro))
        examples, replaced = self._decode(positions, self._read(positions))
        return micro_batch(positions, examples, self._collate, replaced)
