"""A pool of Ray actors that each hold a model and do one batch of work after another.

A unit of work is a plain function of a model and a few small values, and its result is the same on
any actor, so a killed actor costs the units that it had under way. Images are made where they are
needed: what travels is the spec, the places of the held-out examples, and small arrays.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from mixlens.errors import MixlensError, ResourceError, explain, first_line
from mixlens.models import VLM, keep_freed_memory, load_vlm
from mixlens.spec import ResourceSpec

_RETRIES = 3  # of one unit, each on a fresh actor

Load = Callable[[str], VLM]
"""Gives the model of a path; the one asked for last stays loaded."""


class MeasurementPool:
    """Actors that work on one checkpoint after another; the handle may go to other processes.

    They start when the pool is made, so that their imports overlap with other work, and hold
    `resources.cpus_per_actor` and `gpus_per_actor` each until `close`.

    Attributes:
        resources: as given.
    """

    def __init__(self, resources: ResourceSpec) -> None:
        """Start `resources.actors` actors on the connected Ray cluster.

        Whether the cluster has room for them, now or when it has grown, is for the caller to know.
        """
        self.resources = resources
        actor = ray.remote(_Worker).options(
            num_cpus=resources.cpus_per_actor,
            num_gpus=resources.gpus_per_actor,
            max_restarts=-1,
            max_task_retries=_RETRIES,
        )
        self._actors = [actor.remote(resources) for _ in range(resources.actors)]

    def map(
        self,
        function: Callable[..., Any],
        units: Sequence[Any],
        *shared: Any,
        done: Callable[[int], None] = lambda _: None,
    ) -> list[Any]:
        """`function(load, unit, *shared)` for every unit, in order; dealt to the actors in turn.

        All are queued at once: an actor then finishes one caller's units before another caller's,
        and does not switch between two checkpoints at every unit.

        Args:
            function: an importable function; `load` gives it a model by its path.
            units: what each call is for.
            *shared: the same for all calls; sent once.
            done: told the number of finished units whenever it grows.

        Raises:
            MixlensError: whatever a person can correct, as it was raised in an actor.
            ResourceError: the actors were lost again and again.
        """
        references = [ray.put(value) for value in shared]
        calls = [
            self._actors[i % len(self._actors)].call.remote(function, unit, *references)
            for i, unit in enumerate(units)
        ]
        try:
            waiting = calls
            while waiting:
                _, waiting = ray.wait(waiting, num_returns=1)
                done(len(calls) - len(waiting))
            return ray.get(calls)
        except RayTaskError as error:
            if isinstance(error.cause, MixlensError):
                raise error.cause from None
            raise
        except (RayActorError, ActorUnavailableError) as error:
            raise ResourceError(
                explain("measurement actors", f"{_RETRIES + 1} attempts", "each was lost",
                        f"Look for lack of memory in Ray's logs, or lower evaluation.batch_size. "
                        f"Ray says: {first_line(error)}")
            ) from error  # fmt: skip

    def close(self) -> None:
        """End the actors and free what they hold."""
        for actor in self._actors:
            ray.kill(actor)


class _Worker:
    """The actor: one model at a time, any unit of work with it."""

    def __init__(self, resources: ResourceSpec) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        keep_freed_memory()
        from transformers.utils import logging

        logging.disable_progress_bar()
        torch.set_num_threads(max(1, int(resources.cpus_per_actor)))
        self._on_gpu = resources.gpus_per_actor > 0
        self._loaded: tuple[str, VLM] | None = None

    def call(self, function: Callable[..., Any], unit: Any, *shared: Any) -> Any:
        return function(self._load, unit, *shared)

    def _load(self, model: str) -> VLM:
        if self._loaded is None or self._loaded[0] != model:
            if self._on_gpu and not torch.cuda.is_available():
                raise ResourceError(
                    explain("resources.gpus_per_actor", "a GPU", "torch sees none on this node",
                            "Check the driver and the torch build, or set it to 0.")
                )  # fmt: skip
            self._loaded = None  # two models need not fit
            dtype, device = (torch.bfloat16, "cuda") if self._on_gpu else (torch.float32, "cpu")
            self._loaded = model, load_vlm(model, dtype, device)
        return self._loaded[1]
