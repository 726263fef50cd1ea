"""Each mistake is one message with exit code 2, and before any work where it can be known."""

import os
import shutil
import socket
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from job_inside import run_inside
from tiny_families import build

from mixlens.design import Layout, SweepSpec
from mixlens.errors import CheckpointError, DataError, ResourceError, SpecError
from mixlens.lock import held
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import load_spec
from mixlens.sweep.known import check_file
from mixlens.sweep.machine import check_runs_dir
from mixlens.sweep.plan import check_disk, check_evaluation, plan_sweep
from mixlens.sweep.run import resolve, show_plan
from mixlens.tracking.content import read_spec

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART = Path("sweeps/quickstart.yaml")


def spec(tmp_path: Path, *overrides: str) -> SweepSpec:
    model = tmp_path / "model"
    if not model.exists():
        build_tiny_vlm(model, ["red"], size="test")
    overrides = (f"model={model}", f"runs_dir={tmp_path}", *overrides)
    return load_spec(SweepSpec, ROOT / QUICKSTART, overrides)


@pytest.fixture
def closed_port() -> Iterator[str]:
    """A port that refuses: it is taken, so that nobody else gets it, but nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield str(taken.getsockname()[1])


# What is wrong: what a person writes behind the file's name; field, value and remedy in the answer.
MISTAKES = {
    "typo in a key": ("training.stepz=3", "training.stepz", "3", "Did you mean 'steps'?"),
    "ratio out of range": (
        "design.ratios=[0,1.2]", "design.ratios.1", "1.2", "less than or equal to 1",
    ),
    "weights that do not sum": ("design.low={simple: 0.7}", "design.low", "0.7", "must sum to 1"),
    "unknown component": (
        "design.low={nonesuch: 1}", "design.low", "'nonesuch'", "The components are complex,",
    ),
    "missing checkpoint": ("model=/no/model", "model", "'/no/model'", "Give a model folder"),
    "unknown hub id": ("model=nobody/nomodel", "model", "'nobody/nomodel'", "Check the name"),
    "unreachable Ray": (
        "resources.address=127.0.0.1:PORT", "resources.address", "'127.0.0.1:PORT'",
        "Start Ray there, or",
    ),
    "unreachable MLflow server": (
        "tracking.uri=http://127.0.0.1:PORT", "tracking.uri", "'http://127.0.0.1:PORT'",
        "Start the server, correct",
    ),
    "more workers than the machine has": (
        "training.global_batch=90000 training.micro_batch=1 resources.workers=90000",
        "resources.workers", "90000", "Set it to at most",
    ),
    # More than any disk holds: what is kept of each image of the base is two kilobytes.
    "no disk space": ("evaluation.examples=10000000000", "runs_dir", "'RUNS'", "Free some, or"),
    "a URL for a folder": (
        "runs_dir=s3://bucket/runs", "runs_dir", "got 's3://bucket/runs': a URL", "nodes mount",
    ),
    "a URL of one slash": ("runs_dir=gs:/bucket", "runs_dir", "got 'gs:/bucket'", "nodes mount"),
    "a file for a folder": ("runs_dir=FILE", "runs_dir", "'FILE", "Name another folder"),
}  # fmt: skip


FARTHEST = "unreachable MLflow server"  # known last; this one runs from the shell


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_one_message_before_anything_is_written(
    name: str,
    tmp_path: Path,
    closed_port: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    mistake = MISTAKES[name]
    runs, file = tmp_path / "runs", tmp_path / "file"
    file.touch()
    places = {"PORT": closed_port, "RUNS": str(runs), "FILE": str(file)}
    for word, place in places.items():
        mistake = tuple(text.replace(word, place) for text in mistake)
    written, field, value, remedy = mistake
    overrides = [written] if "{" in written else written.split()
    arguments = [QUICKSTART, f"runs_dir={runs}", *overrides]
    monkeypatch.chdir(ROOT)
    if name == FARTHEST:
        command = [sys.executable, "jobs/sweep.py", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
    else:
        done = run_inside(monkeypatch, capfd, "sweep.py", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"error: {QUICKSTART}: {field}: ")
    assert value in message
    assert remedy in message
    # Nothing was begun: no trial folder, and no database that could hold an MLflow run.
    assert list(tmp_path.iterdir()) == [file]


def test_a_model_folder_named_from_here_is_found_by_workers_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    given = spec(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert resolve(given.model_copy(update={"model": "model"})) == resolve(given)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(given.model_copy(update={"model": "~/model"})) == resolve(given)


def test_scenes_that_cannot_be_made(tmp_path: Path):
    crowded = spec(tmp_path, "components.complex.scene.objects=[150,200]")
    with pytest.raises(SpecError, match=r"components\.complex.*fit"):
        check_file(crowded)


@pytest.mark.parametrize(
    ("family", "asked", "told"),
    [
        ("mllama", "evaluation.deletion.downsampling=true", "downsampling: got True.*to false"),
        ("qwen3_vl", "evaluation.deletion.layers=[1]", r"layers: got \[1\].*still adds"),
        ("llava_next", "evaluation.deletion.layers=[99]", "layers: got 99.*the decoder has"),
        (
            "gemma3",
            "training.attention=flash_attention_2",
            r"training\.attention: got 'flash_attention_2'.*both directions",
        ),
    ],
)
def test_what_a_family_cannot_do_is_known_before_any_work(
    tmp_path: Path, family: str, asked: str, told: str
):
    model = tmp_path / family
    build(family, model)
    wanted = resolve(spec(tmp_path, f"model={model}", asked))
    asks = check_evaluation if "deletion" in asked else partial(plan_sweep, time_a_step=False)
    with pytest.raises((SpecError, CheckpointError), match=told):
        asks(wanted)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_model_without_whole_weights(tmp_path: Path, damage: str):
    damaged = spec(tmp_path)
    weights = tmp_path / "model" / "model.safetensors"
    content = weights.read_bytes()
    weights.unlink()
    if damage == "cut":
        weights.write_bytes(content[:-1000])
    with pytest.raises(
        CheckpointError, match=r"model .*(weights cannot be read.*Copy it|not there.*Give a whole)"
    ):
        plan_sweep(damaged, time_a_step=False)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plan = plan_sweep(spec(tmp_path), time_a_step=False)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, plan.disk_bytes - 1))
    with pytest.raises(ResourceError, match=r"runs_dir: .*GB are free.*larger disk"):
        check_disk(plan, tmp_path / "not" / "there" / "yet")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, plan.disk_bytes))
    check_disk(plan, tmp_path)


def test_a_runs_dir_that_can_be_made(tmp_path: Path):
    check_runs_dir(tmp_path / "not" / "there" / "yet")
    (tmp_path / "name").touch()
    with pytest.raises(ResourceError, match="name is a file"):
        check_runs_dir(tmp_path / "name")


@pytest.mark.case
def test_the_working_directory_of_a_ray_job_is_no_runs_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """There the default, `runs`, is on one node only, and is deleted with the job."""
    job = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_0123456789abcdef"
    job.mkdir(parents=True)
    monkeypatch.chdir(job)
    root = Layout.of(spec(tmp_path).model_copy(update={"runs_dir": "runs"})).root
    with pytest.raises(ResourceError, match=r"temporary working directory .* that all nodes mount"):
        check_runs_dir(root)
    assert list(job.iterdir()) == []


@pytest.mark.case
def test_two_starts_of_one_sweep_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    runs = tmp_path / "runs"
    monkeypatch.chdir(ROOT)
    with held(runs / "quickstart", ["python", "jobs/sweep.py", "first.yaml"], print):
        done = run_inside(monkeypatch, capfd, "sweep.py", QUICKSTART, f"runs_dir={runs}")
    assert done.returncode == 2
    (message,) = done.stderr.splitlines()
    assert message.startswith(f"error: {QUICKSTART}: {runs / 'quickstart'}: got 'a folder in use'")
    assert f"process {os.getpid()} on {socket.gethostname()} since " in message
    assert "`python jobs/sweep.py first.yaml`" in message


def test_a_dry_run_tells_what_runs_at_once_or_that_nothing_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    show_plan(spec(tmp_path, "resources.max_concurrent_trials=1"))
    told = " ".join(capsys.readouterr().out.split())
    assert "at once 1 trials on this machine" in told
    assert "measurement 1 actors x (0.5 CPU, 0 GPU), shared by all trials" in told

    with pytest.raises(ResourceError, match=r"gpus_per_worker: got 99.0: this machine has"):
        show_plan(spec(tmp_path, "resources.gpus_per_worker=99"))
    show_plan(spec(tmp_path, "resources.gpus_per_worker=99", "resources.address=10.0.0.1:6379"))
    assert "as many trials as the cluster has room for" in capsys.readouterr().out


@pytest.mark.parametrize("left", ["base-0123/measure/measured.json", "trials/ratio=0-01/run.json"])
@pytest.mark.parametrize("job", ["sweep.py", "report.py"])
def test_the_run_directory_of_an_earlier_version_is_refused_whole(
    left: str,
    job: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    root = tmp_path / "quickstart"
    (root / left).parent.mkdir(parents=True)
    for file in (root / left, root / "sweep.json"):
        file.write_text("{}\n")
    named = [root] if job != "sweep.py" else [QUICKSTART, f"runs_dir={tmp_path}"]
    monkeypatch.chdir(ROOT)
    done = run_inside(monkeypatch, capfd, job, *named)
    assert done.returncode == 2, done.stderr
    (message,) = done.stderr.splitlines()
    assert str(root) in message
    assert "is of an earlier version of Mixlens" in message
    assert "under another name, and start the command again" in message
    assert not (root / "report.html").exists()
    with pytest.raises(DataError, match="earlier version"):
        read_spec(root)  # as `mixlens track` does
