"""One fine-tuning run: all that decides its weights."""

from typing import Any

from pydantic import Field

from mixlens.spec.base import Spec
from mixlens.spec.data import Weights
from mixlens.spec.held_out import canonical_data
from mixlens.spec.kinds import ComponentSpec, DataSet
from mixlens.spec.training import ResourceSpec, TrainingSpec

# These change a training's speed, memory or log, but no result beyond rounding. The micro-batch is
# not among them: dropout is drawn for each.
NEUTRAL = (
    "zero_stage",
    "offload_optimizer",
    "offload_parameters",
    "nvme_path",
    "attention",
    "activation_checkpointing",
    "checkpoint_every",
    "log_every",
)


class RunSpec(Spec):
    """One fine-tuning run; its digest holds what decides the trained weights, and nothing else."""

    model: str = Field(description="the base: a builtin name, a folder or a hub id")
    model_fingerprint: str = Field("", description="of the base's files; none: the name stands")
    prompts_digest: str = Field("", description="of the questions' phrasings")
    data: dict[str, DataSet] = Field({}, description="the data sets that components draw from")
    components: dict[str, ComponentSpec] = Field(description="name -> content of each one drawn")
    weights: Weights = Field(description="share of each component, summing to 1")
    seed: int = Field(ge=0, lt=2**29, description="of the order of examples and of dropout")
    training: TrainingSpec = Field(description="how the model is fine-tuned")
    resources: ResourceSpec = Field(ResourceSpec(), description="what it takes of the cluster")

    def canonical(self) -> dict[str, Any]:
        """What decides the weights: components that are never drawn do not, nor does speed."""
        drawn = sorted(name for name, weight in self.weights.items() if weight > 0)
        training = self.training.canonical()
        for key in NEUTRAL:
            del training[key]
        if self.training.learning_rates.cross_attention is None:
            del training["learning_rates"]["cross_attention"]  # as ever: as language
        return {
            "base": self.model_fingerprint or self.model,
            "prompts": self.prompts_digest,
            "components": {name: self.components[name].canonical() for name in drawn},
            "data": canonical_data(self.data),
            "weights": {name: self.weights[name] for name in drawn},
            "seed": self.seed,
            "training": training,
        }
