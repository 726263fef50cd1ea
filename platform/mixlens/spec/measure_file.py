"""A measure file: one model, the held-out images, and what is measured; no training."""

from pathlib import Path

from pydantic import Field, model_validator

from mixlens.errors import explain
from mixlens.spec.base import Model, Name, RunsDir, Spec, model_digest
from mixlens.spec.data import EvaluationSpec, check_vllm
from mixlens.spec.held_out import check_data, check_transfer
from mixlens.spec.kinds import ComponentSpec, DataSet
from mixlens.spec.tracking import TrackingSpec
from mixlens.spec.training import ResourceSpec


class MeasureSpec(Spec):
    """One model that `mixlens measure` looks into as it is, without any training.

    `controls` measures, beside the model, what there is without training and without content: the
    same architecture with random weights (of the language model, and of everything), and the model
    itself on blank and on noise images.
    """

    name: Name = Field(description="the measurement's name, also that of its folder under runs_dir")
    model: Model = Field(
        "builtin:tiny-vllm", description="the model: builtin, a folder or a hub id"
    )
    model_fingerprint: str = Field("", description="filled in when the measurement starts")
    prompts_digest: str = Field("", description="filled in likewise")
    runs_dir: RunsDir = Field("runs", description="the folder that holds folders of results")
    data: dict[Name, DataSet] = Field({}, description="data sets that components name")
    components: dict[Name, ComponentSpec] = Field(
        min_length=1, description="name -> images, and the tasks that are asked about them"
    )
    evaluation: EvaluationSpec = Field(description="the questions and measurements of the model")
    controls: bool = Field(
        True, description="measure random weights, blank images and noise images beside it"
    )
    resources: ResourceSpec = Field(
        ResourceSpec(), description="the share of the cluster that it takes"
    )
    tracking: TrackingSpec = Field(TrackingSpec(), description="where MLflow keeps the runs")

    @model_validator(mode="after")
    def _check(self) -> "MeasureSpec":
        check_data(self.components, self.data)
        check_transfer(self.evaluation)
        for field in ("component", "transfer"):
            name = getattr(self.evaluation, field)
            if name is not None and name not in self.components:
                known = f"The components are {', '.join(sorted(self.components))}."
                raise ValueError(explain(f"evaluation.{field}", name, "no such component", known))
        check_vllm(self.model, self.evaluation, self.resources)
        return self

    def model_digest(self) -> str:
        """Digest of the model alone: whatever is measured of it lies in one folder."""
        return model_digest(self.model, self.model_fingerprint)

    @property
    def model_name(self) -> str:
        """The model for people who look at folders."""
        return Path(self.model.removeprefix("builtin:")).name

    @property
    def folder(self) -> Path:
        """Where the results of this model go."""
        root = Path(self.runs_dir).expanduser().absolute() / self.name
        return root / f"{self.model_name}-{self.model_digest()}"
