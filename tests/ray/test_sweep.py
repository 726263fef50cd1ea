"""A whole sweep as a person starts it: from the shell, interrupted, again, and as a Ray job."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest
import ray
from mlflow import MlflowClient

from mixlens.models.tiny import build_tiny_vlm
from mixlens.tasks import vocabulary

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "design.ratios=[0,1]",
    "training.steps=3",
    "training.global_batch=4",
    "training.micro_batch=4",
    "training.warmup_steps=1",
    "training.log_every=1",
    "evaluation.examples=8",
    "evaluation.batch_size=8",
    "evaluation.max_new_tokens=4",
    "resources.cpus_per_worker=0.5",
    "resources.cpus_per_actor=0.5",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build_tiny_vlm(folder, vocabulary(), size="test")
    return folder


def command(base: Path, runs: Path, *overrides: str) -> list[str]:
    settings = [f"model={base}", f"runs_dir={runs}", *SMALL, *overrides]
    return ["jobs/sweep.py", "sweeps/quickstart.yaml", *settings]


def sweep(base: Path, runs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command(base, runs, *overrides)],
        cwd=ROOT, capture_output=True, text=True, timeout=900, env=clean_environment(),
    )  # fmt: skip


def clean_environment(**more: str) -> dict[str, str]:
    """As in a person's shell: nothing that points to the test session's own Ray."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", **more}


def mlflow_runs(runs: Path) -> dict[str, list[str]]:
    """Names of the MLflow runs, with the id of each one's parent."""
    client = MlflowClient(f"sqlite:///{runs / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "mixlens")
    found = client.search_runs([experiment.experiment_id])
    return {
        run.info.run_name: [
            run.info.run_id,
            run.data.tags.get("mlflow.parentRunId"),
            run.info.status,
        ]
        for run in found
    }


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 600
) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"it ended early:\n{process.communicate()}"
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)


def steps_trained(root: Path) -> dict[str, tuple[list[str], int]]:
    """Of each trial what it logged of its steps, and when."""
    files = root.glob("trials/*/training.jsonl")
    return {
        file.parent.name: (file.read_text().splitlines(), file.stat().st_mtime_ns) for file in files
    }


def measured_parts(root: Path) -> dict[Path, int]:
    """Every part of every measurement, and when it came to be."""
    records = root.glob("measurements/*/*/record.json")
    return {record.parent: record.stat().st_mtime_ns for record in records}


