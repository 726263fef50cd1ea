"""Run a sweep on Ray: one Ray Train job a trial under Ray Tune, each measured when it is trained.

What is finished is known from the records in the sweep's directory, never from Ray's own state:
the same command, started again, does what is missing.
"""

import json
import os
import re
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray._common.utils import get_default_ray_temp_dir
from ray._private import utils as ray_utils
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import mixlens
from mixlens.design import Layout, SweepSpec, Trial, asked_trials
from mixlens.errors import (
    MixlensError,
    ResourceError,
    Terminated,
    disk_full,
    end_on_sigterm,
    explain,
    first_line,
    sigterm_came,
)
from mixlens.measurement import base_of, is_finished, load, measure, other_of, trial_of
from mixlens.measurement.pool import MeasurementPool
from mixlens.spec import ResourceSpec
from mixlens.sweep.machine import (
    Address,
    Capacity,
    address_of,
    capacity_of,
    check_reachable,
    check_socket_paths,
)
from mixlens.sweep.records import start_trial
from mixlens.sweep.search import Search
from mixlens.sweep.shared import check_visible, not_shared_by, see, seen_by
from mixlens.training.launch import launch
from mixlens.training.records import FINISHED, JOURNAL, last_record

PACKAGE = Path(mixlens.__file__).parent
DRIVER_CPUS = 0.01  # a trial's own process only waits for its workers, but Tune wants a number
HEALTH_CHECK = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"  # Ray Train's variable
STARTS = 3  # attempts to start Ray on this machine, each of which Ray gives up after 30 seconds
LOOK_EVERY_S = 0.5  # how often the folders of running trials are looked into
NODES_WAIT_S = 60.0  # for the nodes' answers whether they see the runs directory

OnTrial = Callable[[Trial, str, dict[str, Any]], None]
"""Called with a trial, its stage and last metrics whenever there is news of a trial, in the loop
that starts trials and sees them end: quick, and without a wait for anything elsewhere.

The stages are training, measuring, done, failed, and lost (it is tried again).
"""


@contextmanager
def ray_running(
    resources: ResourceSpec, folder: Path, log: Path, say: Callable[[str], None]
) -> Iterator[Capacity]:
    """Connect to the cluster of `resources.address` or RAY_ADDRESS, or start Ray on this machine.

    Yields what it has. SIGTERM, which Ray would take for itself, ends the program as before.

    Args:
        resources: where Ray is.
        folder: where results go, which all nodes of a cluster have to share.
        log: the file that holds what Ray prints.
        say: told of what a person should know.

    Raises:
        ResourceError: there is no Ray at the address, it does not start here, or `folder` is not
            shared.
    """
    address = address_of(resources)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    os.environ.setdefault(HEALTH_CHECK, "0.2")
    # Tune would take Ctrl-C for the end of its own work only, and return as if all were well.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    if address:
        check_reachable(address)
        options |= {"address": address.value, "runtime_env": _runtime_env()}
    else:
        root = str(PACKAGE.parent)
        known = os.environ.get("PYTHONPATH", "")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, known]))
        check_socket_paths(ray_temp())
        options |= {"address": "local", "include_dashboard": False}
    try:
        _start_ray(options, address, log, say)
        if address:
            check_shared(folder, say)
        yield capacity_of(ray.cluster_resources()) if address else this_machine()
    finally:
        ray.shutdown()


