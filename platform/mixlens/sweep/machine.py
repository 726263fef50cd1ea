"""What a Ray cluster can give, against what a trial takes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from mixlens.errors import ResourceError, explain
from mixlens.spec import ResourceSpec

LAUNCHER_CONFIG = Path("~/ray_bootstrap_config.yaml")


@dataclass(frozen=True)
class Capacity:
    """Logical CPUs and GPUs of a cluster; infinite where the launcher does not state them."""

    cpus: float
    gpus: float
    source: str


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
    fit = min(
        _how_often(need.workers * need.cpus_per_worker, cpus),
        _how_often(need.workers * need.gpus_per_worker, gpus),
    )
    if fit < 1:
        wanted = (
            f"{need.workers} workers x ({need.cpus_per_worker:g} CPU, "
            f"{need.gpus_per_worker:g} GPU) + {need.actors} measurement actors x "
            f"({need.cpus_per_actor:g} CPU, {need.gpus_per_actor:g} GPU) + "
            f"{need.cpus_per_render:g} CPU for rendering"
        )
        raise ResourceError(
            explain(
                "resources",
                wanted,
                f"{have.source} has {have.cpus:g} CPUs and {have.gpus:g} GPUs",
                "Lower resources.workers or what each takes, or start a larger cluster.",
            )
        )
    return int(min(fit, need.max_concurrent_trials or math.inf, max(trials, 1)))


def _how_often(each: float, there: float) -> float:
    """How many times `each` fits into `there`; fractions like 0.1 + 0.2 count as 0.3."""
    return math.inf if each == 0 else math.floor(round(there / each, 6))
