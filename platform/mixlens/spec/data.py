"""The data of a sweep: named components, what is asked about them, and how they are mixed."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from mixlens.spec.base import Spec
from mixlens.spec.measure import DeletionSpec, ProbeSpec
from mixlens.spec.scene import SceneSpec

TaskGroup = Literal[
    "coarse", "attribute", "relational", "scene_graph", "count", "locate", "pair", "caption"
]


class ComponentSpec(Spec):
    """One source of examples: which images, and how many turns of each task group an image gets.

    An image gets fewer turns of a group when its scene cannot carry that many (one object alone
    has no relations); it never gets a question without exactly one right answer.
    """

    kind: Literal["synthetic"] = "synthetic"
    scene: SceneSpec = SceneSpec()
    tasks: dict[TaskGroup, int] = Field(min_length=1)
    seed: int = Field(0, ge=0, lt=2**31, description="the seed of its scenes")
    size: int | None = Field(
        None, ge=1, description="examples in a finite component; none: never repeats"
    )

    @model_validator(mode="after")
    def _check(self) -> "ComponentSpec":
        for group, turns in self.tasks.items():
            if not 1 <= turns <= 32:
                raise ValueError(f"tasks.{group} asks for {turns} turns an image; 1 to 32 can be")
        return self


Weights = dict[str, float]


def _sum_to_one(weights: Weights) -> Weights:
    if any(weight < 0 for weight in weights.values()):
        raise ValueError(f"a weight is negative: {weights}. Give each component 0 or more.")
    if abs(sum(weights.values()) - 1.0) > 1e-6:
        raise ValueError(f"the weights sum to {sum(weights.values()):g}; they must sum to 1")
    return weights


Mix = Annotated[Weights, AfterValidator(_sum_to_one)]


class MixtureSpec(Spec):
    """The two ends of the ratio: weights within the complex side and within the simple side.

    A trial at ratio r draws component c with weight r * high[c] + (1 - r) * low[c].
    """

    high: Mix
    low: Mix

    def weights(self, ratio: float) -> Weights:
        """Weights of every named component at a high-complexity ratio in [0, 1]."""
        names = sorted({*self.high, *self.low})
        return {
            name: ratio * self.high.get(name, 0.0) + (1 - ratio) * self.low.get(name, 0.0)
            for name in names
        }


class EvaluationSpec(Spec):
    """The held-out images, the same for the base and for every trial."""

    component: str = Field(description="the component whose scenes and tasks are used")
    examples: int = Field(ge=8, description="held-out images")
    batch_size: int = Field(64, ge=1, description="images a forward pass")
    max_new_tokens: int = Field(128, ge=1, description="longest answer that is generated, tokens")
    probes: ProbeSpec | None = Field(None, description="what a probe can read; none: not probed")
    keep_states: bool = Field(
        False, description="keep the hidden states of every layer on disk (measure/states)"
    )
    deletion: DeletionSpec | None = Field(
        None, description="accuracy with visual tokens deleted; none: not measured"
    )
