"""How one model is fine-tuned, and on what it runs."""

from typing import Literal, get_args

from pydantic import Field, model_validator

from mixlens.spec.base import Spec

# Cross-attention layers are a tower of their own in the families that have them.
Tower = Literal["vision", "projector", "language", "cross_attention"]
TOWERS: tuple[Tower, ...] = get_args(Tower)
Attention = Literal["auto", "sdpa", "flash_attention_2", "plain"]
Memory = Literal["none", "cpu", "nvme"]


class LearningRates(Spec):
    """Peak learning rate of each part of the model."""

    vision: float = Field(1e-4, ge=0, description="peak learning rate of the image encoder")
    projector: float = Field(
        1e-4, ge=0, description="of the projector, which brings image tokens to the decoder"
    )
    language: float = Field(1e-4, ge=0, description="of the language model")
    cross_attention: float | None = Field(
        None,
        ge=0,
        description="of cross-attention layers, in families that have them; none: as language",
    )

    def of(self, tower: Tower) -> float:
        """The peak learning rate of `tower`."""
        if tower == "cross_attention" and self.cross_attention is None:
            return self.language
        rate: float = getattr(self, tower)
        return rate


class LoraSpec(Spec):
    """Low-rank adapters on all linear layers of the named towers; everything else is frozen."""

    rank: int = Field(16, ge=1, description="the rank of the adapters' matrices")
    alpha: float = Field(
        32.0, gt=0, description="the output of adapters is multiplied by alpha / rank"
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the adapters' inputs that is dropped",
        json_schema_extra={"unit": "share of inputs"},
    )
    towers: tuple[Tower, ...] = Field(TOWERS, description="parts of the model that get adapters")


class TrainingSpec(Spec):
    """Optimiser steps of `global_batch` examples each, split over workers and accumulation."""

    steps: int = Field(
        ge=1, description="optimiser steps of one trial", json_schema_extra={"unit": "steps"}
    )
    global_batch: int = Field(
        ge=1,
        description="examples an optimiser step, over all workers",
        json_schema_extra={"unit": "examples"},
    )
    micro_batch: int = Field(
        ge=1,
        description="examples a forward pass on one worker",
        json_schema_extra={"unit": "examples"},
    )
    learning_rates: LearningRates = Field(
        LearningRates(), description="peak learning rate of each part of the model"
    )
    freeze: tuple[Tower, ...] = Field((), description="parts of the model that are not trained")
    lora: LoraSpec | None = Field(None, description="low-rank adapters; none: all weights train")
    zero_stage: int = Field(
        1,
        ge=0,
        le=3,
        description="DeepSpeed's ZeRO: workers split among them 0 nothing, 1 the optimiser's "
        "state, 2 gradients too, 3 weights too",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "bf16", description="the number format of matrix products"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, on all matrices but embeddings")
    betas: tuple[float, float] = Field(
        (0.9, 0.95), description="decay of AdamW's two moments, 0 to 1"
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        description="optimiser steps in which learning rates rise from 0 to their peak",
        json_schema_extra={"unit": "steps"},
    )
    final_lr_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="learning rates fall along a cosine to this share of their peak",
        json_schema_extra={"unit": "share of the peak"},
    )
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    offload_optimizer: Memory = Field(
        "none",
        description="where the optimiser keeps its state and works: the GPU, main memory, "
        "or main memory with its state on NVMe",
    )
    offload_parameters: Memory = Field(
        "none", description="where weights are until they are used: the GPU, main memory or NVMe"
    )
    nvme_path: str | None = Field(None, description="a folder on a disk that every node has itself")
    attention: Attention = Field(
        "auto", description="auto: sdpa on GPUs, on CPUs plain matrix products"
    )
    activation_checkpointing: bool = Field(
        False, description="compute activations again on the way back: less memory, a third slower"
    )
    checkpoint_every: int = Field(
        1000,
        ge=1,
        description="how often a checkpoint is written; above `steps`: none but the final model",
        json_schema_extra={"unit": "steps"},
    )
    log_every: int = Field(
        10,
        ge=1,
        description="how often loss and speed are written down",
        json_schema_extra={"unit": "steps"},
    )

    @property
    def unmasked(self) -> bool:
        """Whether attention takes no masks, so that each turn needs a row of its own."""
        return self.attention == "flash_attention_2"

    @model_validator(mode="after")
    def _check(self) -> "TrainingSpec":
        batch, micro = self.global_batch, self.micro_batch
        if batch % micro:
            raise ValueError(
                f"global_batch {batch} is no multiple of micro_batch {micro}. Set global_batch to "
                f"{micro * (batch // micro + 1)}, or micro_batch to a divisor of {batch}."
            )
        self._check_freeze()
        if self.lora and (both := [tower for tower in self.lora.towers if tower in self.freeze]):
            raise ValueError(f"{both} stand in freeze and in lora.towers. Remove them from one.")
        if self.lora and not self.lora.towers:
            raise ValueError(
                "lora.towers names no tower, so nothing would be trained. Name vision, projector, "
                "language or cross_attention."
            )
        if any(not 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas are {list(self.betas)}. Give numbers of at least 0, below 1.")
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} is not below steps {self.steps}. Set it to at "
                f"most {self.steps - 1}."
            )
        self._check_offload()
        return self

    def _check_freeze(self) -> None:
        if self.lora is not None or not set(TOWERS) - {"cross_attention"} <= set(self.freeze):
            return
        if "cross_attention" in self.freeze:
            raise ValueError(
                "freeze names every tower, so nothing would be trained. Take one out, or set lora."
            )
        if self.learning_rates.cross_attention is None:
            raise ValueError(
                "freeze names every tower but cross_attention, which most families do not have, so "
                "nothing would be trained. Take one out, set lora, or, for a model with "
                "cross-attention, give learning_rates.cross_attention."
            )

    def _check_offload(self) -> None:
        """What is not split over the workers cannot be moved out of their way."""
        stage, optimizer, parameters = (
            self.zero_stage, self.offload_optimizer, self.offload_parameters
        )  # fmt: skip
        if parameters != "none" and stage != 3:
            raise ValueError(
                f"offload_parameters is {parameters}, but zero_stage {stage} leaves the parameters "
                "whole. Set zero_stage to 3, or offload_parameters to none."
            )
        if optimizer != "none" and stage == 0:
            raise ValueError(
                f"offload_optimizer is {optimizer}, but zero_stage 0 leaves the optimiser whole. "
                "Set zero_stage to 1, 2 or 3, or offload_optimizer to none."
            )
        if optimizer == "nvme" and stage != 3:
            raise ValueError(
                f"offload_optimizer is nvme, which zero_stage {stage} cannot do. Set zero_stage to "
                "3, or offload_optimizer to cpu."
            )
        if optimizer == "nvme" and self.checkpoint_every <= self.steps:
            raise ValueError(
                "offload_optimizer is nvme, and a checkpoint cannot hold what is there. Set "
                f"checkpoint_every above steps ({self.steps}) to train without checkpoints, or "
                "offload_optimizer to cpu."
            )
        if "nvme" in (optimizer, parameters) and self.nvme_path is None:
            raise ValueError(
                "something is offloaded to nvme, but nvme_path is not given. Set it to a folder on "
                "a local NVMe disk of every node, or offload to cpu."
            )


