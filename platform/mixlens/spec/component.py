"""A component of a mixture: which images, and what is asked about them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from mixlens.spec.base import Range, Spec
from mixlens.spec.scene import SceneSpec

TaskGroup = Literal[
    "coarse", "attribute", "relational", "scene_graph", "count", "locate", "pair", "caption"
]

KINDS = ("synthetic", "coco")


def _few_turns(tasks: dict[str, int]) -> dict[str, int]:
    for group, turns in tasks.items():
        if not 1 <= turns <= 32:
            raise ValueError(f"tasks.{group} asks for {turns} turns an image; 1 to 32 can be")
    return tasks


def _no_pairs(tasks: dict[str, int]) -> dict[str, int]:
    if "pair" in tasks:
        raise ValueError("pairs are asked about generated scenes only. Take the group out.")
    return tasks


def _quantiles(strata: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    for attribute, (low, high) in strata.items():
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"{attribute} is to lie between quantiles {low:g} and {high:g}. Give two different "
                "numbers from 0 to 1."
            )
    return strata


Tasks = Annotated[dict[TaskGroup, int], Field(min_length=1), AfterValidator(_few_turns)]


class SceneComponent(Spec):
    """Generated scenes, and how many turns of each task group an image gets.

    An image gets fewer turns of a group when its scene cannot carry that many (one object alone
    has no relations); it never gets a question without exactly one right answer.
    """

    kind: Literal["synthetic"] = Field("synthetic", description="generated scenes")
    scene: SceneSpec = Field(SceneSpec(), description="which scenes are drawn")
    tasks: Tasks = Field(description="task group -> turns of it that an image gets, 1 to 32")
    seed: int = Field(0, ge=0, lt=2**31, description="the seed of its scenes")
    size: int | None = Field(
        None, ge=1, description="examples in a finite component; none: never repeats"
    )


class CocoComponent(Spec):
    """Photographs of a data set, and how many turns of each task group an image gets.

    An image belongs to the component if it can carry a turn of any of its groups; it gets fewer of
    a group when it cannot carry that many. Trained on, a component draws from the training images
    of its data set; evaluated on, from the held-out ones.
    """

    kind: Literal["coco"] = Field(description="photographs in COCO format")
    data: str = Field(description="the name of its data set, under `data`")
    tasks: Annotated[Tasks, AfterValidator(_no_pairs)] = Field(
        description="task group -> turns of it that an image gets, 1 to 32; no pairs"
    )
    strata: Annotated[dict[str, Range], AfterValidator(_quantiles)] = Field(
        {},
        description="attribute -> the range of its quantiles, such as object_count: [0.75, 1]; an "
        "image has to lie in all of them. Quantiles are among all images of the split",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="the seed of its questions")


def _kind(value: Any) -> Any:
    if not isinstance(value, dict):
        return getattr(value, "kind", "synthetic")
    # With a data set but no kind, the kind was forgotten: so it is the kind that is missing.
    return value.get("kind", "coco" if "data" in value else "synthetic")


ComponentSpec = Annotated[
    Annotated[SceneComponent, Tag("synthetic")] | Annotated[CocoComponent, Tag("coco")],
    Discriminator(_kind),
]
