"""A sweep file as a whole, and the runs it stands for."""

from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import Field, model_validator

from mixlens.errors import explain
from mixlens.spec.base import Name, RunsDir, Share, Spec, digest_of
from mixlens.spec.coco import CocoSpec
from mixlens.spec.component import ComponentSpec
from mixlens.spec.data import EvaluationSpec, Mix, MixtureSpec, Weights, as_ever
from mixlens.spec.held_out import (
    canonical_data,
    check_data,
    check_transfer,
    held_out_of,
    transfer_of,
)
from mixlens.spec.training import ResourceSpec, TrainingSpec

# What changes a training's speed, memory or log, but no result beyond rounding. The micro-batch is
# not among it: dropout is drawn for each.
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

BASE = "base"


class TrackingSpec(Spec):
    """Where MLflow keeps the runs; by default in files beside them."""

    uri: str | None = Field(None, description="MLflow tracking URI; none: SQLite under runs_dir")
    experiment: str = "mixlens"


class RunSpec(Spec):
    """One fine-tuning run: everything that decides its result, and nothing else in its digest.

    It belongs to a ratio or to an arm; a single training without a sweep to neither.
    """

    name: str
    model: str
    model_fingerprint: str = ""
    prompts_digest: str = ""
    data: dict[str, CocoSpec] = Field(default_factory=dict)
    components: dict[str, ComponentSpec]
    weights: Weights
    ratio: Share | None = None
    arm: str | None = None
    seed: int = Field(ge=0, lt=2**29)
    training: TrainingSpec
    evaluation: EvaluationSpec
    resources: ResourceSpec = ResourceSpec()

    def canonical(self) -> dict[str, Any]:
        content = self.model_dump(mode="json")
        for key in ("name", "arm", "resources"):
            del content[key]
        for key in NEUTRAL:
            del content["training"][key]
        if self.training.learning_rates.cross_attention is None:
            del content["training"]["learning_rates"]["cross_attention"]  # as ever: as language
        del content["evaluation"]["transfer"]  # the base alone is measured on it
        content["evaluation"] = as_ever(content["evaluation"])
        content["data"] = canonical_data(self.data)
        return content

    def base_digest(self) -> str:
        """Digest of what decides the measurement of the base: it, and the held-out images."""
        transfer = transfer_of(self)
        return digest_of(
            {
                "model": self.model,
                "model_fingerprint": self.model_fingerprint,
                "prompts_digest": self.prompts_digest,
                "held_out": held_out_of(self).canonical(),
                "transfer": None if transfer is None else transfer.canonical(),
            }
        )


class SweepSpec(Spec):
    """A sweep file: one base model, named data components, and the ratios and seeds to try.

    In place of a mixture and its ratios it may name arms: mixtures of any components, each of which
    the same base is fine-tuned on. They are listed from simple to complex, and the answer says
    whether results go along with that order.
    """

    name: Name
    model: str = "builtin:tiny-vllm"
    model_fingerprint: str = Field(
        "",
        description="filled in when the sweep starts, so that a base with other weights under the "
        "same name makes other runs",
    )
    prompts_digest: str = Field(
        "", description="filled in likewise, so that other phrasings make other runs"
    )
    runs_dir: RunsDir = "runs"
    data: dict[Name, CocoSpec] = Field({}, description="data sets that components name")
    components: dict[Name, ComponentSpec] = Field(min_length=1)
    mixture: MixtureSpec | None = None
    ratios: tuple[Share, ...] | None = Field(None, min_length=1)
    arms: dict[Name, Mix] | None = Field(
        None,
        min_length=1,
        description="in place of mixture and ratios: name -> weights, from simple to complex",
    )
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    training: TrainingSpec
    evaluation: EvaluationSpec
    resources: ResourceSpec = ResourceSpec()
    tracking: TrackingSpec = TrackingSpec()

    @model_validator(mode="after")
    def _check(self) -> "SweepSpec":
        self._check_axis()
        check_data(self.components, self.data)
        check_transfer(self.evaluation)
        known = f"The components are {', '.join(sorted(self.components))}."
        named: dict[str, Iterable[str]] = {"evaluation.component": [self.evaluation.component]}
        if self.evaluation.transfer is not None:
            named["evaluation.transfer"] = [self.evaluation.transfer]
        if self.mixture is not None:
            named |= {"mixture.high": self.mixture.high, "mixture.low": self.mixture.low}
        named |= {f"arms.{arm}": weights for arm, weights in (self.arms or {}).items()}
        for field, names in named.items():
            for name in names:
                if name not in self.components:
                    raise ValueError(explain(field, name, "no such component", known))
        for axis in ("ratios", "seeds"):
            values = getattr(self, axis) or ()
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

    def _check_axis(self) -> None:
        """A sweep is one of ratios or one of arms."""
        given = [name for name in ("mixture", "ratios", "arms") if getattr(self, name) is not None]
        if given not in (["mixture", "ratios"], ["arms"]):
            raise ValueError(
                explain(
                    "mixture, ratios, arms",
                    ", ".join(given) or None,
                    "a sweep has either a mixture and its ratios, or arms",
                    "Give mixture and ratios, or arms alone.",
                )
            )
        if BASE in (self.arms or {}):
            raise ValueError(
                explain("arms", BASE, "the model before fine-tuning is called so", "Rename it.")
            )

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
        """One run for each ratio or arm and each seed, in the order of the file."""
        return tuple(
            RunSpec(
                name=f"{name},seed={seed}",
                model=self.model,
                model_fingerprint=self.model_fingerprint,
                prompts_digest=self.prompts_digest,
                data=self.data,
                components=self.components,
                weights=weights,
                ratio=ratio,
                arm=arm,
                seed=seed,
                training=self.training,
                evaluation=self.evaluation,
                resources=self.resources,
            )
            for name, ratio, arm, weights in self._levels()
            for seed in self.seeds
        )

    def _levels(self) -> Iterator[tuple[str, float | None, str | None, Weights]]:
        """Name, ratio, arm and weights of each ratio or arm, in the order of the file."""
        for arm, weights in (self.arms or {}).items():
            yield arm, None, arm, weights
        for ratio in self.ratios or ():
            assert self.mixture is not None  # checked: ratios have their mixture
            yield f"ratio={ratio:g}", ratio, None, self.mixture.weights(ratio)
