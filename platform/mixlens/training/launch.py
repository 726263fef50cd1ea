"""Training on Ray: a worker group per run, restarted from its latest checkpoint when it breaks."""

import os
import re
import shutil
import socket
import sys
import uuid
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist
from ray import PlacementGroupID
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    CheckpointUploadMode,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
)
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    placement_group_table,
    remove_placement_group,
)

from mixlens import errors
from mixlens.errors import MixlensError, ResourceError, disk_full, explain
from mixlens.mixture.batches import Reader, accumulation
from mixlens.mixture.stream import (
    RayStream,
    make_cursor,
    stream_data_config,
    training_dataset,
)
from mixlens.models import resolve_model
from mixlens.spec import RunSpec
from mixlens.training.context import Metrics, WorkerContext
from mixlens.training.records import finished_model
from mixlens.training.zero import check_nvme

STORAGE = "train"  # in the run's directory
HELD = f"{STORAGE}/placement_group.txt"
GROUP = "workers"  # Ray Train's name of the run; the same at every start, so that it resumes
STARTS = 3  # attempts to get all workers
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"  # of one attempt, Ray Train's variable
LOCAL_START_S = 60.0
CLUSTER_START_S = 1200.0  # an autoscaled node boots, fetches its image and joins in many minutes


def launch(run: RunSpec, directory: Path) -> Path:
    """Train `run` on the connected Ray cluster; returns `directory/model`.

    A second call continues from the latest checkpoint, or returns at once when the run is
    finished. `directory` must be readable and writable from every node. Workers log to
    `directory/logs`. On a Ray that was there before, whose nodes may have to boot first, workers
    are waited for much longer than on one that was started here; the environment variable
    `START_TIMEOUT`, seconds, overrules both.

    Args:
        run: what to train; `run.resources` says on how many workers.
        directory: the folder of this run.

    Raises:
        MixlensError: whatever a person can correct, as it was raised in a worker.
        ResourceError: the cluster did not give the workers, a disk is full, or the workers do not
            share `directory`.
        TrainingFailedError: any other failure, after `resources.max_failures` restarts.
    """
    directory = directory.absolute()
    if (model := finished_model(run, directory)) is None:
        # What can be known to be wrong is refused here, before any worker starts.
        accumulation(run, run.resources.workers)
        resolve_model(run.model)
        Reader(run)
        if not _was_there_before(run):
            check_nvme(run.training)  # the workers run on this machine
        directory.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault(START_TIMEOUT, str(_start_timeout_s(run)))
        _free_lost_workers(directory)
        try:
            _trainer(run, directory).fit()
        except TrainingFailedError as error:
            if (wrong := _explained(error, run, directory)) is None:
                raise
            raise wrong from error
        if (model := finished_model(run, directory)) is None:
            raise not_shared(directory)
    # Optimiser state, three times the model, serves nothing any more.
    shutil.rmtree(directory / STORAGE, ignore_errors=True)
    return model


def _hold_for(directory: Path) -> None:
    """Note what Ray has set aside for this worker's group, for `_free_lost_workers`."""
    if (held := get_current_placement_group()) is not None:
        (directory / HELD).parent.mkdir(exist_ok=True)
        (directory / HELD).write_text(held.id.hex())


def _free_lost_workers(directory: Path) -> None:
    """Have Ray end the workers of an earlier launch, if there still are any, and free their place.

    Where the process that leads them is killed, Ray Train leaves that to a helper, which needs
    Ray's dashboard. Without it, the place would be taken until Ray ends.
    """
    if not (directory / HELD).is_file():
        return
    known = (directory / HELD).read_text()
    if placement_group_table().get(known, {}).get("state") in ("CREATED", "RESCHEDULING"):
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(known))))


def not_shared(directory: Path) -> ResourceError:
    """What to tell where workers have written a run's results to a folder of another machine."""
    return ResourceError(
        explain(
            "runs_dir", str(directory),
            f"training ended, but its model is not there as {socket.gethostname()} sees it: the "
            "workers wrote to a folder of this name on nodes that do not share it",
            "Set runs_dir to a folder that all nodes mount; what was trained must be trained "
            "again.",
        )
    )  # fmt: skip


def _start_timeout_s(run: RunSpec) -> float:
    """How long to wait for the workers at each attempt.

    A trial's process may be a Ray worker on any node, which does not see the variables of the
    process that connected to a cluster. But only on a cluster does that one have to give its
    workers a runtime environment: the package, and what a submitted job brings.
    """
    return CLUSTER_START_S if _was_there_before(run) else LOCAL_START_S


def _was_there_before(run: RunSpec) -> bool:
    """Whether Ray may be a cluster, and not one that was started on this machine for this."""
    address = run.resources.address or os.environ.get("RAY_ADDRESS")
    return bool(address or ray.get_runtime_context().runtime_env)