def _runtime_env() -> dict[str, Any]:
    """What workers on other nodes need: the package as it is here, and Ray Train's settings.

    A submitted job has variables of its own already, which Ray refuses to be told twice.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    known = job.get("runtime_env", {}).get("env_vars", {})
    variables = {} if HEALTH_CHECK in known else {HEALTH_CHECK: os.environ[HEALTH_CHECK]}
    return {"py_modules": [str(PACKAGE)], "env_vars": variables}


def _start_ray(
    options: dict[str, Any], address: Address | None, log: Path, say: Callable[[str], None]
) -> None:
    """`ray.init`; on this machine again where it was too slow for Ray's own limit."""
    where = address or Address("none, so this machine", "resources.address")
    for attempt in range(1, STARTS + 1):
        try:
            with _own_sigterm():
                ray.init(**options)
            return
        except Exception as error:  # Ray raises OSError, ValueError, even Exception itself
            ray.shutdown()
            if (full := disk_full(error, Path(ray_temp()))) is not None:
                raise full from error
            is_slow = address is None and "timed out" in str(error)
            if is_slow and attempt < STARTS:
                say(f"Ray did not start in time ({first_line(error)}): attempt {attempt + 1}")
                continue
            remedy = f"Check the address and the token; details are in {log}."
            if address is None:
                remedy = (
                    f"Details are in {log} and {ray_temp()}/session_latest/logs. "
                    "RAY_TMPDIR names another folder for what Ray writes."
                )
            tries = f" in {attempt} attempts: this machine is too busy" if is_slow else ""
            problem = f"no Ray{tries}: {first_line(error)}"
            raise ResourceError(explain(where.field, where.value, problem, remedy)) from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """SIGTERM means what it meant before, while Ray starts and afterwards.

    Ray would have it exit with code 15, and its native code would abort.
    """
    of_ray = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        ray_utils.set_sigterm_handler = of_ray
        end_on_sigterm()
    # An exception that lands in a finaliser or a bare `except` of a library goes no further.
    if sigterm_came():
        raise Terminated


def check_shared(folder: Path, say: Callable[[str], None]) -> None:
    """Refuse a directory of results that a node of the cluster does not share with this one.

    Each node that is there now is asked whether it sees a file that was written here, and for one
    that must be seen here. Trials on nodes that come later look for themselves.

    Raises:
        ResourceError: names the nodes that do not share it.
    """
    with seen_by(folder) as token:
        asked = {
            ray.remote(num_cpus=0, max_retries=0)(see)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(str(token), node["NodeID"]): node
            for node in ray.nodes()
            if node["Alive"]
        }
        answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=NODES_WAIT_S)
        blind = []
        for answer in answered:
            node = asked[answer]
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            try:
                problem = ray.get(answer) or check_visible(token, node["NodeID"])
            except RayError as error:  # it is gone, or was too busy: it may still be right
                say(f"node {name} did not tell whether it sees {folder}: {first_line(error)}")
                continue
            if problem:
                blind.append(f"{name}: {problem}")
    for answer in silent:
        node = asked[answer]
        say(
            f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) did not tell in "
            f"{NODES_WAIT_S:g} s whether it sees {folder}"
        )
    if blind:
        raise not_shared_by(folder, blind)


def ray_temp() -> str:
    """The folder for all that a Ray that is started here writes."""
    return str(get_default_ray_temp_dir())


def this_machine() -> Capacity:
    """What a Ray that is started here has, by Ray's own count, which knows containers."""
    cpus = ray_utils.get_num_cpus(override_docker_cpu_warning=True)
    return Capacity(cpus, torch.cuda.device_count(), "this machine")


def run_trials(
    spec: SweepSpec, pending: tuple[Trial, ...], layout: Layout, at_once: int, on_trial: OnTrial
) -> dict[str, str]:
    """Measure the base, then train and measure what the design proposes, so many at once.

    A trial whose process, controller or node is lost is tried again from its last checkpoint,
    `resources.max_failures` times.

    Args:
        spec: the sweep.
        pending: the trials that are known not to be finished.
        layout: where results go.
        at_once: trials at a time.
        on_trial: told of news.

    Returns:
        The names of trials that failed, each with its reason.
    """
    resources = spec.resources
    pool = MeasurementPool(resources)
    try:
        for one in filter(None, (base_of(spec, layout.root), other_of(spec, layout.root))):
            measure(pool, one, spec.evaluation.batch_size)
        asked = {trial.name for trial in asked_trials(spec)}

        def scores_of(trial: Trial) -> dict[str, float] | None:
            if not is_finished(spec, layout.root, trial):
                return None
            from mixlens.analysis.headline import headline  # scipy: only where it is needed

            return headline(load(trial_of(spec, layout.root, trial)))

        search = Search(
            spec.design.proposer(spec.seeds),
            lambda point: spec.trial(*point),
            scores_of,
            tuple(trial for trial in pending if trial.name not in asked),
        )
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_run_trial, spec=spec, layout=layout, pool=pool),
                {"CPU": DRIVER_CPUS},
            ),
            tune_config=tune.TuneConfig(
                search_alg=search,
                num_samples=-1,  # until the search says that there is no more
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                # Kept for Ray's own logs; what is finished is told by our records.
                name=time.strftime("tune-%Y%m%d-%H%M%S"),
                storage_path=str(layout.logs),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=resources.max_failures),
                callbacks=[_Watcher(on_trial, layout)],
            ),
        )
        results = tuner.fit()
        return {
            _trial_of(result.config).name: reason
            for result in results
            if (reason := _reason(result, resources.max_failures))
        }
    finally:
        pool.close()


