"""Whether a run fits its GPUs, and which settings would make it fit."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mixlens.errors import ResourceError, explain
from mixlens.training.cost.memory import Memory, memory
from mixlens.training.cost.setting import Setting
from mixlens.training.cost.shape import ModelShape
from mixlens.training.cost.tokens import RowTokens

GIB = 2**30
LORA_RANK = 16
MOST_WORKERS = 64


def check_fits(
    shape: ModelShape, tokens: RowTokens, setting: Setting, device_bytes: float | None
) -> Memory:
    """The memory of a run, which must not be more than a GPU has; None: unknown, not checked.

    Raises:
        ResourceError: it needs more; the message names the first settings found that need less.
    """
    needed = memory(shape, tokens, setting)
    if device_bytes is None or needed.peak <= device_bytes:
        return needed
    remedy = remedy_for(shape, tokens, setting, device_bytes)
    if remedy is None:
        advice = (
            "No micro_batch, zero_stage, offload, activation_checkpointing, lora or number of "
            f"workers up to {MOST_WORKERS} would make it fit: take a smaller model or larger GPUs."
        )
    else:
        changes, less = remedy
        advice = (
            f"By the same estimate it fits with {_listed(changes)} ({less.peak / GIB:.1f} GiB a "
            "GPU" + _elsewhere(less) + ")."
        )
    raise ResourceError(
        explain(
            "training", _described(setting),
            f"needs {needed.peak / GIB:.1f} GiB a GPU and {device_bytes / GIB:.1f} are there",
            advice,
        )
    )  # fmt: skip


def remedy_for(
    shape: ModelShape, tokens: RowTokens, setting: Setting, device_bytes: float
) -> tuple[dict[str, Any], Memory] | None:
    """The first change of settings that makes a run fit, and what it then needs."""
    for changes in alternatives(setting):
        other = replace(setting, **_as_fields(changes, shape))
        if other.global_batch % (other.micro_batch * other.workers):
            continue
        less = memory(shape, tokens, other)
        if less.peak <= device_bytes:
            return changes, less
    return None


def alternatives(setting: Setting) -> Iterator[dict[str, Any]]:
    """Changes that take less memory: gentle ones first.

    First what changes no result, alone and then together; then more workers; last LoRA, which
    trains something else.
    """
    checkpointing: dict[str, Any] = {}
    if not setting.activation_checkpointing:
        checkpointing = {"activation_checkpointing": True}
        yield checkpointing
    sizes = [n for n in range(setting.micro_batch - 1, 0, -1) if setting.micro_batch % n == 0]
    for size in sizes:
        yield {"micro_batch": size}
    stages: list[dict[str, Any]] = [
        {"zero_stage": stage} for stage in range(setting.zero_stage + 1, 4)
    ]
    yield from stages
    smallest: dict[str, Any] = {**checkpointing, **({"micro_batch": 1} if sizes else {})}
    for size in sizes:
        yield {**checkpointing, "micro_batch": size}
    for stage in stages:
        yield {**checkpointing, **stage}
        yield {**smallest, **stage}
    sharded: list[dict[str, Any]] = [{}, *stages] if setting.zero_stage else stages
    if setting.offload_optimizer == "none":
        for stage in sharded:
            for rest in ({}, checkpointing, smallest):
                yield {**rest, **stage, "offload_optimizer": "cpu"}
    full: dict[str, Any] = {**smallest, **({"zero_stage": 3} if setting.zero_stage < 3 else {})}
    if setting.offload_optimizer == "none":
        full["offload_optimizer"] = "cpu"
    if setting.offload_parameters == "none":
        yield {**full, "offload_parameters": "cpu"}
    workers = setting.workers * 2
    while workers <= MOST_WORKERS:
        yield {**smallest, **_stage3(setting), "workers": workers}
        workers *= 2
    if setting.lora_rank is None:
        for rest in ({}, checkpointing, smallest, {**smallest, **_stage3(setting)}, full):
            yield {**rest, "lora": LORA_RANK}
        yield {**full, "offload_parameters": "cpu", "lora": LORA_RANK}


def _stage3(setting: Setting) -> dict[str, Any]:
    return {"zero_stage": 3} if setting.zero_stage < 3 else {}


def _as_fields(changes: dict[str, Any], shape: ModelShape) -> dict[str, Any]:
    """The same changes as fields of a `Setting`."""
    fields = dict(changes)
    if (rank := fields.pop("lora", None)) is not None:
        fields |= {"lora_rank": rank, "lora_towers": tuple(shape.parameters), "freeze": ()}
    return fields


def _listed(changes: dict[str, Any]) -> str:
    """The changes as they would stand in a sweep file."""
    said = [_said(name, value) for name, value in changes.items()]
    return said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]


def _said(name: str, value: Any) -> str:
    if name == "workers":
        return f"resources.workers: {value}"
    if name == "lora":
        return f"training.lora: {{rank: {value}}}"
    return f"training.{name}: {str(value).lower()}"


def _elsewhere(needed: Memory) -> str:
    host = sum(needed.host.values())
    return f", and {host / GIB:.1f} GiB of main memory a node" if host else ""


def _described(setting: Setting) -> str:
    """What of a setting decides about memory, in one line."""
    parts = [
        f"micro_batch {setting.micro_batch}", f"zero_stage {setting.zero_stage}",
        f"{setting.workers} workers", setting.precision,
    ]  # fmt: skip
    parts += [f"LoRA of rank {setting.lora_rank}"] if setting.lora_rank else []
    parts += ["activation_checkpointing"] if setting.activation_checkpointing else []
    return ", ".join(parts)
