"""What a sweep writes about its trials."""

import json
from pathlib import Path

from mixlens.design import Trial
from mixlens.design.layout import TRIAL


def start_trial(trial: Trial, folder: Path) -> None:
    """Make the trial's folder and enter it in the ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / TRIAL, trial.model_dump(mode="json"))


def write_json(file: Path, content: object) -> None:
    """Replace `file` in one step, so that nobody ever reads half of it."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.rename(file)