def test_an_interrupted_sweep_is_completed_by_the_same_command(base: Path, tmp_path: Path):
    runs = tmp_path / "runs"
    one_at_a_time = "resources.max_concurrent_trials=1"
    root = runs / "quickstart"
    first = subprocess.Popen(
        [sys.executable, *command(base, runs, "seeds=[0]", one_at_a_time)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=clean_environment(),
    )  # fmt: skip
    measured = "measurements/*seed=*/tokens-*/record.json"  # of the trials, not of the base
    try:
        wait_for(lambda: list(root.glob(measured)), first)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    (done,) = root.glob(measured)
    label = done.parents[1].name.partition("@")[0]
    (journal,) = root.glob(f"trials/{label}-*/training.jsonl")
    before = done.stat().st_mtime_ns, journal.stat().st_mtime_ns

    second = sweep(base, runs, "seeds=[0]", one_at_a_time)

    assert second.returncode == 0, second.stderr
    after = done.stat().st_mtime_ns, journal.stat().st_mtime_ns
    assert after == before, "a finished trial ran again"
    assert len(list(root.glob(measured))) == 2
    # What a person is left with.
    report = root / "report.html"
    for told in (str(report), "mlflow ui", "ratio"):
        assert told in second.stdout
    assert "<svg" in report.read_text() or "data:image" in report.read_text()
    accuracy = pd.read_parquet(root / "tables" / "accuracy.parquet")
    assert set(accuracy["run"]) == {"base", "ratio=0,seed=0", "ratio=1,seed=0"}
    known = accuracy.dropna(subset=["value"])
    assert len(known) > 20
    assert (known["low"] <= known["value"]).all()
    assert (known["value"] <= known["high"]).all()
    # One MLflow run each, over both starts, all below the sweep's.
    tracked = mlflow_runs(runs)
    assert len(tracked) == 4
    (parent,) = (identity for identity, above, _ in tracked.values() if above is None)
    assert [above for _, above, _ in tracked.values()].count(parent) == 3
    assert {status for _, _, status in tracked.values()} == {"FINISHED"}

    # A third start, whose file names another ratio and seed, trains these alone and keeps all.
    steps = steps_trained(root)
    third = sweep(base, runs, "seeds=[1]", "design.ratios=[0.5]", one_at_a_time)
    assert third.returncode == 0, third.stderr
    new = steps_trained(root)
    assert {name: new[name] for name in steps} == steps
    assert [len(lines) for name, (lines, _) in new.items() if name not in steps] == [3]
    assert mlflow_runs(runs).keys() == {*tracked, "ratio=0.5,seed=1"}
    assert done.stat().st_mtime_ns == before[0]
    accuracy = pd.read_parquet(root / "tables" / "accuracy.parquet")
    names = {"base", "ratio=0,seed=0", "ratio=0.5,seed=1", "ratio=1,seed=0"}
    assert set(accuracy["run"]) == names

    # A fourth start, whose file asks for one more probe, share and size of batches, trains nothing
    # and measures these alone.
    steps, parts = steps_trained(root), measured_parts(root)
    more = [
        "evaluation.probes.attributes=[object_count,dominant_colour,dominant_shape,size_mean,"
        "crowding,ink_fraction]",
        "evaluation.deletion.shares=[0.25,0.5,0.75,0.95]",
        "evaluation.batch_size=4",
    ]
    fourth = sweep(base, runs, "seeds=[0]", one_at_a_time, *more)
    assert fourth.returncode == 0, fourth.stderr
    assert steps_trained(root) == steps
    new = measured_parts(root)
    assert {part: new[part] for part in parts} == parts
    added = sorted(part.name.rpartition("-")[0] for part in new if part not in parts)
    assert added == [
        *["deletion-random,layer=-1,share=0.25,seed=0"] * len(names),
        *["probe-linear,ink_fraction"] * len(names),
    ]
    assert set(pd.read_parquet(root / "tables" / "accuracy.parquet")["run"]) == names
    assert 0.25 in set(pd.read_parquet(root / "tables" / "deletion.parquet")["share"])


@pytest.mark.parametrize(
    ("sent", "code", "when", "tracked"),
    [
        (signal.SIGINT, 130, "training", 3),
        (signal.SIGTERM, 143, "training", 3),
        (signal.SIGTERM, 143, "starting Ray", 0),
    ],
)
def test_an_end_from_outside_leaves_no_run_open(
    base: Path, tmp_path: Path, sent: signal.Signals, code: int, when: str, tracked: int
):
    runs = tmp_path / "runs"
    process = subprocess.Popen(
        [sys.executable, *command(base, runs, "seeds=[0]", "training.steps=10000")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env=clean_environment(),
    )  # fmt: skip
    try:
        if when == "training":
            wait_for(lambda: list(runs.glob("quickstart/trials/*/training.jsonl")), process)
        else:
            assert process.stdout is not None
            assert when in process.stdout.readline()
            time.sleep(1)
        if sent == signal.SIGINT:
            os.killpg(process.pid, sent)  # as a terminal does
        else:
            process.send_signal(sent)
        _, told = process.communicate(timeout=240)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code
    assert told == "stopped; the same command goes on where this one ended\n"
    there = {name: status for name, (_, _, status) in mlflow_runs(runs).items()}
    assert len(there) >= tracked  # the sweep, its base, and the trials that had begun
    # A base that was measured is whole, whatever came after it.
    assert there.pop("base", "FINISHED") == "FINISHED"
    assert set(there.values()) <= {"KILLED"}
    assert not (runs / "quickstart" / "lock.json").exists()


@pytest.mark.parametrize(
    ("asked", "remedy"), [("workers=8", "at most 3"), ("actors=99", "Lower it")]
)
def test_more_than_the_cluster_has_is_refused_before_any_work(
    ray_local: None, base: Path, tmp_path: Path, asked: str, remedy: str
):
    address = ray.get_runtime_context().gcs_address
    refused = sweep(
        base, tmp_path, "training.global_batch=32", "resources.cpus_per_worker=1",
        f"resources.address={address}", f"resources.{asked}",
    )  # fmt: skip
    assert refused.returncode == 2
    field, value = asked.split("=")
    (message,) = refused.stderr.splitlines()
    assert message.startswith(f"error: sweeps/quickstart.yaml: resources.{field}: got {value}: ")
    assert "the Ray cluster has 4 CPUs and 0 GPUs" in message
    assert remedy in message
    assert mlflow_runs(tmp_path) == {}
    assert [path.name for path in (tmp_path / "quickstart").iterdir()] == ["logs"]


@pytest.fixture
def ray_head() -> Iterator[str]:
    """A Ray head of its own with the job server; yields the job server's address."""
    folder = tempfile.mkdtemp(prefix="ray-")  # short: socket paths end at 107 characters
    # The usual ports belong to the Ray that other tests share. An agent that does not get its port
    # lives on, but takes no jobs.
    options = ("port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port")
    with ExitStack() as opened:
        free = [opened.enter_context(socket.socket()) for _ in options]
        for each in free:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in free]
    head = subprocess.Popen(
        [
            Path(sys.executable).parent / "ray", "start", "--head", "--block", "--num-cpus=2",
            *(f"--{option}={port}" for option, port in zip(options, ports, strict=True)),
            "--include-dashboard=true", "--disable-usage-stats", f"--temp-dir={folder}",
        ],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        # A job's "python" is the one on the head's path.
        env=clean_environment(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"),
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{ports[1]}"
        wait_for(lambda: _takes_jobs(address), head)
        yield address
    finally:
        if head.poll() is None:
            os.killpg(head.pid, signal.SIGTERM)
            head.communicate(timeout=240)
        shutil.rmtree(folder, ignore_errors=True)


def _takes_jobs(address: str) -> bool:
    """Whether a job can be submitted: the dashboard is up before the agent that runs jobs is."""
    from ray.job_submission import JobSubmissionClient

    try:
        JobSubmissionClient(address).submit_job(entrypoint="true")
    except (ConnectionError, RuntimeError):
        return False
    return True


def test_the_same_command_runs_as_a_ray_job(base: Path, tmp_path: Path, ray_head: str):
    runs = tmp_path / "runs"
    ray = Path(sys.executable).parent / "ray"
    entry = ["python", *command(base, runs, "seeds=[0]", "design.ratios=[1]")]
    job = subprocess.run(
        [ray, "job", "submit", "--address", ray_head, "--working-dir", ".", "--", *entry],
        cwd=ROOT, capture_output=True, text=True, timeout=900, env=clean_environment(),
    )  # fmt: skip
    assert job.returncode == 0, job.stdout[-4000:] + job.stderr[-2000:]
    assert list((runs / "quickstart").glob("measurements/*seed=*/tokens-*/record.json"))
    (file,) = (runs / "quickstart").glob("trials/*/trial.json")
    trial = json.loads(file.read_text())
    assert (trial["level"]["id"], trial["seed"]) == ("ratio=1", 0)
    assert (runs / "quickstart" / "report.html").is_file()
