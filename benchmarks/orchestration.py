"""What a trial costs beside its training and measurement: processes, Ray, files.

    python benchmarks/orchestration.py

Runs a real sweep of four tiny trials, two at a time. A trial's orchestration is the time from its
run.json to its record.json, less its training steps and its measurement. About two minutes.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))

from mixlens.models.tiny import build_tiny_vlm  # noqa: E402
from mixlens.tasks import vocabulary  # noqa: E402
from mixlens.training.records import read_journal  # noqa: E402

SETTINGS = (
    "design.ratios=[0,1]", "seeds=[0,1]", "training.steps=4", "training.warmup_steps=1",
    "training.global_batch=8", "training.micro_batch=8", "training.log_every=1",
    "evaluation.examples=8", "evaluation.max_new_tokens=4",
)  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        base, runs = Path(folder) / "base", Path(folder) / "runs"
        build_tiny_vlm(base, vocabulary(), size="test")
        subprocess.run(
            [
                sys.executable, ROOT / "jobs" / "sweep.py", ROOT / "sweeps" / "quickstart.yaml",
                f"model={base}", f"runs_dir={runs}", *SETTINGS,
            ],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        trials = [trial(path) for path in sorted((runs / "quickstart" / "trials").iterdir())]
    for wall, work in trials:
        print(f"trial: {wall:6.1f} s, of which training and measurement {work:5.1f} s")
    seconds = median(wall - work for wall, work in trials)
    ratio = seconds / median(wall for wall, _ in trials)
    print(
        f"orchestration: {seconds:.1f} s a trial, two at a time; {ratio:.2f} of these tiny trials"
    )
    print(json.dumps({"orchestration_s_a_trial": round(seconds, 2), "trials": len(trials)}))


def trial(folder: Path) -> tuple[float, float]:
    """Seconds from start to record, and seconds of steps and measurement in them."""
    steps = sum(record["step_s"] for record in read_journal(folder / "training.jsonl"))
    label = folder.name.rpartition("-")[0]
    parts = list(folder.parents[1].glob(f"measurements/{label}@*/*/record.json"))
    ended = max(part.stat().st_mtime for part in parts)
    wall = ended - (folder / "trial.json").stat().st_mtime
    seconds = [json.loads(part.read_text())["seconds"].values() for part in parts]
    return wall, steps + sum(map(sum, seconds))


if __name__ == "__main__":
    main()
