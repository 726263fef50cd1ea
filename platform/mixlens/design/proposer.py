"""Who says what is trained next."""

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Protocol

from mixlens.design.level import Level

Point = tuple[Level, int]
"""A level and a seed."""


class Proposer(Protocol):
    """Asked for what to train, and told how it went."""

    def ask(self) -> Point | None:
        """What to train next; None while, or when, there is nothing.

        What the sweep's folder holds already may be proposed; it is told at once.
        """

    def tell(self, level: Level, seed: int, scores: Mapping[str, float]) -> None:
        """The headline numbers of a trial that is measured, such as accuracy/relational."""


class Listed:
    """Proposes a list, whatever the scores are."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._waiting = deque(points)

    def ask(self) -> Point | None:
        return self._waiting.popleft() if self._waiting else None

    def tell(self, level: Level, seed: int, scores: Mapping[str, float]) -> None:
        """Nothing depends on them."""