def _trial_of(config: dict[str, Any]) -> Trial:
    return Trial.model_validate_json(config["trial"])


def _run_trial(
    config: dict[str, str], spec: SweepSpec, layout: Layout, pool: MeasurementPool
) -> dict[str, Any]:
    """One trial, in a process of its own: train, measure, and report its headline numbers.

    It tells the driver nothing until it ends, so it never waits for it: progress is read from
    the trial's folder. What is raised here is tried again; other failures are returned.
    """
    trial = _trial_of(config)
    folder, base = layout.trial(trial), base_of(spec, layout.root)
    measurement = trial_of(spec, layout.root, trial)
    try:
        if problem := check_visible(base.record(base.tokens)):
            raise not_shared_by(layout.root, [problem])
        start_trial(trial, folder)
        launch(trial.run, folder)
        measure(pool, measurement, spec.evaluation.batch_size)
    except Exception as error:
        reason = error if isinstance(error, MixlensError) else disk_full(error, folder)
        is_loss = isinstance(error, RayError) and not isinstance(error, RayTaskError)
        if reason is None and is_loss:  # of a process or a node
            raise
        return {"failed": str(reason or _last_line(error)), "story": traceback.format_exc()}
    from mixlens.analysis.headline import headline

    return {"failed": "", "story": "", **headline(load(measurement))}


def _reason(result: Any, retries: int) -> str:
    """Why a trial failed; empty where it did not."""
    if result.error is None:
        failed = result.metrics["failed"]
        if failed:
            print(f"{_trial_of(result.config).name} failed:\n{result.metrics['story']}")
        return failed
    return (
        f"its process, its controller or its node was lost in {retries + 1} attempts "
        f"(resources.max_failures is {retries}). A lack of memory is one cause of many. Ray says "
        f"of the last one: {_last_line(result.error)}"
    )


def _last_line(error: Exception) -> str:
    """The last line of what went wrong, which names it; of a message for people, only that."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return re.sub(r"^mixlens\.errors\.\w+: ", "", lines[-1])


class _Watcher(tune.Callback):
    """Passes on how far trials are, as their folders tell it, and how they end."""

    def __init__(self, on_trial: OnTrial, layout: Layout) -> None:
        self._on_trial, self._layout = on_trial, layout
        self._told: dict[str, tuple[str, Any]] = {}
        self._looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes callbacks to disk for its own restore, which is never used here.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._on_trial(_trial_of(trial.config), "training", {})

    def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        for trial in trials:
            if trial.status == "RUNNING":
                self._look(_trial_of(trial.config))

    def _look(self, trial: Trial) -> None:
        """Tell of a step or a stage that has not been told of."""
        folder, name = self._layout.trial(trial), trial.name
        metrics = last_record(folder / JOURNAL) or {}
        stage = "measuring" if (folder / FINISHED).is_file() else "training"
        news = stage, metrics.get("step")
        if news != self._told.get(name, ("training", None)):
            self._told[name] = news
            self._on_trial(trial, stage, metrics)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._on_trial(_trial_of(trial.config), "lost", {})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        failed = trial.last_result.get("failed")
        told = {} if failed else dict(trial.last_result)
        self._on_trial(_trial_of(trial.config), "failed" if failed else "done", told)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self._on_trial(_trial_of(trial.config), "failed", {})
