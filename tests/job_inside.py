"""A job run in the test's own process, which has imported already what each start would again."""

import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[1] / "jobs"


@dataclass(frozen=True)
class Done:
    """What `subprocess.run` would tell of it."""

    returncode: int
    stdout: str
    stderr: str


def run_inside(
    patch: pytest.MonkeyPatch, output: pytest.CaptureFixture[str], job: str, *arguments: object
) -> Done:
    """Run `jobs/<job>` as a program with these arguments; `output` is the fixture `capfd`.

    For what is wrong before any work: what goes on to start Ray needs a process of its own.
    """
    patch.setattr(sys, "argv", [f"jobs/{job}", *map(str, arguments)])
    patch.syspath_prepend(JOBS)
    output.readouterr()
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(JOBS / job), run_name="__main__")
    out, err = output.readouterr()
    return Done(ended.value.code, out, err)
