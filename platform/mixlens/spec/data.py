"""How components are mixed, and what models are evaluated on."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mixlens.errors import explain
from mixlens.spec.base import BUILTIN_MODELS, Spec
from mixlens.spec.measure import DeletionSpec, ExtendedMetric, ProbeSpec
from mixlens.spec.training import LoraSpec, ResourceSpec

Weights = dict[str, float]


def _sum_to_one(weights: Weights) -> Weights:
    if any(weight < 0 for weight in weights.values()):
        raise ValueError(f"a weight is negative: {weights}. Give each component 0 or more.")
    if abs(sum(weights.values()) - 1.0) > 1e-6:
        raise ValueError(f"the weights sum to {sum(weights.values()):g}; they must sum to 1")
    return weights


Mix = Annotated[Weights, AfterValidator(_sum_to_one)]


class EvaluationSpec(Spec):
    """The held-out images, the same for the base and for every trial."""

    component: str = Field(description="the component whose images and tasks are used")
    transfer: str | None = Field(
        None,
        description="a second component: which correlations of redundancy with attributes hold "
        "on its images too; none: not measured",
    )
    examples: int = Field(
        ge=8, description="number of held-out images", json_schema_extra={"unit": "images"}
    )
    batch_size: int = Field(
        64, ge=1, description="images in one forward pass", json_schema_extra={"unit": "images"}
    )
    max_new_tokens: int = Field(
        128,
        ge=1,
        description="length of the longest answer",
        json_schema_extra={"unit": "tokens"},
    )
    engine: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="generates the answers: transformers, or vLLM on GPUs. The kernels of vLLM "
        "round otherwise, so its answers are results of their own. Only answers come from it; "
        "tokens are measured with transformers",
    )
    metrics: tuple[ExtendedMetric, ...] = Field(
        (),
        description="metrics of tokens beyond those that are always measured; together they take "
        "one more forward pass over the images",
    )
    probes: ProbeSpec | None = Field(
        None, description="probes of attributes at every layer; none: no probes"
    )
    keep_states: bool = Field(
        False, description="keep the hidden states of every layer on disk (measurements/*/states)"
    )
    deletion: DeletionSpec | None = Field(
        None, description="accuracy with visual tokens deleted; none: not measured"
    )


def check_vllm(
    model: str, evaluation: EvaluationSpec, resources: ResourceSpec, lora: LoraSpec | None = None
) -> None:
    """Refuse vLLM where the file alone tells that it cannot answer.

    Raises:
        ValueError: names the field.
    """
    if evaluation.engine != "vllm":
        return
    if resources.gpus_per_actor == 0:
        raise ValueError(
            explain("resources.gpus_per_actor", 0, "evaluation.engine is vllm, which answers on "
                    "GPUs", "Set it to 1, or evaluation.engine to transformers.")
        )  # fmt: skip
    if model in BUILTIN_MODELS:
        raise ValueError(
            explain("evaluation.engine", "vllm", f"the model is {model}, which is answered by "
                    "transformers faster than vLLM starts", "Set it to transformers.")
        )  # fmt: skip
    if lora is not None and (outside := [tower for tower in lora.towers if tower != "language"]):
        raise ValueError(
            explain("evaluation.engine", "vllm", "it takes adapters of the language model only, "
                    f"and training.lora.towers has {', '.join(outside)}",
                    "Set training.lora.towers to [language], or evaluation.engine to transformers. "
                    "A single trial can be measured so once `mixlens merge` has merged it.")
        )  # fmt: skip
