"""How the built-in base model is made: stages of training on growing complexity."""

from pydantic import Field, model_validator

from mixlens.spec.base import Name, RunsDir, Spec
from mixlens.spec.data import EvaluationSpec, Weights
from mixlens.spec.run import RunSpec
from mixlens.spec.scene import SceneComponent
from mixlens.spec.training import ResourceSpec, TrainingSpec


class Stage(Spec):
    """One stage: a mixture and how long and how fast the model is trained on it."""

    weights: Weights = Field(description="share of each component, summing to 1")
    training: TrainingSpec = Field(description="how long and how fast")


class PretrainSpec(Spec):
    """The file of `jobs/pretrain.py`: scenes only, whose words are all that this model knows."""

    name: Name = Field(description="of the folder under runs_dir")
    runs_dir: RunsDir = Field("runs", description="the folder that holds the folders of runs")
    seed: int = Field(0, ge=0, lt=2**29, description="of the first stage; the next takes the next")
    components: dict[Name, SceneComponent] = Field(
        min_length=1, description="name -> scenes, and the tasks asked about them"
    )
    stages: tuple[Stage, ...] = Field(min_length=1, description="one after the other")
    evaluation: EvaluationSpec = Field(description="what the finished model is asked")
    resources: ResourceSpec = Field(ResourceSpec(), description="read as in a sweep file")

    @model_validator(mode="after")
    def _check(self) -> "PretrainSpec":
        known = sorted(self.components)
        named = {name for stage in self.stages for name in stage.weights}
        if unknown := sorted({*named, self.evaluation.component} - set(known)):
            raise ValueError(f"unknown components {unknown}; the components are {known}")
        for number, stage in enumerate(self.stages):
            if abs(sum(stage.weights.values()) - 1) > 1e-6:
                raise ValueError(f"stages.{number}.weights must sum to 1: {stage.weights}")
        return self

    def run(self, stage: int, model: str) -> RunSpec:
        """The run of one stage, which starts from the weights at `model`."""
        weights = self.stages[stage].weights
        return RunSpec(
            model=model,
            # Only its own data: a change of a later stage leaves this one as it is.
            components={name: self.components[name] for name in weights},
            weights=weights,
            # A stage that reused the seed would see the examples of the stage before it again.
            seed=self.seed + stage,
            training=self.stages[stage].training,
            resources=self.resources,
        )
