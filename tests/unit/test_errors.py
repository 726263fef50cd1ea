"""How a job ends: one message and an exit code, whatever ended it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ray.exceptions import RayTaskError

from mixlens import errors
from mixlens.errors import ResourceError, disk_full

pytestmark = pytest.mark.case

JOB = "import os, signal, time; from mixlens.errors import exit_clearly, DataError\n"
STOPPED = "stopped; the same command goes on where this one ended\n"


@pytest.mark.parametrize(
    ("work", "code", "told"),
    [
        ("raise DataError('x: got 1')", 2, "error: x: got 1\n"),
        ("raise KeyboardInterrupt", 130, STOPPED),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", 143, STOPPED),
        # As Ray does, in whose code the signal came.
        (
            "\n  try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
            "\n  except BaseException: raise KeyboardInterrupt from None",
            143,
            STOPPED,
        ),
        # The second one comes while the first is being answered.
        (
            "\n  try: os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
            "\n  finally: os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.3)",
            143,
            STOPPED,
        ),
    ],
    ids=["mistake", "ctrl-c", "sigterm", "sigterm in ray", "sigterm twice"],
)
def test_a_job_ends_with_one_message(work: str, code: int, told: str) -> None:
    script = f"{JOB}def main(): {work}\nexit_clearly(main)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, told)


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    script = f"{JOB}def main(): open('/dev/full', 'w', 1).write('x\\n')\nexit_clearly(main)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for part in ("error: disk of ", "No space left on device", "Make room", "the same command"):
        assert part in line


def test_a_full_disk_is_found_below_what_others_made_of_it(tmp_path: Path) -> None:
    file = str(tmp_path / "gone" / "model.part")
    full = OSError(28, "No space left on device", file)
    wrapped = RuntimeError("saving failed")
    wrapped.__context__ = RayTaskError("work", "Traceback ...", full)
    for error in (full, wrapped, RuntimeError("I/O error: No space left on device (os error 28)")):
        told = disk_full(error, tmp_path)
        assert type(told) is ResourceError
        assert str(tmp_path) in str(told)
        assert "No space left on device" in str(told)
    assert disk_full(OSError(2, "No such file"), tmp_path) is None
    loop = ValueError("an error that causes itself")
    loop.__cause__ = loop
    assert disk_full(loop, tmp_path) is None


def test_the_full_disk_is_named_and_not_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a file in the error, the disk without room is the one."""
    usage = errors.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        errors.shutil, "disk_usage", lambda place: usage._replace(free=0 if place == other else 1e9)
    )
    other = Path("/dev/shm")
    assert str(disk_full(RuntimeError("No space left on device"), tmp_path)).startswith(
        "disk of /dev/shm: got '0.0 GB free'"
    )


def test_a_handler_of_another_part_of_the_process_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with errors.ending_on_sigterm():
        with pytest.raises(errors.Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is before
