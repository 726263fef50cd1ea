"""Each fault of a machine is found, said with its value, and comes with a remedy."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixlens.cli.doctor import (
    GIB,
    Finding,
    Gpus,
    asked_versions,
    available_memory,
    check_compiler,
    check_disk,
    check_folder,
    check_gpus,
    check_memory,
    check_mlflow,
    check_package,
    check_python,
    check_resources,
    check_shm,
    check_token,
    examine,
    read_file,
    within,
)
from mixlens.design import SweepSpec
from mixlens.spec import TrackingSpec, load_spec
from mixlens.sweep.machine import Capacity

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART, STUDY = ROOT / "sweeps" / "quickstart.yaml", ROOT / "sweeps" / "qwen25_vl.yaml"
HERE = Path("/runs")
H100 = "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("version", "asked", "fits"),
    [
        ("3.11.7", ">=3.11", True),
        ("3.10.14", ">=3.11", False),
        ("2.13.0+cu128", ">=2.13,<2.16", True),
        ("2.16.0", ">=2.13,<2.16", False),
        ("2.9", "<3, >=2.13", False),
        ("0.19.8", ">=0.19.8,<0.20", True),
        ("0.19.10", ">=0.19.8,<0.20", True),
        ("0.20", ">=0.19.8,<0.20", False),
    ],
)
def test_versions_are_compared_as_numbers(version: str, asked: str, fits: bool):
    assert within(version, asked) == fits


def test_the_versions_asked_for_are_those_of_the_package():
    asked = asked_versions()
    assert asked["python"] == ">=3.11"
    assert asked["ray"] == ">=2.60,<2.61"
    # `within` knows two signs, and no more are written.
    signs = {bound.rstrip("0123456789.") for text in asked.values() for bound in text.split(",")}
    assert signs == {">=", "<"}


Fault = tuple[Callable[[], Finding], str, str, str]

# What is read; then the state, a part of what is found, and a part of the remedy.
FAULTS: dict[str, Fault] = {
    "an old Python": (
        lambda: check_python("3.9.1", ">=3.11"), "problem", "3.9.1", "Install a Python >=3.11",
    ),
    "a missing package": (
        lambda: check_package("ray", None, ">=2.60,<2.61"), "problem", "not installed",
        "pip install 'ray>=2.60,<2.61'",
    ),
    "a package of another version": (
        lambda: check_package("ray", "2.9.3", ">=2.60,<2.61"), "problem", "2.9.3",
        "constraints.txt",
    ),
    "no compiler": (
        lambda: check_compiler(None, "/bin/ninja", builds=False), "warning", "no C++ compiler",
        "apt install g++",
    ),
    "no ninja, and the file offloads to NVMe": (
        lambda: check_compiler("/bin/c++", None, builds=True), "problem", "no ninja", "on PATH",
    ),
    "little memory": (
        lambda: check_memory(4 * GIB), "warning", "4.0 GiB", "max_concurrent_trials=1",
    ),
    "too little memory": (lambda: check_memory(2 * GIB), "problem", "2.0 GiB", "End other"),
    "a small /dev/shm, as in Docker": (
        lambda: check_shm(64 * 2**20), "warning", "0.1 GiB", "--shm-size",
    ),
    "no /dev/shm": (lambda: check_shm(None), "warning", "not there", "mount a tmpfs"),
    "a disk nearly full": (lambda: check_disk(HERE, 2 * GIB), "warning", "2.0 GiB", "Free some"),
    "a full disk": (lambda: check_disk(HERE, 0), "problem", "0.0 GiB free in /runs", "larger disk"),
    "a GPU that this torch is not built for": (
        lambda: check_gpus(Gpus("570.1", "", (H100,), ()), needed=True), "problem",
        f"{H100}, driver 570.1; torch is a build without GPUs", "Install torch with CUDA",
    ),
    "a driver that is too old for torch": (
        lambda: check_gpus(Gpus("450.8", "13.0", (H100,), (), "driver is too old"), needed=False),
        "warning", "torch for CUDA 13.0: driver is too old", "Update the driver",
    ),
    "no GPU where the file asks for one": (
        lambda: check_gpus(Gpus("", "13.0", (), ()), needed=True), "problem", "none", "a cluster",
    ),
    "no token": (
        lambda: check_token({"RAY_AUTH_MODE": "token"}, HERE), "problem", "there is none",
        "Set RAY_AUTH_TOKEN",
    ),
    "a token file that is not there": (
        lambda: check_token({"RAY_AUTH_TOKEN_PATH": "/no/token"}, HERE), "problem", "/no/token",
        "Set RAY_AUTH_TOKEN",
    ),
    "a token that Ray is not told to use": (
        lambda: check_token({"RAY_AUTH_TOKEN": "secret"}, HERE), "warning",
        "in RAY_AUTH_TOKEN, but RAY_AUTH_MODE is not token", "Set RAY_AUTH_MODE=token",
    ),
    "a variable that Mixlens does not read": (
        lambda: check_mlflow(TrackingSpec(), HERE, {"MLFLOW_TRACKING_URI": "http://me:pass@there"}),
        "warning", "MLFLOW_TRACKING_URI is http://there", "Set tracking.uri",
    ),
    "a trial that is larger than the machine": (
        lambda: check_resources(load_spec(SweepSpec, STUDY), Capacity(2, 0, "this machine")),
        "problem", "resources.cpus_per_worker: got 4.0: this machine has 2 CPUs", "Lower it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_with_its_remedy(name: str):
    look, state, found, remedy = FAULTS[name]
    finding = look()
    assert finding.state == state
    assert found in finding.found
    assert remedy in finding.remedy
    assert "secret" not in finding.found


SOUND = {
    "Python": lambda: check_python("3.12.4", ">=3.11"),
    "package": lambda: check_package("ray", "2.60.3", ">=2.60,<2.61"),
    "compiler": lambda: check_compiler("/bin/c++", "/bin/ninja", builds=True),
    "memory": lambda: check_memory(16 * GIB),
    "shm": lambda: check_shm(8 * GIB),
    "disk": lambda: check_disk(HERE, 100 * GIB),
    "GPUs": lambda: check_gpus(Gpus("570.1", "13.0", (H100,), (H100,)), needed=True),
    "none": lambda: check_gpus(Gpus("", "", (), ()), needed=False),
    "token": lambda: check_token({"RAY_AUTH_TOKEN": "x", "RAY_AUTH_MODE": "token"}, HERE),
    "open": lambda: check_token({}, HERE),
    "MLflow": lambda: check_mlflow(TrackingSpec(), HERE, {}),
    "resources": lambda: check_resources(
        load_spec(SweepSpec, QUICKSTART), Capacity(2, 0, "this machine")
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_right_needs_no_remedy(name: str):
    finding = SOUND[name]()
    assert (finding.state, finding.remedy) == ("ok", "")


def test_a_token_in_a_file_of_its_own(tmp_path: Path):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    finding = check_token({"RAY_AUTH_MODE": "token"}, tmp_path)
    assert (finding.state, finding.found) == ("ok", f"in {tmp_path}/.ray/auth_token")


def test_an_mlflow_server_is_knocked_at():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        nobody = check_mlflow(TrackingSpec(uri=uri), HERE, {})
        server.listen()
        somebody = check_mlflow(TrackingSpec(uri=uri), HERE, {})
    assert (nobody.state, somebody.state) == ("problem", "ok")
    assert uri in nobody.found
    assert "Start the server" in nobody.remedy


def test_a_folder_below_a_file_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    finding = check_folder("temp", tmp_path / "file" / "below", "Set TMPDIR.")
    assert finding.state == "problem"
    assert f"{tmp_path}/file is a file" in finding.found
    assert finding.remedy == "Set TMPDIR."
    assert check_folder("temp", tmp_path / "new" / "below", "").state == "ok"


def test_memory_is_never_more_than_the_machine_has():
    free = available_memory()
    assert free is not None
    assert 0 < free < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_wrong_file_is_a_finding(tmp_path: Path):
    finding, spec = read_file(QUICKSTART, ["training.stepz=3"])
    assert spec is None
    assert (finding.check, finding.state) == ("file", "problem")
    assert "training.stepz: got 3: unknown key" in finding.found
    assert finding.remedy == "Did you mean 'steps'?"


def test_the_machine_is_asked_what_the_file_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A Ray that is not there, a folder that is a file, and a temporary folder too deep."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "file").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        asked = [f"resources.address={nobody}", f"runs_dir={tmp_path}/file"]
        _, spec = read_file(QUICKSTART, asked)
        found = {finding.check: finding for finding in examine(spec)}
    assert found["Ray"].state == "problem"
    assert nobody in found["Ray"].found
    assert found["runs_dir"].state == "problem"
    assert "a file, not a folder" in found["runs_dir"].found

    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * 90}")
    here = {finding.check: finding for finding in examine(None)}
    assert here["Ray"].state == "problem"
    assert here["Ray"].remedy == "Set RAY_TMPDIR to a short folder, such as /tmp."


def test_a_real_run(tmp_path: Path):
    """Of this machine nobody knows the state; the code is that of the findings."""
    told = subprocess.run(
        [sys.executable, "-m", "mixlens", "doctor", str(QUICKSTART), f"runs_dir={tmp_path}",
         "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    document = json.loads(told.stdout)
    states = {finding["state"] for finding in document["findings"]}
    assert document["blocked"] == ("problem" in states)
    assert told.returncode == (2 if document["blocked"] else 0), told.stderr
    named = [finding["check"] for finding in document["findings"]]
    assert named[:2] == ["file", "Python"]
    assert {"compiler", "memory", "/dev/shm", "disk", "GPUs", "Ray", "MLflow"} <= {*named}
    assert list(tmp_path.iterdir()) == []
