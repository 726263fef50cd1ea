"""DeepSpeed: what it is told, and how it is started without its side effects."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn

from mixlens.errors import ResourceError, explain
from mixlens.models.precision import computes_in_bf16
from mixlens.spec import TrainingSpec

Device = Literal["cpu", "cuda"]
BUCKET = 50_000_000  # elements reduced or gathered at once: 200 MB in fp32
SUB_GROUP = 100_000_000  # elements of a worker's share that the optimiser steps over at once
KEPT_WHOLE = 100_000  # at stage 3 norms and biases, smaller than this, are not worth gathering
LIVE = 1_000_000_000  # elements gathered, or kept for a use that is near: 2 GB in bf16


def weights_dtype(training: TrainingSpec, device: str) -> torch.dtype:
    """The type the weights are held in; fp32 master weights exist in any case.

    On GPUs a sharded bf16 run holds bf16 weights beside sharded fp32 masters, the usual and
    smallest way. On CPUs (and without sharding) the weights are the fp32 masters themselves, cast
    by autocast in every forward pass: as fast there within 4 %, and nearer to fp32.
    """
    sharded = training.zero_stage > 0 and device == "cuda"
    return torch.bfloat16 if training.precision == "bf16" and sharded else torch.float32


def deepspeed_config(training: TrainingSpec, world_size: int, device: str) -> dict[str, Any]:
    """The DeepSpeed configuration of a run on `world_size` workers."""
    accumulation = training.global_batch // (training.micro_batch * world_size)
    zero: dict[str, Any] = {
        "stage": training.zero_stage,
        "reduce_bucket_size": BUCKET,
        "overlap_comm": device == "cuda",
    }
    if training.zero_stage == 3:
        zero |= {
            "sub_group_size": SUB_GROUP,
            "stage3_prefetch_bucket_size": BUCKET,
            "stage3_param_persistence_threshold": KEPT_WHOLE,
            "stage3_max_live_parameters": LIVE,
            "stage3_max_reuse_distance": LIVE,
        }
    for part, memory in (
        ("offload_optimizer", training.offload_optimizer),
        ("offload_param", training.offload_parameters),
    ):
        if memory != "none":
            # Only pinned memory is copied to and from a GPU while it works.
            zero[part] = {"device": memory, "pin_memory": device == "cuda"}
        if memory == "nvme":
            zero[part]["nvme_path"] = training.nvme_path
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": training.clip_norm if training.zero_stage else 0.0,
        "steps_per_print": None,
        "zero_optimization": zero,
        # Ours works in main memory too, and its state is what `checkpoint` keeps.
        "zero_force_ds_cpu_optimizer": False,
    }
    if weights_dtype(training, device) == torch.bfloat16:
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def start_engine(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    training: TrainingSpec,
    world_size: int,
    device: torch.device,
) -> Any:
    """A DeepSpeed engine around `model`; the default process group must exist."""
    deepspeed = import_deepspeed()
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))  # DeepSpeed insists on it
    autocasts = weights_dtype(training, device.type) == torch.float32
    if autocasts and computes_in_bf16(training.precision, device.type):
        # Inside the module, because the engine switches off any autocast around itself, and its
        # own would send gradients between workers in bf16.
        model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_config(training, world_size, device.type),
        dist_init_required=False,
    )
    return engine


def clip_unsharded(engine: Any, limit: float) -> float | None:
    """At stage 0, clip the gradients before `engine.step()` and return their norm.

    DeepSpeed would clip too, but keeps no norm there. At other stages this does nothing.
    """
    if engine.zero_optimization_stage():
        return None
    return float(nn.utils.clip_grad_norm_(engine.module.parameters(), limit))


def check_nvme(training: TrainingSpec) -> None:
    """Refuse a run that offloads to NVMe where this machine cannot.

    Raises:
        ResourceError: no such folder, or DeepSpeed cannot build what reads and writes it.
    """
    parts = [
        part for part in ("offload_optimizer", "offload_parameters")
        if getattr(training, part) == "nvme"
    ]  # fmt: skip
    if not parts:
        return
    path = training.nvme_path
    if path is None or not os.access(path, os.W_OK | os.X_OK):
        raise ResourceError(
            explain("training.nvme_path", path, "this machine has no such folder to write in",
                    "Name a folder on a local NVMe disk that every node has.")
        )  # fmt: skip
    import_deepspeed()
    from deepspeed.ops.op_builder import AsyncIOBuilder

    if not AsyncIOBuilder().is_compatible(verbose=False):
        raise ResourceError(
            explain(f"training.{parts[0]}", "nvme", "DeepSpeed cannot build its asynchronous file "
                    "access on this machine", "Install libaio-dev (libaio-devel) and a C++ "
                    "compiler on every node, or offload to cpu.")
        )  # fmt: skip


def import_deepspeed() -> Any:
    """DeepSpeed, without what it imports for nothing (1.7 s) and kept from compiling anything.

    Call it before anything imports transformers, which imports DeepSpeed too.
    """
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with _hidden_mlflow():
        import deepspeed
    with _disabled_compiler():
        import deepspeed.runtime.zero.muon.muon_optimizer
    # Its shared-memory operator would be compiled at start, for half a minute or more.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.")
    return deepspeed


@contextmanager
def _hidden_mlflow() -> Iterator[None]:
    """Make `import mlflow` fail meanwhile; DeepSpeed's autotuner can do without it."""
    if "mlflow" in sys.modules:
        yield
        return
    # None makes an import fail, which the type of the dictionary does not know.
    sys.modules["mlflow"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["mlflow"]


@contextmanager
def _disabled_compiler() -> Iterator[None]:
    """Make `torch.compile` do nothing meanwhile: for one unused function it imports Inductor."""
    before = os.environ.get("TORCHDYNAMO_DISABLE")
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TORCHDYNAMO_DISABLE"]
        else:
            os.environ["TORCHDYNAMO_DISABLE"] = before
