"""A component of a mixture: which images, and what is asked about them."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from mixlens.spec.base import Spec

TaskGroup = Literal[
    "coarse", "attribute", "relational", "scene_graph", "count", "locate", "pair", "caption"
]
"""The names of `mixlens.tasks.GROUPS`, in the order in which people read them."""


def _few_turns(tasks: dict[str, int]) -> dict[str, int]:
    for group, turns in tasks.items():
        if not 1 <= turns <= 32:
            raise ValueError(f"tasks.{group} asks for {turns} turns an image; 1 to 32 can be")
    return tasks


Tasks = Annotated[dict[TaskGroup, int], Field(min_length=1), AfterValidator(_few_turns)]


class BaseComponent(Spec):
    """All that the rooms above ask of a component, whatever its kind.

    A kind adds `kind`, `tasks` and `seed` as fields, and whatever else says which images it has.
    """

    images: ClassVar[str]
    """What its images are called, in the plural."""
    is_generated: ClassVar[bool]
    """Whether images are made from their description, so that their attributes are exact."""

    @property
    def data_set(self) -> str | None:
        """The name of the data set that its images are taken from, or None if of none."""
        return None

    def images_in_common(self, other: "BaseComponent") -> Literal["all", "some", "none"]:
        """How many of the images that a model trains on, with one seed, are those of `other`.

        all: the same ones in the same order; some: both are drawn from the same images, each from
        those that can carry its questions; none: so far as can be told.
        """
        return "none"
