"""What a Ray cluster can give, against what a trial takes."""

import math
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from mixlens.design import SweepSpec
from mixlens.errors import ResourceError, explain
from mixlens.spec import MeasureSpec, ResourceSpec

LAUNCHER_CONFIG = Path("~/ray_bootstrap_config.yaml")
CONNECT_TIMEOUT_S = 5.0
SOCKET_PATH = 107  # bytes that Linux allows a socket's path
WORKING_DIRS = "working_dir_files"  # where Ray unpacks the working directories of jobs


@dataclass(frozen=True)
class Capacity:
    """Logical CPUs and GPUs of a cluster; infinite where the launcher does not state them."""

    cpus: float
    gpus: float
    source: str

    def __str__(self) -> str:
        return f"{self.source} has {self.cpus:g} CPUs and {self.gpus:g} GPUs"


@dataclass(frozen=True)
class Address:
    """Where a running Ray is, and which setting says so."""

    value: str
    field: str


def address_of(resources: ResourceSpec) -> Address | None:
    """The Ray to connect to; None to start one on this machine."""
    if resources.address:
        return Address(resources.address, "resources.address")
    # A job that was submitted to a cluster finds it by this variable.
    known = os.environ.get("RAY_ADDRESS")
    return Address(known, "resources.address, by RAY_ADDRESS") if known else None


def check_reachable(address: Address) -> None:
    """Knock at host:port first, because Ray itself would try for minutes.

    Raises:
        ResourceError: nothing answers there.
    """
    host, _, port = address.value.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ResourceError(
            explain(address.field, address.value, f"nothing answers there ({error})",
                    "Start Ray there, or leave it out to use this machine.")
        ) from error  # fmt: skip


def check_socket_paths(ray_temp: str) -> None:
    """Refuse a temporary folder below which Ray's sockets would have too long paths.

    Raises:
        ResourceError: names the variable that sets the folder.
    """
    longest = f"{ray_temp}/session_2026-01-01_00-00-00_000000_{2**22}/sockets/plasma_store"
    excess = len(os.fsencode(longest)) - SOCKET_PATH
    if excess <= 0:
        return
    variable = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ else "TMPDIR"
    raise ResourceError(
        explain(
            variable,
            str(Path(ray_temp).parent),
            f"Ray keeps sockets below it, whose paths may have {SOCKET_PATH} bytes and would have "
            f"{excess} more",
            "Set RAY_TMPDIR to a short folder, such as /tmp.",
        )
    )


def check_runs_dir(root: Path) -> None:
    """Refuse a directory of a sweep, `root`, that cannot be made or written.

    Raises:
        ResourceError: a part of the path is a file, or not ours to write; or it lies in the folder
            that Ray makes of a submitted job, which ends with it and which no other node has.
    """
    if WORKING_DIRS in root.parts:
        raise ResourceError(
            explain("runs_dir", str(root.parent),
                    "a folder in the temporary working directory of a Ray job, which other nodes "
                    "do not see and Ray deletes",
                    "Set runs_dir to a folder that all nodes mount, such as /mnt/shared/runs.")
        )  # fmt: skip
    if problem := why_not_writable(root):
        raise ResourceError(explain("runs_dir", str(root.parent), problem, "Name another folder."))


def why_not_writable(folder: Path) -> str:
    """What keeps us from writing to a folder that may have to be made; empty if nothing does."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return ""
    return f"{existing} is " + ("not writable" if existing.is_dir() else "a file, not a folder")


def capacity_of(
    resources: Mapping[str, float], launcher_config: Path = LAUNCHER_CONFIG
) -> Capacity:
    """The cluster's present resources, or what its launcher may scale it up to.

    `ray up` leaves its configuration on the head node, where drivers run. Node types there may
    leave CPUs and GPUs to be detected from the machine type: these count as unlimited.
    """
    present = Capacity(resources.get("CPU", 0.0), resources.get("GPU", 0.0), "the Ray cluster")
    path = launcher_config.expanduser()
    if not path.is_file():
        return present
    config = yaml.safe_load(path.read_text())
    cpus, gpus = present.cpus, present.gpus
    for name, group in config["available_node_types"].items():
        nodes = group.get("max_workers", config.get("max_workers", 0))
        if nodes == 0 or name == config.get("head_node_type"):
            continue
        cpus += nodes * group["resources"].get("CPU", math.inf)
        gpus += nodes * group["resources"].get("GPU", math.inf)
    return Capacity(cpus, gpus, "the cluster at its largest")


def trials_at_once(need: ResourceSpec, have: Capacity, trials: int) -> int:
    """How many trials run beside the measurement actors and the rendering of data.

    Raises:
        ResourceError: not even one does.
    """
    cpus = have.cpus - need.actors * need.cpus_per_actor - need.cpus_per_render
    gpus = have.gpus - need.actors * need.gpus_per_actor
    by_cpus = _how_often(need.workers * need.cpus_per_worker, cpus)
    by_gpus = _how_often(need.workers * need.gpus_per_worker, gpus)
    if by_cpus < 1:
        raise _too_small(need, have, "cpus", cpus)
    if by_gpus < 1:
        raise _too_small(need, have, "gpus", gpus)
    return int(min(by_cpus, by_gpus, need.max_concurrent_trials or math.inf, max(trials, 1)))


def check_engine_room(spec: SweepSpec | MeasureSpec, have: Capacity) -> None:
    """Refuse vLLM where there is no room for an engine of it beside the measurement actors.

    In a sweep a trial's engine finds the GPUs that its training has left, or waits for those of
    another trial.

    Raises:
        ResourceError: there would never be room.
    """
    need = spec.resources
    if spec.evaluation.engine != "vllm":
        return
    for kind in ("cpus", "gpus"):
        there, each = getattr(have, kind), getattr(need, f"{kind}_per_actor")
        if (need.actors + 1) * each > there + 1e-6:
            raise ResourceError(
                explain(
                    "evaluation.engine", "vllm",
                    f"{have}, but vLLM takes {each:g} {kind.upper()} beside {need.actors} "
                    f"measurement actors with as many each",
                    f"Lower resources.actors or resources.{kind}_per_actor, use a larger cluster "
                    "by resources.address, or set it to transformers.",
                )
            )  # fmt: skip


def _how_often(each: float, there: float) -> float:
    """How many times `each` fits into `there`; fractions like 0.1 + 0.2 count as 0.3."""
    there = round(there, 6)
    if there < 0:
        return 0
    return math.inf if each == 0 else math.floor(round(there / each, 6))


def _too_small(need: ResourceSpec, have: Capacity, kind: str, left: float) -> ResourceError:
    """Names the field that asks for more than the CPUs or GPUs `left` beside the actors."""
    workers = _how_often(getattr(need, f"{kind}_per_worker"), left)
    if workers >= 1:
        field, remedy = "workers", f"Set it to at most {workers:g}"
    elif need.actors > 1:
        field, remedy = "actors", "Lower it"
    else:
        field, remedy = f"{kind}_per_worker", f"Lower it or {kind}_per_actor"
    return ResourceError(
        explain(
            f"resources.{field}",
            getattr(need, field),
            f"{have}, but one trial takes {need.workers} workers x ({need.cpus_per_worker:g} CPU, "
            f"{need.gpus_per_worker:g} GPU) beside {need.actors} measurement actors x "
            f"({need.cpus_per_actor:g} CPU, {need.gpus_per_actor:g} GPU) and "
            f"{need.cpus_per_render:g} CPU for rendering",
            f"{remedy}, or use a larger cluster by resources.address.",
        )
    )
