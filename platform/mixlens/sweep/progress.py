"""Progress of stages, for a person at a terminal or for a log."""

import time
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

LINE_EVERY_S = 20.0  # without a terminal: a progress line at most this often


class StageView:
    """Progress of long work: a bar for each stage, or lines where there is no terminal."""

    def __init__(self, out: TextIO) -> None:
        self.console = Console(file=out)
        self._bars = Progress(
            TextColumn("{task.description:34}"), BarColumn(24), MofNCompleteColumn(),
            TimeElapsedColumn(), console=self.console,
            # Rich would bring what others print to the screen; it belongs into the log.
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip

    def __enter__(self) -> "StageView":
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def say(self, note: str) -> None:
        self.console.print(note, markup=False, highlight=False, soft_wrap=True)

    def stage(self, thing: str) -> "Stages":
        """What to tell the progress of one thing, such as a model's measurement."""
        return Stages(self, self._bars, thing)


class Stages:
    """A bar, or a line, for each stage of one thing."""

    def __init__(self, view: StageView, bars: Progress, thing: str) -> None:
        self._view, self._bars, self._thing = view, bars, thing
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}

    def __call__(self, stage: str, done: int, units: int) -> None:
        name = f"{self._thing}: {stage}"
        if not self._view.console.is_terminal:
            self._line(name, done, units)
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(name, total=units)
        self._bars.update(self._tasks[stage], completed=done)

    def _line(self, name: str, done: int, units: int) -> None:
        now = time.monotonic()
        if name not in self._said:
            self._view.say(f"{name}: {units:,} to do")
        elif done < units and now - self._said[name] > LINE_EVERY_S:
            self._view.say(f"{name}: {done:,} of {units:,} done")
        else:
            return
        self._said[name] = now