def _trainer(run: RunSpec, directory: Path) -> TorchTrainer:
    resources = run.resources
    cursor = make_cursor()
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return TorchTrainer(
        _work,
        train_loop_config={
            "run": run.model_dump_json(),
            "directory": str(directory),
            "cursor": cursor,
        },
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={name: amount for name, amount in bundle.items() if amount},
        ),
        datasets={"train": training_dataset(run, cursor)},
        dataset_config=stream_data_config(),
        run_config=RunConfig(
            name=GROUP,
            storage_path=str(directory / STORAGE),
            failure_config=FailureConfig(
                max_failures=resources.max_failures, controller_failure_limit=STARTS - 1
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            callbacks=[_NoRetryOfUserErrors()],
        ),
    )


def _work(config: dict[str, Any]) -> None:
    """What each worker does."""
    run = RunSpec.model_validate_json(config["run"])
    train_context = ray.train.get_context()
    rank, world_size = train_context.get_world_rank(), train_context.get_world_size()
    directory = Path(config["directory"])
    try:
        _log_to(directory / "logs" / f"train-{rank}.log")
        _train(run, rank, world_size, directory, config["cursor"])
    except Exception as error:
        if (full := disk_full(error, directory)) is not None:
            raise full from error
        raise


def _train(run: RunSpec, rank: int, world_size: int, directory: Path, cursor: Any) -> None:
    torch.set_num_threads(max(1, int(run.resources.cpus_per_worker)))

    from mixlens.training.zero import import_deepspeed

    import_deepspeed()
    from mixlens.models import keep_freed_memory
    from mixlens.training.loop import train
    from mixlens.training.sharded import collate_of, load_trainable

    keep_freed_memory()

    if rank == 0:
        _hold_for(directory)
    local_rank = ray.train.get_context().get_local_rank()
    device = get_device() if run.resources.gpus_per_worker else torch.device("cpu")
    context = RayContext(rank, world_size, local_rank, device, directory)
    begin = context.latest_checkpoint() or run.model
    # Ray patches `print` so that the line would stand there twice.
    sys.stderr.write(f"worker {rank} of {world_size}, process {os.getpid()}, from {begin}\n")
    vlm = load_trainable(run, context)
    shard = ray.train.get_dataset_shard("train")
    stream = RayStream(
        shard, run, rank, world_size, collate_of(run, vlm), cursor, vlm.adapter.refuses
    )
    train(run, context, vlm, stream)


class RayContext(WorkerContext):
    """A worker of a Ray Train group."""

    def checkpoint_folder(self, step: int) -> Path:
        # A fresh name at every attempt: a worker that was cut off and lives on disturbs nobody.
        suffix = [uuid.uuid4().hex[:8]]
        dist.broadcast_object_list(suffix, src=0)
        folder = self.directory / STORAGE / GROUP / f"step-{step:08d}-{suffix[0]}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def report(self, metrics: Metrics, checkpoint: Path | None = None) -> None:
        ray.train.report(
            metrics,
            checkpoint=checkpoint and Checkpoint.from_directory(str(checkpoint)),
            # It was written to where Ray would put it.
            checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
        )

    def latest_checkpoint(self) -> Path | None:
        checkpoint = ray.train.get_checkpoint()
        return Path(checkpoint.path) if checkpoint else None


class _NoRetryOfUserErrors(UserCallback):
    """A wrong input stays wrong: end the run instead of restarting its workers."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if (wrong := _user_error(error)) is not None:
                raise wrong


def _explained(error: TrainingFailedError, run: RunSpec, directory: Path) -> MixlensError | None:
    """What to tell the person whose run failed; None where only the error itself tells it."""
    failures: list[Exception] = [error]
    if isinstance(error, ControllerError):
        failures = [error.controller_failure]
    if isinstance(error, WorkerGroupError):
        failures = list(error.worker_failures.values())
    for failure in failures:
        wrong = _user_error(failure) or disk_full(failure, directory)
        if wrong is not None:
            return wrong
        name = type(failure).__name__
        if "Startup" in name or "InsufficientClusterResources" in name:
            resources = run.resources
            return ResourceError(
                explain(
                    "resources.workers", resources.workers,
                    f"the cluster did not start so many with {resources.cpus_per_worker} CPUs and "
                    f"{resources.gpus_per_worker} GPUs each, in {STARTS} attempts of at most "
                    f"{float(os.environ[START_TIMEOUT]):g} seconds",
                    "Ask for less, see `ray status` for what is taken or still booting, or wait "
                    f"longer by the environment variable {START_TIMEOUT}.",
                )
            )  # fmt: skip
    return None


def _user_error(error: BaseException | None) -> MixlensError | None:
    """The MixlensError that is wrapped in what Ray passed on, as it was raised."""
    text = str(error)
    while error is not None:
        inner = getattr(error, "cause", None)  # a RayTaskError is also an instance of its cause
        if isinstance(error, MixlensError) and inner is None:
            return error
        error = inner or error.__cause__
    # Of what failed in a rendering task, Ray Data keeps no more than the printed traceback.
    if printed := re.findall(r"^mixlens\.errors\.(\w+): (.+)$", text, re.MULTILINE):
        name, message = printed[-1]
        return getattr(errors, name)(message)
    return None


def _log_to(path: Path) -> None:
    """Send what this process prints, native libraries included, to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
