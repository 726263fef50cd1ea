"""What a training worker knows about its place among the others, however it was started."""

import os
import shutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

Metrics = dict[str, Any]


@dataclass(frozen=True)
class WorkerContext(ABC):
    """The only door between the training loop and whatever runs it.

    Attributes:
        rank: 0 to `world_size` - 1.
        world_size: workers of this run.
        local_rank: rank among the workers of this machine.
        device: where this worker's model lives.
        directory: the run's folder, which every worker can read and write.
    """

    rank: int
    world_size: int
    local_rank: int
    device: torch.device
    directory: Path

    @abstractmethod
    def checkpoint_folder(self, step: int) -> Path:
        """An existing folder for this rank's part of the checkpoint after `step` steps."""

    @abstractmethod
    def report(self, metrics: Metrics, checkpoint: Path | None = None) -> None:
        """Publish metrics, and the checkpoint that all ranks have written.

        All ranks must call it equally often: it waits for every one of them.
        """

    @abstractmethod
    def latest_checkpoint(self) -> Path | None:
        """A readable folder of the newest published checkpoint, if there is one."""


@dataclass(frozen=True)
class FolderContext(WorkerContext):
    """A worker without Ray: checkpoints are kept in `directory/checkpoints`, the newest only.

    The process group must exist; `alone` and `from_torchrun` see to that.
    """

    def checkpoint_folder(self, step: int) -> Path:
        folder = self._checkpoints() / f"step-{step:08d}.part"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def report(self, metrics: Metrics, checkpoint: Path | None = None) -> None:
        if checkpoint is None:
            return
        dist.barrier()
        if self.rank == 0:
            # A folder of this name can only be left from a resume at an earlier step.
            shutil.rmtree(checkpoint.with_suffix(""), ignore_errors=True)
            published = checkpoint.rename(checkpoint.with_suffix(""))
            for other in self._checkpoints().iterdir():
                if other != published:
                    shutil.rmtree(other)
        dist.barrier()

    def latest_checkpoint(self) -> Path | None:
        published = [
            folder for folder in self._checkpoints().glob("step-*") if folder.suffix != ".part"
        ]
        return max(published, default=None)

    def _checkpoints(self) -> Path:
        return self.directory / "checkpoints"


def alone(directory: Path) -> FolderContext:
    """The only worker, in this process."""
    device = default_device(0)
    if not dist.is_initialized():
        dist.init_process_group(backend(device), store=HashStore(), rank=0, world_size=1)
    return FolderContext(0, 1, 0, device, directory)


def from_torchrun(directory: Path) -> FolderContext:
    """The worker that the environment variables of `torchrun` describe."""
    rank, world_size, local_rank = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    )
    device = default_device(local_rank)
    if not dist.is_initialized():
        dist.init_process_group(backend(device))
    return FolderContext(rank, world_size, local_rank, device, directory)


def default_device(local_rank: int) -> torch.device:
    """GPU number `local_rank` where there are GPUs, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def backend(device: torch.device) -> str:
    """The collective library for tensors on `device`."""
    return "nccl" if device.type == "cuda" else "gloo"
