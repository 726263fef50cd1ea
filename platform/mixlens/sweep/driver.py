"""Run a sweep on Ray: one Ray Train job a trial under Ray Tune, each measured when it is trained.

What is finished is known from the records in the sweep's directory, never from Ray's own state:
the same command, started again, does what is missing.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray._private.utils import get_num_cpus
from ray.tune.integration.ray_train import TuneReportCallback

import mixlens
from mixlens.activations.pool import MeasurementPool
from mixlens.errors import ResourceError, explain, first_line
from mixlens.spec import Layout, ResourceSpec, RunSpec, held_out_of, transfer_of
from mixlens.sweep.machine import Address, Capacity, address_of, capacity_of, check_reachable
from mixlens.sweep.measuring import measure_model
from mixlens.sweep.records import finish_trial, start_trial
from mixlens.training.launch import launch

PACKAGE = Path(mixlens.__file__).parent
DRIVER_CPUS = 0.01  # a trial's own process only waits for its workers, but Tune wants a number

OnTrial = Callable[[str, str, dict[str, Any]], None]
"""Called with trial name, stage and last metrics whenever a trial reports or ends."""


@contextmanager
def ray_running(resources: ResourceSpec, logs: Path) -> Iterator[Capacity]:
    """Connect to the cluster of `resources.address` or RAY_ADDRESS, or start Ray on this machine.

    Yields what it has.

    Raises:
        ResourceError: there is no Ray at the address.
    """
    address = address_of(resources)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")
    # Tune would take Ctrl-C for the end of its own work only, and return as if all were well.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    if address:
        check_reachable(address)
        # Workers elsewhere have no checkout: they get the package as it is here.
        options |= {"address": address.value, "runtime_env": {"py_modules": [str(PACKAGE)]}}
    else:
        root = str(PACKAGE.parent)
        known = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, known]))
        options |= {"address": "local", "include_dashboard": False}
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = address or Address("none, so this machine", "resources.address")
        raise ResourceError(
            explain(where.field, where.value, f"no Ray: {first_line(error)}",
                    f"Check the address and the token; details are in {logs}.")
        ) from error  # fmt: skip
    try:
        yield capacity_of(ray.cluster_resources()) if address else this_machine()
    finally:
        ray.shutdown()


def this_machine() -> Capacity:
    """What a Ray that is started here has, by Ray's own count, which knows containers."""
    cpus = get_num_cpus(override_docker_cpu_warning=True)
    return Capacity(cpus, torch.cuda.device_count(), "this machine")


def run_trials(
    runs: tuple[RunSpec, ...], layout: Layout, at_once: int, on_trial: OnTrial
) -> dict[str, str]:
    """Measure the base, then train and measure every run that is not finished, so many at once.

    Returns:
        The names of runs that failed, each with its reason.
    """
    first = runs[0]
    pending = [run for run in runs if not layout.finished(run)]
    pool = MeasurementPool(first.resources)
    base = layout.base(first)
    try:
        measure_model(pool, held_out_of(first), first.model, base / "measure")
        if transfer := transfer_of(first):
            measure_model(pool, transfer, first.model, base / "transfer")
        if not pending:
            return {}
        by_name = {run.name: run for run in pending}
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_run_trial, runs=by_name, layout=layout, pool=pool),
                {"CPU": DRIVER_CPUS},
            ),
            param_space={"run": tune.grid_search(list(by_name))},
            tune_config=tune.TuneConfig(max_concurrent_trials=at_once, reuse_actors=True),
            run_config=tune.RunConfig(
                # Kept for Ray's own logs; what is finished is told by our records.
                name=time.strftime("tune-%Y%m%d-%H%M%S"),
                storage_path=str(layout.logs),
                verbose=0,
                callbacks=[_Watcher(on_trial)],
            ),
        )
        results = tuner.fit()
        return {
            result.config["run"]: _reason(result.error)
            for result in results
            if result.error is not None
        }
    finally:
        pool.close()


def _run_trial(
    config: dict[str, str], runs: dict[str, RunSpec], layout: Layout, pool: MeasurementPool
) -> None:
    """One trial, in a process of its own: train, measure, and write the record last."""
    run = runs[config["run"]]
    folder = layout.trial(run)
    start_trial(run, folder)
    model = launch(run, folder, callbacks=[TuneReportCallback()])
    tune.report({"stage": "measuring"})
    base = layout.base(run) / "measure"
    measure_model(pool, held_out_of(run), str(model), folder / "measure", base)
    finish_trial(run, folder)
    tune.report({"stage": "done"})


def _reason(error: Exception) -> str:
    """The last line of what went wrong, which names it; of a message for people, only that."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return re.sub(r"^mixlens\.errors\.\w+: ", "", lines[-1])


class _Watcher(tune.Callback):
    """Passes on what trials report."""

    def __init__(self, on_trial: OnTrial) -> None:
        self._on_trial = on_trial

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes callbacks to disk for its own restore, which is never used here.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._on_trial(trial.config["run"], "training", {})

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        self._on_trial(trial.config["run"], result.get("stage", "training"), result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._on_trial(trial.config["run"], "failed", {})
