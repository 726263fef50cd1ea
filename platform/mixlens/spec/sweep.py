"""A sweep file as a whole, and the runs it stands for."""

from typing import Any

from pydantic import Field, model_validator

from mixlens.spec.base import Share, Spec, digest_of
from mixlens.spec.data import ComponentSpec, EvaluationSpec, MixtureSpec, Weights
from mixlens.spec.training import ResourceSpec, TrainingSpec


class TrackingSpec(Spec):
    """Where MLflow keeps the runs; by default in files beside them."""

    uri: str | None = Field(None, description="MLflow tracking URI; none: SQLite under runs_dir")
    experiment: str = "mixlens"


class RunSpec(Spec):
    """One fine-tuning run: everything that decides its result, and nothing else in its digest."""

    name: str
    model: str
    model_fingerprint: str = ""
    components: dict[str, ComponentSpec]
    weights: Weights
    ratio: Share
    seed: int = Field(ge=0, lt=2**29)
    training: TrainingSpec
    evaluation: EvaluationSpec
    resources: ResourceSpec = ResourceSpec()

    def canonical(self) -> dict[str, Any]:
        content = self.model_dump(mode="json")
        for key in ("name", "resources"):
            del content[key]
        for key in ("checkpoint_every", "log_every"):
            del content["training"][key]
        return content

    def base_digest(self) -> str:
        """Digest of what decides the measurement of the base: it, and the held-out images."""
        return digest_of(
            {
                "model": self.model,
                "model_fingerprint": self.model_fingerprint,
                "component": self.components[self.evaluation.component].canonical(),
                "evaluation": self.evaluation.canonical(),
            }
        )


class SweepSpec(Spec):
    """A sweep file: one base model, named data components, and the ratios and seeds to try."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    model: str = "builtin:tiny-vllm"
    model_fingerprint: str = Field(
        "",
        description="filled in when the sweep starts, so that a base with other weights under the "
        "same name makes other runs",
    )
    runs_dir: str = "runs"
    components: dict[str, ComponentSpec] = Field(min_length=1)
    mixture: MixtureSpec
    ratios: tuple[Share, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    training: TrainingSpec
    evaluation: EvaluationSpec
    resources: ResourceSpec = ResourceSpec()
    tracking: TrackingSpec = TrackingSpec()

    @model_validator(mode="after")
    def _check(self) -> "SweepSpec":
        known = sorted(self.components)
        for side in ("high", "low"):
            for name in getattr(self.mixture, side):
                if name not in self.components:
                    raise ValueError(f"mixture.{side} names {name!r}; the components are {known}")
        if self.evaluation.component not in self.components:
            raise ValueError(
                f"evaluation.component is {self.evaluation.component!r}; the components are {known}"
            )
        for axis in ("ratios", "seeds"):
            values = getattr(self, axis)
            if len(set(values)) != len(values):
                raise ValueError(f"{axis} repeats a value: {list(values)}")
        if any(not 0 <= seed < 2**29 for seed in self.seeds):
            raise ValueError(f"seeds must lie within 0 and {2**29 - 1}: {list(self.seeds)}")
        batch, rows = self.training.global_batch, self.training.micro_batch * self.resources.workers
        if batch % rows:
            raise ValueError(
                f"training.global_batch {batch} is no multiple of micro_batch x workers = {rows}"
            )
        return self

    def runs(self) -> tuple[RunSpec, ...]:
        """One run for each ratio and seed, in the order of the file."""
        return tuple(
            RunSpec(
                name=f"ratio={ratio:g},seed={seed}",
                model=self.model,
                model_fingerprint=self.model_fingerprint,
                components=self.components,
                weights=self.mixture.weights(ratio),
                ratio=ratio,
                seed=seed,
                training=self.training,
                evaluation=self.evaluation,
                resources=self.resources,
            )
            for ratio in self.ratios
            for seed in self.seeds
        )
