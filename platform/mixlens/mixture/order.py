"""The order of a run: position -> (component, index in component), a pure function.

It depends on the weights, the components and the seed alone: not on the number of workers, the
batch size, or what was read before.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from mixlens.errors import SpecError, explain
from mixlens.mixture.schedule import Schedule, whole_shares
from mixlens.mixture.shuffle import shuffled
from mixlens.sources import open_source
from mixlens.spec import HELD_OUT_START, RunSpec

DRAWS_A_SEED = 2**32


class MixtureOrder:
    """Exact ratios at every position, random access, constant memory.

    After any number of positions a component came at most one time more or less often than
    weight x positions (`mixlens.mixture.schedule`). The n-th draw of an infinite component is
    example seed * 2**32 + n, so nothing ever repeats, two seeds share nothing, and two ratios of
    one seed share as much as they can. A finite component is gone through in epochs, each
    shuffled anew (`mixlens.mixture.shuffle`).

    Attributes:
        components: the names, in the order that the integers of `entries` count.
    """

    def __init__(
        self, weights: Mapping[str, float], sizes: Mapping[str, int | None], seed: int
    ) -> None:
        """An order over components of the given sizes (None: infinite).

        Raises:
            SpecError: the weights cannot be mixed, or name a component without a size.
        """
        for name in weights:
            if name not in sizes:
                raise SpecError(
                    explain("weights", name, "no such component", f"Known: {sorted(sizes)}.")
                )
        shares = whole_shares(weights)
        self.components = tuple(sorted(shares))
        self._sizes = [sizes[name] for name in self.components]
        self._seed = seed
        self._schedule = Schedule(tuple(shares[name] for name in self.components))

    def at(self, position: int) -> tuple[str, int]:
        """Component and index of one position."""
        component, index = self.entries(position, position + 1)
        return self.components[component[0]], int(index[0])

    def entries(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Component (place in `components`) and index of positions first ... last - 1.

        Returns:
            two int64 arrays [last - first].
        """
        return self.take(np.arange(first, last))

    def take(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for any positions, int64 [positions]."""
        component, draw = self._schedule.at(positions)
        index = np.empty_like(draw)
        for c in np.unique(component):
            own = component == c
            index[own] = self._indices(int(c), draw[own])
        # The held-out examples begin there: no training position may ever reach them.
        assert index.max(initial=0) < HELD_OUT_START, "a training position reached held-out data"
        return component, index

    def counts(self, n: int) -> dict[str, int]:
        """How many of the first `n` positions each component has."""
        counted = self._schedule.counts(n)
        return {name: int(count) for name, count in zip(self.components, counted, strict=True)}

    def _indices(self, c: int, draws: np.ndarray) -> np.ndarray:
        size, name = self._sizes[c], self.components[c]
        if size is None:
            if draws.max() >= DRAWS_A_SEED:
                raise SpecError(
                    explain(
                        f"components.{name}",
                        int(draws.max()),
                        f"one seed has {DRAWS_A_SEED} examples of an infinite component",
                        "Train fewer steps, or give the component a size.",
                    )
                )
            return self._seed * DRAWS_A_SEED + draws
        epochs, places = np.divmod(draws, size)
        index = np.empty_like(draws)
        for epoch in np.unique(epochs):
            own = epochs == epoch
            index[own] = shuffled(places[own], size, self._seed, name, int(epoch))
        return index


def order_of(run: RunSpec) -> MixtureOrder:
    """The order that a run trains in.

    Raises:
        SpecError: see `MixtureOrder`; or a component without any example.
    """
    sources = {
        name: open_source(name, run.components[name], run.data)
        for name in sorted({*run.weights} & {*run.components})
    }
    sizes = tuple((name, source.size) for name, source in sources.items())
    for name, size in sizes:
        if size == 0 and run.weights[name]:
            tasks = ", ".join(run.components[name].tasks)
            problem = f"no training image can carry such a turn ({sources[name].describe()})"
            remedy = "Widen its strata, or add task groups; captions need a file of them."
            raise SpecError(explain(f"components.{name}", tasks, problem, remedy))
    return _order(tuple(sorted(run.weights.items())), sizes, run.seed)


@lru_cache(maxsize=8)
def _order(
    weights: tuple[tuple[str, float], ...], sizes: tuple[tuple[str, int | None], ...], seed: int
) -> MixtureOrder:
    return MixtureOrder(dict(weights), dict(sizes), seed)


def held_out_indices(n: int) -> range:
    """The indices of the first `n` held-out examples of any component."""
    return range(HELD_OUT_START, HELD_OUT_START + n)
