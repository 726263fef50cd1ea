"""How one model is fine-tuned, and on what it runs."""

from typing import Literal

from pydantic import Field, model_validator

from mixlens.spec.base import Spec

Tower = Literal["vision", "projector", "language"]


class LearningRates(Spec):
    """Peak learning rate of each part of the model."""

    vision: float = Field(1e-4, ge=0)
    projector: float = Field(1e-4, ge=0)
    language: float = Field(1e-4, ge=0)


class LoraSpec(Spec):
    """Low-rank adapters on all linear layers of the named towers; everything else is frozen."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    towers: tuple[Tower, ...] = ("vision", "projector", "language")


class TrainingSpec(Spec):
    """Optimiser steps of `global_batch` examples each, split over workers and accumulation."""

    steps: int = Field(ge=1)
    global_batch: int = Field(ge=1, description="examples an optimiser step, over all workers")
    micro_batch: int = Field(ge=1, description="examples a forward pass on one worker")
    learning_rates: LearningRates = LearningRates()
    freeze: tuple[Tower, ...] = ()
    lora: LoraSpec | None = None
    zero_stage: Literal[0, 1, 2, 3] = 1
    precision: Literal["fp32", "bf16"] = "bf16"
    weight_decay: float = Field(0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_steps: int = Field(0, ge=0)
    final_lr_share: float = Field(0.0, ge=0, le=1, description="cosine ends at this share of peak")
    clip_norm: float = Field(1.0, gt=0)
    activation_checkpointing: bool = False
    checkpoint_every: int = Field(
        1000, ge=1, description="optimiser steps; above `steps`: no checkpoint but the final model"
    )
    log_every: int = Field(10, ge=1, description="optimiser steps")

    @model_validator(mode="after")
    def _check(self) -> "TrainingSpec":
        batch, micro = self.global_batch, self.micro_batch
        if batch % micro:
            raise ValueError(
                f"global_batch {batch} is no multiple of micro_batch {micro}. Set global_batch to "
                f"{micro * (batch // micro + 1)}, or micro_batch to a divisor of {batch}."
            )
        if set(self.freeze) == {"vision", "projector", "language"} and self.lora is None:
            raise ValueError(
                "freeze names every tower, so nothing would be trained. Take one out, or set lora."
            )
        if self.lora and (both := [tower for tower in self.lora.towers if tower in self.freeze]):
            raise ValueError(f"{both} stand in freeze and in lora.towers. Remove them from one.")
        if self.lora and not self.lora.towers:
            raise ValueError(
                "lora.towers names no tower, so nothing would be trained. Name vision, projector "
                "or language."
            )
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}. Give numbers of at least 0, below 1.")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is not below steps {self.steps}. Set it to at "
                f"most {self.steps - 1}."
            )
        return self


class ResourceSpec(Spec):
    """What a trial takes from the Ray cluster. Never changes a result, so no digest holds it."""

    address: str | None = Field(None, description="a running Ray; none: start one on this machine")
    workers: int = Field(1, ge=1, description="training workers a trial")
    cpus_per_worker: float = Field(1.0, ge=0)
    gpus_per_worker: float = Field(0.0, ge=0)
    cpus_per_render: float = Field(0.25, gt=0, description="CPUs of one data-rendering task")
    actors: int = Field(1, ge=1, description="measurement actors, shared by all trials")
    cpus_per_actor: float = Field(1.0, ge=0)
    gpus_per_actor: float = Field(0.0, ge=0)
    max_concurrent_trials: int | None = Field(None, ge=1, description="none: as many as fit")
    max_failures: int = Field(2, ge=0, description="restarts of a trial's workers")
