"""Which component each position belongs to: the chairman assignment of Tijdeman.

Weights w_1 ... w_k (positive, summing to 1) are whole parts of a period of D positions. Before
position n (counted from 1) component c is *eligible* once w_c n - x_c >= 1 / (2k - 2), where x_c is
how often it came so far, and its next turn is *due* at the first n with
w_c n - x_c > 1 - 1 / (2k - 2). Giving each position to the eligible component that is due first
keeps

    | x_c(n) - w_c n | <= 1 - 1 / (2k - 2) < 1      for every component c and every prefix n,

which no schedule can better for all weights (R. Tijdeman, The chairman assignment problem, Discrete
Mathematics 32, 1980, 323-330). Eligible and due positions are whole numbers, so the comparison is
exact. After D positions every count is exactly w_c D and the schedule starts over, so that a table
of one period gives random access to all positions, however many. It takes 6 D bytes, and D is at
most a million (`LONGEST_PERIOD`): 4 entries for quarters, 100 for percent, 6 MB for weights of six
digits and for those that have no common measure.
"""

import heapq
import math
import threading
from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np

from mixlens.errors import SpecError, explain

LONGEST_PERIOD = 1_000_000
_EXACT = 1e-12
_PERIODS_AT_ONCE = 10_000
_CHUNK = 4096


def whole_shares(weights: Mapping[str, float]) -> dict[str, int]:
    """The weights as whole parts of a period of at most a million positions.

    It is the shortest period that meets every weight to 1e-12, which exists for decimals of up to
    six digits, for fractions such as 1/3, and for any two components. Other weights get the
    period that meets them best, never worse than half a millionth (rounded by largest remainder).

    Raises:
        SpecError: a weight that is negative, not finite, or positive but too small to come up in
            a period, or weights that do not sum to 1 (to 1e-6).
    """
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise SpecError(
                explain(f"weights.{name}", weight, "no share of a mixture", "Give 0 to 1.")
            )
    total = sum(weights.values())
    if abs(total - 1) > 1e-6:
        raise SpecError(
            explain("weights", dict(weights), f"they sum to {total:g}", "They must sum to 1.")
        )
    period = _period(np.array(list(weights.values())) / total)
    parts = {name: weight / total * period for name, weight in weights.items()}
    whole = {name: math.floor(part + _EXACT * period) for name, part in parts.items()}
    by_remainder = sorted(parts, key=lambda name: (whole[name] - parts[name], name))
    for name in by_remainder[: period - sum(whole.values())]:
        whole[name] += 1
    for name, weight in weights.items():
        if weight > _EXACT and not whole[name]:
            raise SpecError(
                explain(
                    f"weights.{name}", weight, "too rare to be mixed in", "Give 0 or at least 1e-6."
                )
            )
    return whole


def _period(weights: np.ndarray) -> int:
    best, best_error = 1, math.inf
    for start in range(1, LONGEST_PERIOD + 1, _PERIODS_AT_ONCE):
        periods = np.arange(start, start + _PERIODS_AT_ONCE)
        parts = np.outer(weights, periods)
        errors = (np.abs(parts - np.rint(parts)) / periods).max(axis=0)
        if (errors <= _EXACT).any():
            return start + int((errors <= _EXACT).argmax())
        if errors.min() < best_error:
            best, best_error = start + int(errors.argmin()), float(errors.min())
    return best


def turns(shares: tuple[int, ...]) -> Iterator[int]:
    """The component of each position of one period; `shares` are whole and sum to its length."""
    period = sum(shares)
    present = [c for c, share in enumerate(shares) if share]
    if len(present) == 1:
        yield from present * period
        return
    fine = 2 * len(present) - 2

    def window(component: int, turn: int) -> tuple[int, int]:
        """First and last position (from 1) for the turn-th turn (from 0) of a component."""
        unit = fine * shares[component]
        first = -(-period * (fine * turn + 1) // unit)
        return first, period * (fine * (turn + 1) - 1) // unit + 1

    waiting = [(*window(c, 0), c, 0) for c in present]
    heapq.heapify(waiting)
    due: list[tuple[int, int, int]] = []
    for position in range(1, period + 1):
        while waiting and waiting[0][0] <= position:
            _, last, component, turn = heapq.heappop(waiting)
            heapq.heappush(due, (last, component, turn))
        last, component, turn = heapq.heappop(due)
        assert last >= position, "a component came too late"
        yield component
        heapq.heappush(waiting, (*window(component, turn + 1), component, turn + 1))


class Schedule:
    """Random access to the endless repetition of one period.

    The table grows to the furthest position inside the period that was asked for, so a long
    period costs a short run little: about a microsecond and six bytes a position. It never holds
    more than one period: 6 MB at most, and 24 MB for the moment in which it grows to them.
    """

    def __init__(self, shares: tuple[int, ...]) -> None:
        self.shares = np.array(shares, np.int64)
        self.period = int(self.shares.sum())
        self._turns = turns(shares)
        self._growing = threading.Lock()
        self._component = np.empty(0, np.uint16)
        self._turn = np.empty(0, np.int32)

    def counts(self, n: int) -> np.ndarray:
        """How often each component comes among the first `n` positions, int64 [components]."""
        periods, rest = divmod(n, self.period)
        self._grow(rest)
        inside = np.bincount(self._component[:rest], minlength=len(self.shares))
        return periods * self.shares + inside

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Component, and how often it came before, of each position; int64 [positions] each."""
        periods, inside = np.divmod(positions, self.period)
        self._grow(int(inside.max(initial=-1)) + 1)
        component = self._component[inside].astype(np.int64)
        return component, periods * self.shares[component] + self._turn[inside]

    def _grow(self, length: int) -> None:
        with self._growing:  # the loop counts while a stream's thread reads ahead
            if length <= len(self._component):
                return
            # Doubling keeps the copying linear in the length.
            extra = max(_CHUNK, len(self._component), length - len(self._component))
            new = np.fromiter(islice(self._turns, extra), np.uint16)
            component = np.concatenate([self._component, new])
            turn = np.empty(len(component), np.int32)
            for c in range(len(self.shares)):
                own = np.flatnonzero(component == c)
                turn[own] = np.arange(len(own))
            # Readers look at both without the lock: the longer turns must be there first.
            self._turn, self._component = turn, component
