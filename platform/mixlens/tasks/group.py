"""A task group: its questions about scenes, and how people and tables speak of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mixlens.spec import TaskGroup
from mixlens.tasks.facts import Draft, Draw, Facts

FIRST, SHUFFLED, LAST = 0, 3, 4
"""When in an image a kind of question is asked; presence is 1 and the number of some 2."""

Tier = Literal["simple", "complex"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of question about scenes.

    Attributes:
        ask: asks it, or gives None where a scene cannot carry it.
        stage: when in an image it is asked, 0 to 4; the questions of 1, 2 and 3 are shuffled.
        tickets: in the draw; kinds that many scenes cannot carry have more.
    """

    ask: Callable[[Facts, Draw], Draft | None]
    stage: int = SHUFFLED
    tickets: int = 1


@dataclass(frozen=True, slots=True)
class Group:
    """What there is to know of a task group; the module of its name in this package holds it.

    Attributes:
        name: in sweep files and tables.
        label: its name for people.
        complexity: of its questions, 1 to 4.
        tier: the mean over several groups that it is part of, if any.
        kinds: its questions about scenes.
        place: when the questions of a scene are drawn, among all groups. Another place would
            change the questions.
        scores: those that an answer may have.
        headline: the one of these that stands for the group.
        score_label: what people call the headline score.
        has_long_answers: whether an answer may take as many tokens as the limit allows.
        is_compared: whether models are compared by it; some groups only teach.
        asks_for: attributes of images that its answers need.
    """

    name: TaskGroup
    label: str
    complexity: int
    tier: Tier | None
    kinds: Mapping[str, Kind]
    place: int
    scores: tuple[str, ...] = ("exact", "relaxed")
    headline: str = "exact"
    score_label: str = "accuracy"
    has_long_answers: bool = False
    is_compared: bool = True
    asks_for: tuple[str, ...] = ()
