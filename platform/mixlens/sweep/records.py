"""The record of a trial: written last, so that where it stands the trial is whole."""

import json
import time
from pathlib import Path

from mixlens.spec import RunSpec


def start_trial(run: RunSpec, folder: Path) -> None:
    """Make the trial's folder and note in it what is being run."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", run.model_dump(mode="json"))


def finish_trial(run: RunSpec, folder: Path) -> None:
    """Note that everything about the trial is on disk."""
    write_json(
        folder / "record.json",
        {"run": run.name, "digest": run.digest(), "finished_at": time.strftime("%FT%T%z")},
    )


def write_json(file: Path, content: object) -> None:
    """Replace `file` in one step, so that nobody ever reads half of it."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.rename(file)
