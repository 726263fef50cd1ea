"""A sweep file as a whole, and the runs it stands for."""

from typing import Any

from pydantic import Field, model_validator

from mixlens.errors import explain
from mixlens.spec.base import Share, Spec, digest_of
from mixlens.spec.data import ComponentSpec, EvaluationSpec, MixtureSpec, Weights
from mixlens.spec.training import ResourceSpec, TrainingSpec

# What changes a training's speed, memory or log, but no result beyond rounding. The micro-batch is
# not among it: dropout is drawn for each.
NEUTRAL = ("zero_stage", "activation_checkpointing", "checkpoint_every", "log_every")


class TrackingSpec(Spec):
    """Where MLflow keeps the runs; by default in files beside them."""

    uri: str | None = Field(None, description="MLflow tracking URI; none: SQLite under runs_dir")
    experiment: str = "mixlens"


class RunSpec(Spec):
    """One fine-tuning run: everything that decides its result, and nothing else in its digest."""

    name: str
    model: str
    model_fingerprint: str = ""
    prompts_digest: str = ""
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
        for key in NEUTRAL:
            del content["training"][key]
        return content

    def base_digest(self) -> str:
        """Digest of what decides the measurement of the base: it, and the held-out images."""
        return digest_of(
            {
                "model": self.model,
                "model_fingerprint": self.model_fingerprint,
                "prompts_digest": self.prompts_digest,
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
    prompts_digest: str = Field(
        "", description="filled in likewise, so that other phrasings make other runs"
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
        known = f"The components are {', '.join(sorted(self.components))}."
        named = {f"mixture.{side}": getattr(self.mixture, side) for side in ("high", "low")}
        for field, names in {**named, "evaluation.component": [self.evaluation.component]}.items():
            for name in names:
                if name not in self.components:
                    raise ValueError(explain(field, name, "no such component", known))
        for axis in ("ratios", "seeds"):
            values = getattr(self, axis)
            if len(set(values)) != len(values):
                raise ValueError(
                    explain(axis, list(values), "a value is repeated", "Name each one once.")
                )
        if any(not 0 <= seed < 2**29 for seed in self.seeds):
            raise ValueError(
                explain("seeds", list(self.seeds), "out of range", f"Give 0 to {2**29 - 1}.")
            )
        self._check_batch()
        return self

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

    def runs(self) -> tuple[RunSpec, ...]:
        """One run for each ratio and seed, in the order of the file."""
        return tuple(
            RunSpec(
                name=f"ratio={ratio:g},seed={seed}",
                model=self.model,
                model_fingerprint=self.model_fingerprint,
                prompts_digest=self.prompts_digest,
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
