"""`mixlens doctor`: what a newcomer's machine may lack, and what to do about it.

Every check is a function of what was read, so that a fault is a value; `examine` reads the machine.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import mixlens
from mixlens.design import Layout, SweepSpec, asked_trials
from mixlens.errors import MixlensError, first_line
from mixlens.spec import MeasureSpec, ResourceSpec, TrackingSpec, load_spec
from mixlens.spec.load import keys_of
from mixlens.spec.tracking import without_password
from mixlens.sweep.known import check_file
from mixlens.sweep.machine import (
    Capacity,
    address_of,
    check_reachable,
    check_runs_dir,
    check_socket_paths,
    trials_at_once,
    why_not_writable,
)

GIB = 2**30
MEMORY_GIB = 7.0  # two trials of the quickstart beside their measurement
LEAST_MEMORY_GIB = 3.0  # one of them
SHM_GIB = 2.0  # Ray's objects: batches of images, and models that are measured
DISK_GIB, LEAST_DISK_GIB = 5.0, 1.0
PACKAGES = (
    "torch", "torchvision", "transformers", "deepspeed", "peft", "ray", "numpy", "numba", "pandas",
    "pyarrow", "pydantic", "mlflow", "scikit-learn", "scipy",
)  # fmt: skip

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        check: what was looked at.
        state: ok; warning: something will be slow, or fail in some use; problem: nothing runs.
        found: the value.
        remedy: what to do; empty where nothing has to be done.
    """

    check: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Gpus:
    """GPUs of this machine, as its driver and as torch see them.

    Attributes:
        driver: its version; empty where there is none.
        cuda: that torch was built for; empty for a build without GPUs.
        listed: names by the driver.
        usable: names by torch.
        trouble: why torch cannot compute on them.
    """

    driver: str
    cuda: str
    listed: tuple[str, ...]
    usable: tuple[str, ...]
    trouble: str = ""


def read_file(
    file: Path, overrides: Sequence[str]
) -> tuple[Finding, SweepSpec | MeasureSpec | None]:
    """A sweep file or a measure file, and whether it can be used."""
    try:
        spec: SweepSpec | MeasureSpec
        if "training" in keys_of(file):
            spec = load_spec(SweepSpec, file, overrides)
        else:
            spec = load_spec(MeasureSpec, file, overrides)
        check_file(spec)
    except MixlensError as error:
        return _problem("file", error), None
    return Finding("file", "ok", str(file)), spec


def examine(spec: SweepSpec | MeasureSpec | None) -> Iterator[Finding]:
    """Look at this machine, and at what a file asks of it."""
    asked = asked_versions()
    yield check_python(".".join(map(str, sys.version_info[:3])), asked["python"])
    packages = [check_package(name, _installed(name), asked[name]) for name in PACKAGES]
    wrong = [finding for finding in packages if finding.state != "ok"]
    yield from wrong or [Finding("packages", "ok", f"{len(packages)} in versions that were tested")]
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    yield check_compiler(compiler, shutil.which("ninja"), _builds(spec))
    memory = available_memory()
    yield check_memory(memory)
    yield check_shm(_free(Path("/dev/shm")))

    resources = ResourceSpec() if spec is None else spec.resources
    runs_dir = Path("runs" if spec is None else spec.runs_dir).expanduser().absolute()
    if spec is None:
        yield check_folder("runs_dir", runs_dir, "Name another folder as runs_dir.")
    else:
        root = _root(spec)
        yield _said("runs_dir", str(root), lambda: check_runs_dir(root))
    yield check_disk(runs_dir, _free(runs_dir))
    for name, folder, remedy in _folders():
        yield check_folder(name, folder, remedy)

    gpus = read_gpus()
    wants_gpus = resources.gpus_per_worker > 0 or resources.gpus_per_actor > 0
    address = address_of(resources)
    yield check_gpus(gpus, wants_gpus and address is None)
    if address is None:
        from mixlens.sweep.driver import ray_temp, this_machine

        temp = ray_temp()
        yield _said("Ray", f"starts on this machine, in {temp}", lambda: check_socket_paths(temp))
        if spec is not None:
            yield check_resources(spec, this_machine())
    else:
        where = f"{address.value} ({address.field})"
        yield _said("Ray", where, lambda: check_reachable(address))
        yield check_token(os.environ, Path.home())
    yield check_mlflow(TrackingSpec() if spec is None else spec.tracking, runs_dir, os.environ)