class ResourceSpec(Spec):
    """The share of the Ray cluster that a trial takes. It never changes a result."""

    address: str | None = Field(None, description="a running Ray; none: start one on this machine")
    workers: int = Field(
        1, ge=1, description="training workers a trial", json_schema_extra={"unit": "workers"}
    )
    cpus_per_worker: float = Field(
        0.5,
        ge=0,
        description="CPUs of a training worker; with the defaults two trials fit on two CPUs",
        json_schema_extra={"unit": "CPUs"},
    )
    gpus_per_worker: float = Field(
        0.0,
        ge=0,
        description="GPUs of a training worker; 0: it trains on CPUs",
        json_schema_extra={"unit": "GPUs"},
    )
    gpu_memory_gb: float | None = Field(
        None,
        gt=0,
        description="memory of one GPU; given, a run that cannot fit is refused",
        json_schema_extra={"unit": "GiB"},
    )
    gpu: str | None = Field(
        None, description="the name of the GPUs, such as 'H100 SXM'; given, hours are estimated"
    )
    cpus_per_render: float = Field(
        0.25,
        gt=0,
        description="CPUs of a task that renders images",
        json_schema_extra={"unit": "CPUs"},
    )
    actors: int = Field(
        1,
        ge=1,
        description="measurement actors, shared by all trials",
        json_schema_extra={"unit": "actors"},
    )
    cpus_per_actor: float = Field(
        0.5, ge=0, description="CPUs of a measurement actor", json_schema_extra={"unit": "CPUs"}
    )
    gpus_per_actor: float = Field(
        0.0,
        ge=0,
        description="GPUs of a measurement actor; 0: it measures on CPUs",
        json_schema_extra={"unit": "GPUs"},
    )
    max_concurrent_trials: int | None = Field(
        None,
        ge=1,
        description="trials at the same time, at most; none: as many as fit",
        json_schema_extra={"unit": "trials"},
    )
    max_failures: int = Field(
        2,
        ge=0,
        description="restarts of a trial's workers, and of a trial that is lost as a whole",
        json_schema_extra={"unit": "restarts"},
    )
