"""A sweep file as a whole."""

from collections.abc import Iterable
from typing import ClassVar

from pydantic import Field, model_validator

from mixlens.design.level import BASE, Level, Trial
from mixlens.design.union import Design
from mixlens.errors import explain
from mixlens.spec import ComponentSpec, DataSet, EvaluationSpec, RunSpec, Spec, TrackingSpec
from mixlens.spec.base import Model, Name, RunsDir, model_digest
from mixlens.spec.data import check_vllm
from mixlens.spec.held_out import (
    check_data,
    check_transfer,
    used_data,
)
from mixlens.spec.training import ResourceSpec, TrainingSpec


class SweepSpec(Spec):
    """One base model, data components by name, and the design that is tried on it."""

    moved: ClassVar[dict[str, str]] = {
        "mixture": "Write its high and low under design, beside kind: ratio.",
        "ratios": "It stands under design now, beside kind: ratio.",
        "arms": "It stands under design now, beside kind: arms.",
    }

    name: Name = Field(description="the sweep's name, also that of its folder under runs_dir")
    model: Model = Field("builtin:tiny-vllm", description="the base: builtin, a folder or a hub id")
    model_fingerprint: str = Field(
        "",
        description="filled in when the sweep starts, so that a base with other weights under the "
        "same name makes other runs",
    )
    prompts_digest: str = Field(
        "", description="filled in likewise, so that other phrasings make other runs"
    )
    runs_dir: RunsDir = Field("runs", description="the folder that holds the folders of sweeps")
    data: dict[Name, DataSet] = Field({}, description="data sets that components name")
    components: dict[Name, ComponentSpec] = Field(
        min_length=1, description="name -> images, and the tasks that are asked about them"
    )
    design: Design = Field(description="which mixtures of components are tried")
    seeds: tuple[int, ...] = Field(
        (0,), min_length=1, description="one trial of each level for each seed"
    )
    training: TrainingSpec = Field(description="how each model is fine-tuned")
    evaluation: EvaluationSpec = Field(description="the questions and measurements of each model")
    resources: ResourceSpec = Field(
        ResourceSpec(), description="the share of the cluster that trials take"
    )
    tracking: TrackingSpec = Field(TrackingSpec(), description="where MLflow keeps the runs")

    @model_validator(mode="after")
    def _check(self) -> "SweepSpec":
        check_data(self.components, self.data)
        check_transfer(self.evaluation)
        known = f"The components are {', '.join(sorted(self.components))}."
        named: dict[str, Iterable[str]] = {"evaluation.component": [self.evaluation.component]}
        if self.evaluation.transfer is not None:
            named["evaluation.transfer"] = [self.evaluation.transfer]
        named |= {f"design.{field}": mix for field, _, mix in self.design.mixtures()}
        for field, names in named.items():
            for name in names:
                if name not in self.components:
                    raise ValueError(explain(field, name, "no such component", known))
        self._check_levels()
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(
                explain("seeds", list(self.seeds), "a value is repeated", "Name each one once.")
            )
        if any(not 0 <= seed < 2**29 for seed in self.seeds):
            raise ValueError(
                explain("seeds", list(self.seeds), "out of range", f"Give 0 to {2**29 - 1}.")
            )
        self._check_batch()
        check_vllm(self.model, self.evaluation, self.resources, self.training.lora)
        return self

    def _check_levels(self) -> None:
        """Names and weights tell levels apart: equal weights would be one and the same run."""
        known: dict[tuple[tuple[str, float], ...], str] = {}
        for level in self.design.levels():
            if level.id == BASE:
                raise ValueError(
                    explain("design", BASE, "the model before fine-tuning is called so",
                            "Rename this level.")
                )  # fmt: skip
            drawn = tuple(sorted((n, weight) for n, weight in level.weights.items() if weight > 0))
            if (same := known.setdefault(drawn, level.id)) != level.id:
                raise ValueError(
                    explain("design", level.id, f"its weights are those of {same}",
                            "Take one of them out; seeds repeat a mixture.")
                )  # fmt: skip

    def _check_batch(self) -> None:
        batch, micro = self.training.global_batch, self.training.micro_batch
        workers = self.resources.workers
        rows = micro * workers
        if batch % rows:
            above = rows * (batch // rows + 1)
            fewer = max(n for n in range(1, workers + 1) if batch % (micro * n) == 0)
            raise ValueError(
                explain(
                    "training.global_batch",
                    batch,
                    f"no multiple of training.micro_batch {micro} x resources.workers {workers} = "
                    f"{rows}",
                    f"Set training.global_batch to {above} or resources.workers to {fewer}, or "
                    "change training.micro_batch.",
                )
            )

    def trial(self, level: Level, seed: int) -> Trial:
        """The trial of a level and a seed, with what decides its weights and no more."""
        drawn = sorted(name for name, weight in level.weights.items() if weight > 0)
        return Trial(
            level=level,
            seed=seed,
            space=self.design.digest_of_space(),
            run=RunSpec(
                model=self.model,
                model_fingerprint=self.model_fingerprint,
                prompts_digest=self.prompts_digest,
                data=used_data(self, drawn),
                components={name: self.components[name] for name in drawn},
                weights={name: level.weights[name] for name in drawn},
                seed=seed,
                training=self.training,
                resources=self.resources,
            ),
        )

    def base_digest(self) -> str:
        """Digest of the base alone."""
        return model_digest(self.model, self.model_fingerprint)
