"""How fast questions were answered: by generation alone, whichever engine did it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mixlens.errors import read_record

THROUGHPUT = "throughput.json"


@dataclass(frozen=True)
class Effort:
    """What was answered, and how long it took.

    Attributes:
        answers: questions answered.
        tokens: tokens generated, those that end an answer among them.
        seconds: from the first question to the last answer, with the processing of images and
            without making them, loading a model, or scoring.
        worker: who did it; those of different workers run side by side.
    """

    answers: int
    tokens: int
    seconds: float
    worker: str = ""


def joined(efforts: Iterable[Effort]) -> Effort:
    """All of it as one: as long as the worker took that was longest at it."""
    answers = tokens = 0
    seconds: dict[str, float] = {}
    for effort in efforts:
        answers, tokens = answers + effort.answers, tokens + effort.tokens
        seconds[effort.worker] = seconds.get(effort.worker, 0.0) + effort.seconds
    return Effort(answers, tokens, max(seconds.values(), default=0.0))


def write_throughput(directory: Path, engine: str, effort: Effort) -> None:
    """Write `throughput.json`: what was done, in what time, and both a second."""
    record = {
        "engine": engine,
        "answers": effort.answers,
        "tokens": effort.tokens,
        "seconds": round(effort.seconds, 3),
        "answers_per_s": effort.answers / effort.seconds,
        "tokens_per_s": effort.tokens / effort.seconds,
    }
    (directory / THROUGHPUT).write_text(json.dumps(record, indent=2) + "\n")


def read_throughput(directory: Path) -> dict[str, float]:
    """answers_per_s and tokens_per_s of a measurement; empty where nothing was asked."""
    file = directory / THROUGHPUT
    if not file.is_file():
        return {}
    names = ("answers_per_s", "tokens_per_s")
    record = read_record(file, *names)
    return {name: float(record[name]) for name in names}