def check_python(version: str, asked: str) -> Finding:
    """Whether this Python is one that Mixlens supports."""
    if within(version, asked):
        return Finding("Python", "ok", version)
    remedy = f"Install a Python {asked} and make a new environment with it."
    return Finding("Python", "problem", version, remedy)


def check_package(name: str, version: str | None, asked: str) -> Finding:
    """Whether a package is there in a version that was tested."""
    if version is None:
        return Finding(name, "problem", "not installed", f"pip install '{name}{asked}'")
    if within(version, asked):
        return Finding(name, "ok", version)
    remedy = f"pip install '{name}{asked}' (constraints.txt names the version that was tested)"
    return Finding(name, "problem", version, remedy)


def check_compiler(compiler: str | None, ninja: str | None, builds: bool) -> Finding:
    """Whether DeepSpeed can build its operators; only offloading to NVMe needs one.

    Args:
        compiler: path of the C++ compiler, if any.
        ninja: path of ninja, if any.
        builds: whether the file asks for what has to be built.
    """
    missing = [
        what for what, there in (("C++ compiler", compiler), ("ninja", ninja)) if there is None
    ]
    if not missing:
        return Finding("compiler", "ok", f"{compiler}, {ninja}")
    remedy = {
        "C++ compiler": "Install one (apt install g++), or name it in CXX",
        "ninja": "put ninja on PATH (it lies beside python in the environment; apt install "
        "ninja-build)",
    }
    text = "; ".join(remedy[what] for what in missing)
    use = "" if builds else " Only offloading to NVMe needs it."
    found, remedy_text = "no " + " and no ".join(missing), f"{text[0].upper()}{text[1:]}.{use}"
    return Finding("compiler", "problem" if builds else "warning", found, remedy_text)


def check_memory(free: int | None) -> Finding:
    """Whether a small sweep has room in main memory."""
    if free is None:
        return Finding("memory", "warning", "unknown on this system", "Have 8 GiB free.")
    found = f"{free / GIB:.1f} GiB available"
    if free >= MEMORY_GIB * GIB:
        return Finding("memory", "ok", found)
    if free >= LEAST_MEMORY_GIB * GIB:
        remedy = "Set resources.max_concurrent_trials=1, or end other programs."
        return Finding("memory", "warning", found, remedy)
    remedy = (
        "End other programs, or raise the container's limit: one trial takes about "
        f"{LEAST_MEMORY_GIB:g} GiB."
    )
    return Finding("memory", "problem", found, remedy)


def check_shm(free: int | None) -> Finding:
    """Whether Ray can keep its objects in shared memory."""
    if free is None:
        remedy = "Ray keeps its objects in files instead, which is slow: mount a tmpfs there."
        return Finding("/dev/shm", "warning", "not there", remedy)
    found = f"{free / GIB:.1f} GiB free"
    if free >= SHM_GIB * GIB:
        return Finding("/dev/shm", "ok", found)
    remedy = "Start the container with --shm-size=4g: Ray keeps its objects there."
    return Finding("/dev/shm", "warning", found, remedy)


def check_disk(folder: Path, free: int | None) -> Finding:
    """Whether the disk of `runs_dir` has room; a dry run says how much a sweep takes."""
    if free is None:
        return Finding("disk", "problem", f"{folder} is on no disk", "Name another runs_dir.")
    found = f"{free / GIB:.1f} GiB free in {folder}"
    if free >= DISK_GIB * GIB:
        return Finding("disk", "ok", found)
    state: State = "warning" if free >= LEAST_DISK_GIB * GIB else "problem"
    return Finding("disk", state, found, "Free some, or set runs_dir to a folder on a larger disk.")


def check_folder(name: str, folder: Path, remedy: str) -> Finding:
    """Whether a folder can be written to, or made."""
    if problem := why_not_writable(folder):
        return Finding(name, "problem", f"{folder}: {problem}", remedy)
    return Finding(name, "ok", str(folder))


