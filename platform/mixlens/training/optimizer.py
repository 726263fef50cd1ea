"""Which parameters are trained, in which group, and at which learning rate."""

import math
from typing import Any

import torch
from torch import nn

from mixlens.errors import SpecError, explain
from mixlens.models.adapter import Towers
from mixlens.models.towers import tower_of
from mixlens.spec import TOWERS, Tower, TrainingSpec


def freeze(model: nn.Module, towers: Towers, frozen: tuple[Tower, ...]) -> None:
    """Stop the parameters of the frozen towers from being trained."""
    by_name = tower_of(model, towers)
    for name, parameter in model.named_parameters():
        if by_name[name] in frozen:
            parameter.requires_grad_(False)


def parameter_groups(
    model: nn.Module, towers: Towers, training: TrainingSpec
) -> list[dict[str, Any]]:
    """The trained parameters as optimiser groups, each with its tower and peak learning rate.

    Matrices decay; vectors (norms, biases) and embeddings do not, as is usual. Empty groups are
    left out. The order is the same in every process.

    Raises:
        SpecError: every tower that the model has is frozen.
    """
    by_name = tower_of(model, towers)
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    members: dict[tuple[Tower, bool], list[nn.Parameter]] = {
        (tower, decays): [] for tower in TOWERS for decays in (True, False)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = len(whole_shape(parameter)) >= 2 and id(parameter) not in embeddings
            members[by_name[name], decays].append(parameter)
    if not any(members.values()):
        raise SpecError(
            explain("training.freeze", list(training.freeze), "this model has no other tower, so "
                    "nothing would be trained", f"It has {', '.join(towers)}. Take one out.")
        )  # fmt: skip
    return [
        {
            "params": parameters,
            "tower": tower,
            "peak": training.learning_rates.of(tower),
            "weight_decay": training.weight_decay if decays else 0.0,
        }
        for (tower, decays), parameters in members.items()
        if parameters
    ]


def adamw(groups: list[dict[str, Any]], training: TrainingSpec) -> torch.optim.AdamW:
    """AdamW over `groups`; the fused kernel makes one pass over memory instead of six.

    It exists for GPUs and for CPUs, where it takes a fifth of the plain one's time, and serves
    masters that have been offloaded to main memory as well.
    """
    return torch.optim.AdamW(groups, lr=0.0, betas=training.betas, eps=1e-8, fused=True)


def learning_rate_share(step: int, training: TrainingSpec) -> float:
    """Share of the peak learning rate in optimiser step `step` (from 0): warm-up, then cosine.

    It rises linearly, is 1 in step `warmup_steps`, and would reach `final_lr_share` in step
    `steps`. A pure function, so a checkpoint needs no scheduler state.
    """
    if step < training.warmup_steps:
        return (step + 1) / (training.warmup_steps + 1)
    done = (step - training.warmup_steps) / (training.steps - training.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return training.final_lr_share + (1 - training.final_lr_share) * cosine


def set_learning_rates(optimizer: Any, step: int, training: TrainingSpec) -> dict[str, float]:
    """Give every group its learning rate for `step`; returns them by tower."""
    share = learning_rate_share(step, training)
    rates = {}
    for group in optimizer.param_groups:
        group["lr"] = rates[group["tower"]] = group["peak"] * share
    return rates


def whole_shape(parameter: nn.Parameter) -> torch.Size:
    """The shape of a parameter, also of one that ZeRO-3 has split, which looks empty."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape
