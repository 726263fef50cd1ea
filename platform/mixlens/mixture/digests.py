"""What a step was trained on, in 64 bits, to be compared with what its run's order says.

The digest of a step is the sum, modulo 2^64, of a hash of the position and the example's id of each
of its rows. So it is the same for any number of workers and any accumulation, and each worker adds
up what it has.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from mixlens.mixture.order import order_of
from mixlens.spec import RunSpec

_WORD = 32
_STEPS_AT_ONCE = 256


def digest(positions: Sequence[int], example_ids: Sequence[str]) -> int:
    """Of the rows of one step, or of a part of them; not reduced modulo 2^64."""
    return sum(
        int.from_bytes(hashlib.blake2b(f"{position} {name}".encode(), digest_size=8).digest())
        for position, name in zip(positions, example_ids, strict=True)
    )


def halves(value: int) -> tuple[int, int]:
    """A digest as two numbers that many workers can add up in signed 64 bits."""
    value %= 1 << 64
    return value & ((1 << _WORD) - 1), value >> _WORD


def joined(low: int, high: int) -> int:
    """The digest of sums of `halves`."""
    return (low + (high << _WORD)) % (1 << 64)


def digests_of(run: RunSpec, steps: int, replaced: Mapping[int, str]) -> Iterator[int]:
    """The digests of the first steps of a run, as its order says.

    Args:
        run: what is trained.
        steps: how many.
        replaced: ids of the examples that came in place of damaged ones, by position.
    """
    order, batch = order_of(run), run.training.global_batch
    for first in range(0, steps, _STEPS_AT_ONCE):
        last = min(first + _STEPS_AT_ONCE, steps)
        components, indices = order.entries(first * batch, last * batch)
        ids = [
            f"{order.components[component]}/{index}"
            for component, index in zip(components.tolist(), indices.tolist(), strict=True)
        ]
        for position, name in replaced.items():
            if first * batch <= position < last * batch:
                ids[position - first * batch] = name
        for step in range(first, last):
            rows = range(step * batch, (step + 1) * batch)
            own = ids[rows.start - first * batch : rows.stop - first * batch]
            yield digest(rows, own) % (1 << 64)