def check_gpus(gpus: Gpus, needed: bool) -> Finding:
    """Whether torch can compute on the GPUs that the driver lists."""
    bad: State = "problem" if needed else "warning"
    if gpus.usable and not gpus.trouble:
        by = f", driver {gpus.driver}" if gpus.driver else ""
        names = ", ".join(gpus.usable)
        return Finding("GPUs", "ok", f"{names}; torch for CUDA {gpus.cuda}{by}")
    if gpus.usable or gpus.listed:
        found = f"{', '.join(gpus.listed or gpus.usable)}, driver {gpus.driver or 'unknown'}; "
        if not gpus.cuda:
            remedy = "Install torch with CUDA: pip install torch, without an index of CPU builds."
            return Finding("GPUs", bad, found + "torch is a build without GPUs", remedy)
        trouble = gpus.trouble or "torch does not see them"
        remedy = "Update the driver, or install a build of torch for the CUDA of this one."
        return Finding("GPUs", bad, f"{found}torch for CUDA {gpus.cuda}: {trouble}", remedy)
    if needed:
        remedy = "Set gpus_per_worker and gpus_per_actor to 0, or resources.address to a cluster."
        return Finding("GPUs", "problem", "none, and the file asks for some", remedy)
    return Finding("GPUs", "ok", "none: models train on CPUs")


def check_resources(spec: SweepSpec | MeasureSpec, capacity: Capacity) -> Finding:
    """Whether at least one trial fits on this machine."""
    trials = len(asked_trials(spec)) if isinstance(spec, SweepSpec) else 1
    try:
        at_once = trials_at_once(spec.resources, capacity, trials)
    except MixlensError as error:
        return _problem("resources", error)
    found = f"{capacity}: {at_once} of {trials} trials at once"
    if isinstance(spec, MeasureSpec):
        found = f"{capacity}: {spec.resources.actors} measurement actors"
    return Finding("resources", "ok", found)


def check_token(environ: Mapping[str, str], home: Path) -> Finding:
    """Whether there is a token for a cluster that asks for one."""
    remedy = "Set RAY_AUTH_TOKEN to the content of the cluster's token file."
    if environ.get("RAY_AUTH_TOKEN"):
        found = "in RAY_AUTH_TOKEN"
    elif path := environ.get("RAY_AUTH_TOKEN_PATH"):
        if not Path(path).is_file():
            found = f"RAY_AUTH_TOKEN_PATH names {path}, which is not there"
            return Finding("Ray token", "problem", found, remedy)
        found = f"in {path}"
    elif (file := home / ".ray" / "auth_token").is_file():
        found = f"in {file}"
    elif environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return Finding("Ray token", "problem", "RAY_AUTH_MODE is token, and there is none", remedy)
    else:
        found = "none, and RAY_AUTH_MODE does not ask for one"
        return Finding("Ray token", "ok", found)
    if environ.get("RAY_AUTH_MODE", "").lower() != "token":
        found += ", but RAY_AUTH_MODE is not token"
        remedy = "Set RAY_AUTH_MODE=token if the cluster asks for one."
        return Finding("Ray token", "warning", found, remedy)
    return Finding("Ray token", "ok", found)


def check_mlflow(tracking: TrackingSpec, runs_dir: Path, environ: Mapping[str, str]) -> Finding:
    """Whether MLflow can be reached; it is asked nothing, and nothing is made."""
    uri = tracking.uri
    if uri is None:
        found = f"a database in {runs_dir}"
        if elsewhere := environ.get("MLFLOW_TRACKING_URI"):
            found += f"; MLFLOW_TRACKING_URI is {without_password(elsewhere)}"
            remedy = "Set tracking.uri in the file if runs belong there: the variable is not read."
            return Finding("MLflow", "warning", found, remedy)
        return Finding("MLflow", "ok", found)
    place = without_password(uri)
    if urlsplit(uri).scheme in ("http", "https"):
        from mixlens.sources.filesystems import check_answers

        try:
            check_answers(uri)
        except OSError as error:
            remedy = "Start the server, correct tracking.uri, or leave it out."
            return Finding("MLflow", "problem", f"{place}: {first_line(error)}", remedy)
    return Finding("MLflow", "ok", place)


