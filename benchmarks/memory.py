"""How much memory a sweep takes in all: `python benchmarks/memory.py`.

Two trials of the quickstart side by side, cut to ten steps, and the measurement: what is in memory
at once in the whole quickstart. Every second the proportional set sizes of the command and of all
processes below it are summed; in them a page that several share counts once. The last line is one
JSON object. About two minutes.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ("design.ratios=[1]", "seeds=[0,1]", "training.steps=10")
GOAL = 8.0


def held(process: psutil.Process) -> tuple[float, float]:
    """GiB of a process and all below it: proportional, and as a sum of resident sizes."""
    proportional = resident = 0
    for one in (process, *process.children(recursive=True)):
        try:
            memory = one.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended meanwhile
        proportional, resident = proportional + memory.pss, resident + memory.rss
    return proportional / 2**30, resident / 2**30


def main() -> None:
    peak, peak_resident = 0.0, 0.0
    with tempfile.TemporaryDirectory() as runs:
        sweep = psutil.Popen(
            [
                sys.executable, ROOT / "jobs" / "sweep.py", ROOT / "sweeps" / "quickstart.yaml",
                f"runs_dir={runs}", *SETTINGS,
            ],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        while sweep.poll() is None:
            now, resident = held(sweep)
            peak, peak_resident = max(peak, now), max(peak_resident, resident)
            time.sleep(1.0)
    if sweep.returncode:
        sys.exit(f"the sweep failed with exit code {sweep.returncode}")
    print(f"peak {peak:.1f} GiB, {peak / GOAL:.2f} of the goal of {GOAL:g} GiB")
    print(f"as a sum of resident sizes, shared pages once a process: {peak_resident:.1f} GiB")
    print(json.dumps({"peak_gib": round(peak, 2), "resident_gib": round(peak_resident, 2)}))


if __name__ == "__main__":
    main()
