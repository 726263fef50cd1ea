"""Ray that does not start, and what its workers are told; no Ray is started here."""

import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from ray import tune
from ray._private import utils as ray_utils
from ray.exceptions import NodeDiedError, RayError, RayTaskError, WorkerCrashedError
from ray.train.v2.api.exceptions import WorkerGroupError

from mixlens.design import Layout, SweepSpec, asked_trials
from mixlens.errors import DataError, MixlensError, ResourceError, Terminated, ending_on_sigterm
from mixlens.measurement import base_of
from mixlens.spec import ResourceSpec
from mixlens.sweep import driver, shared
from mixlens.sweep.driver import HEALTH_CHECK, _reason, _run_trial, _runtime_env, ray_running
from mixlens.training.launch import _explained

pytestmark = pytest.mark.case

SLOW = Exception(
    "The current node timed out during startup. This could happen because some of the raylet "
    "failed to startup or the GCS has become overloaded."
)


class Starts:
    """`ray.init` that fails so often, and what was said of it."""

    def __init__(self, patch: pytest.MonkeyPatch, errors: list[BaseException]) -> None:
        self.errors, self.tried, self.said = errors, 0, []
        for variable in (HEALTH_CHECK, "TUNE_DISABLE_SIGINT_HANDLER", "PYTHONPATH"):
            patch.setenv(variable, os.environ.get(variable, ""))  # set anew while Ray starts
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr(driver.ray, "init", self.init)
        patch.setattr(driver.ray, "shutdown", lambda: None)

    def init(self, **options: object) -> None:
        self.tried += 1
        if self.tried <= len(self.errors):
            raise self.errors[self.tried - 1]

    def run(self, folder: Path) -> None:
        with ray_running(ResourceSpec(), folder, folder / "ray.log", self.said.append):
            pass


def test_a_slow_machine_gets_further_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = Starts(monkeypatch, [SLOW, SLOW])
    starts.run(tmp_path)
    assert starts.tried == 3
    assert [said[-9:] for said in starts.said] == ["attempt 2", "attempt 3"]
    assert all("Ray did not start in time (The current node timed out" in s for s in starts.said)

    starts = Starts(monkeypatch, [SLOW] * 9)
    with pytest.raises(ResourceError) as refused:
        starts.run(tmp_path)
    assert starts.tried == 3
    for part in ("no Ray in 3 attempts: this machine is too busy", str(tmp_path / "ray.log")):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError("validate_socket_filename failed: AF_UNIX path length"), "no Ray: validate_"),
        (ValueError("no such option"), "no Ray: no such option"),
        (OSError(28, "No space left on device", "/dev/shm/plasma"), "disk of "),
    ],
)
def test_whatever_ray_raises_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    starts = Starts(monkeypatch, [error])
    with pytest.raises(ResourceError, match=told):
        starts.run(tmp_path)
    assert starts.tried == 1


def test_sigterm_while_ray_starts_ends_the_job_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray sets a handler of its own first, and native code another one."""

    def init(**_: object) -> None:
        ray_utils.set_sigterm_handler(lambda *_: sys.exit(15))
        if sent_while_it_starts:
            os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    starts = Starts(monkeypatch, [])
    monkeypatch.setattr(driver.ray, "init", init)
    for sent_while_it_starts in (True, False):
        with ending_on_sigterm():
            if sent_while_it_starts:
                with pytest.raises(Terminated):
                    starts.run(tmp_path)
            else:
                starts.run(tmp_path)
                with pytest.raises(Terminated):
                    os.kill(os.getpid(), signal.SIGTERM)


def test_workers_elsewhere_get_the_settings_of_the_driver_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(HEALTH_CHECK, "0.2")
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert _runtime_env()["env_vars"] == {HEALTH_CHECK: "0.2"}
    # Ray refuses a variable that the submitted job has set already.
    job = {"runtime_env": {"working_dir": "gcs://a.zip", "env_vars": {HEALTH_CHECK: "5"}}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(job))
    assert _runtime_env()["env_vars"] == {}


def test_a_lost_process_is_told_without_a_guess_at_its_cause() -> None:
    error = RayError("The worker process has died. Common causes include the OOM killer.")
    result = tune.Result(metrics={}, checkpoint=None, error=error, path=None)
    told = _reason(result, retries=2)
    assert told.startswith("its process, its controller or its node was lost in 3 attempts")
    assert "A lack of memory is one cause of many" in told


def test_a_full_disk_of_a_worker_is_one_message_and_no_error_of_itself(tmp_path: Path) -> None:
    full = OSError(28, "No space left on device")
    found = _explained(WorkerGroupError("workers failed", {1: full}), None, tmp_path)
    assert isinstance(found, MixlensError)
    assert str(tmp_path.parent) in str(found) or "/dev/shm" in str(found)
    defect = WorkerGroupError("workers failed", {0: ValueError("a defect")})
    assert _explained(defect, None, tmp_path) is None


SPEC = SweepSpec.model_validate(
    {
        "name": "small",
        "components": {"a": {"tasks": {"coarse": 1}}, "b": {"tasks": {"relational": 1}}},
        "design": {"kind": "ratio", "high": {"b": 1.0}, "low": {"a": 1.0}, "ratios": [0.3]},
        "training": {"steps": 7, "global_batch": 4, "micro_batch": 2},
        "evaluation": {"component": "b", "examples": 8},
    }
)
TRIAL = asked_trials(SPEC)[0]


def tried(layout: Layout, patch: pytest.MonkeyPatch, error: Exception) -> dict[str, str]:
    """What a trial returns whose training ends with `error`."""

    def launch(*_: object) -> None:
        raise error

    patch.setattr(driver, "launch", launch)
    return _run_trial({"trial": TRIAL.model_dump_json()}, SPEC, layout, None)


def test_what_is_lost_is_tried_again_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    base = base_of(SPEC, tmp_path)
    base.part(base.tokens).mkdir(parents=True)
    base.record(base.tokens).touch()
    for lost in (WorkerCrashedError(), NodeDiedError("gone")):
        with pytest.raises(type(lost)):
            tried(layout, monkeypatch, lost)
    for error, told in (
        (DataError("x: got 1: wrong"), "x: got 1: wrong"),
        (OSError(28, "No space left on device"), "disk of "),
        (
            RayTaskError("work", "ValueError: a defect", ValueError("a defect")),
            "a defect",
        ),
        (WorkerGroupError("again and again", {}), "again and again"),
    ):
        failed = tried(layout, monkeypatch, error)
        assert told in failed["failed"]
        assert type(error).__name__ in failed["story"]


def test_a_trial_on_a_node_without_the_folder_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_PATIENCE_S", 0.1)
    failed = tried(Layout(tmp_path / "runs" / "x"), monkeypatch, ValueError("not reached"))
    assert failed["failed"].startswith(f"runs_dir: got '{tmp_path / 'runs'}': nodes of the cluster")
    assert f"record.json is not there as {socket.gethostname()} sees it" in failed["failed"]
