"""The points that a sweep tries, and the trials that it makes of them."""

from pydantic import Field

from mixlens.spec import RunSpec, Spec, Weights

BASE = "base"
"""The name of the model before fine-tuning; no level is called so."""


class Level(Spec):
    """One point of a design: all that trials of several seeds have in common."""

    id: str = Field(description="unique in a sweep; part of names of trials")
    label: str = Field(description="as figures, tables and sentences name it")
    weights: Weights = Field(description="share of each component, summing to 1")
    coordinates: dict[str, float] = Field({}, description="its place, by the axes of its design")


class Axis(Spec):
    """How the levels of a design are told apart: what people call them, and their order.

    Levels on a scale are quantities, between which a slope and a smallest sufficient one have a
    meaning; otherwise they only follow each other.
    """

    noun: str = Field(description="of one level, such as ratio")
    title: str = Field(description="of the axis in figures")
    scale: str | None = Field(None, description="the coordinate that is their quantity, if any")


class Trial(Spec):
    """A level and a seed, and the run that trains them: what `trial.json` holds."""

    level: Level = Field(description="the point of the design")
    seed: int = Field(description="of the order of examples and of dropout")
    space: str = Field(description="digest of the design's space that the level is a point of")
    run: RunSpec = Field(description="all that decides the trained weights")

    @property
    def name(self) -> str:
        """Unique in a sweep."""
        return f"{self.level.id},seed={self.seed}"
