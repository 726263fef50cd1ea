"""What every design says of itself."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

from mixlens.design.level import Axis, Level
from mixlens.design.proposer import Listed, Proposer
from mixlens.spec import Spec, Weights
from mixlens.spec.base import digest_of


class Mixture(NamedTuple):
    """A mixture as a file spells it out: its field below `design`, and its name for people."""

    field: str
    label: str
    weights: Weights


class BaseDesign(Spec):
    """What a sweep tries. A design is one file of this room, and an entry in its union."""

    @property
    @abstractmethod
    def axis(self) -> Axis:
        """How its levels are told apart."""

    @abstractmethod
    def levels(self) -> tuple[Level, ...]:
        """The levels that the file names, in their order."""

    @abstractmethod
    def mixtures(self) -> tuple[Mixture, ...]:
        """The mixtures that the file spells out."""

    @abstractmethod
    def space(self) -> dict[str, Any]:
        """What makes levels of this design comparable: with those of an earlier file, too."""

    def digest_of_space(self) -> str:
        return digest_of(self.space())

    def ordered(self, levels: Iterable[Level]) -> list[Level]:
        """Levels of this space, also such as the file does not name any more, in their order."""
        scale = self.axis.scale
        if scale is not None:
            return sorted(levels, key=lambda level: level.coordinates[scale])
        places = {level.id: place for place, level in enumerate(self.levels())}
        return sorted(levels, key=lambda level: (places.get(level.id, len(places)), level.id))

    def proposer(self, seeds: tuple[int, ...]) -> Proposer:
        """Who says what is trained next."""
        return Listed([(level, seed) for level in self.levels() for seed in seeds])