def asked_versions() -> dict[str, str]:
    """Of Python and each package that Mixlens needs: the versions that it works with."""
    project = Path(mixlens.__file__).parents[2] / "pyproject.toml"
    if project.is_file():
        content = tomllib.loads(project.read_text())["project"]
        python, lines = content["requires-python"], content["dependencies"]
    else:
        python = metadata.metadata("mixlens")["Requires-Python"]
        lines = [line for line in metadata.requires("mixlens") or [] if "extra ==" not in line]
    found = {"python": python}
    for line in lines:
        parts = re.match(r"([\w.-]+)(?:\[[\w,]*\])?", line)
        assert parts is not None, line
        found[parts[1]] = line[parts.end() :].strip()
    return found


def within(version: str, asked: str) -> bool:
    """Whether a version such as 2.13.0+cu128 is one of >=2.13,<2.16, which is all we write."""
    there = _numbers(version)
    for bound in filter(None, asked.replace(" ", "").split(",")):
        is_lower = bound.startswith(">=")
        if (there < _numbers(bound.lstrip("<>="))) == is_lower:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    """The numbers of a release, without zeros at its end: 2.13 and 2.13.0 are one."""
    digits = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in digits.group().split(".")] if digits else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def available_memory() -> int | None:
    """Bytes that a program can still take here, by the kernel and by the container's limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    free = kib["MemAvailable"] * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        taken = int((group / "memory.current").read_text())
        pages = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    if limit == "max":
        return free
    return min(free, int(limit) - taken + int(pages.get("inactive_file", 0)))


def read_gpus() -> Gpus:
    """What the driver and torch say of GPUs."""
    driver, listed = "", []
    if shutil.which("nvidia-smi"):
        asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        try:
            told = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            told = None
        if told is not None and told.returncode == 0:
            rows = [line.rsplit(", ", 1) for line in told.stdout.splitlines()]
            listed, driver = [name for name, _ in rows], rows[0][1] if rows else ""

    import torch

    usable, trouble = [], ""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            try:
                torch.ones(8, device="cuda").sum().item()
                count = torch.cuda.device_count()
                usable = [torch.cuda.get_device_name(number) for number in range(count)]
            except RuntimeError as error:  # such as a GPU that this build has no kernels for
                trouble = first_line(error)
    if said and not usable and not trouble:
        trouble = first_line(said[0].message) if isinstance(said[0].message, Warning) else ""
    return Gpus(driver, torch.version.cuda or "", tuple(listed), tuple(usable), trouble)


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _free(folder: Path) -> int | None:
    """Bytes free on the disk of a folder that may not exist yet."""
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if existing is None or (folder == Path("/dev/shm") and existing != folder):
        return None
    return shutil.disk_usage(existing).free


def _folders() -> Iterator[tuple[str, Path, str]]:
    """Folders that libraries and Mixlens write to, and the variable that names another."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from mixlens.models.identity import cache_file

    yield "temp", Path(tempfile.gettempdir()), "Set TMPDIR to a folder that you can write to."
    yield "cache", cache_file().parent, "Set XDG_CACHE_HOME to a folder that you can write to."
    yield "hub cache", Path(HF_HUB_CACHE), "Set HF_HOME to a folder that you can write to."


def _root(spec: SweepSpec | MeasureSpec) -> Path:
    return Layout.of(spec).root if isinstance(spec, SweepSpec) else spec.folder


def _builds(spec: SweepSpec | MeasureSpec | None) -> bool:
    """Whether DeepSpeed has to build what reads and writes NVMe disks."""
    if not isinstance(spec, SweepSpec):
        return False
    return "nvme" in (spec.training.offload_optimizer, spec.training.offload_parameters)


def _said(check: str, found: str, look: Callable[[], None]) -> Finding:
    """What a check that refuses by an error found."""
    try:
        look()
    except MixlensError as error:
        return _problem(check, error)
    return Finding(check, "ok", found)


def _problem(check: str, error: MixlensError) -> Finding:
    """An error says in its first sentence what is wrong, and then the remedy."""
    found, _, remedy = str(error).partition(". ")
    return Finding(check, "problem", found, remedy)
