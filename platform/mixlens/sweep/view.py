"""What a person sees of a running sweep: one live view, or lines where there is no terminal."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from mixlens.design import Trial
from mixlens.sweep.progress import LINE_EVERY_S
from mixlens.tasks import GROUPS

STAGE_WIDTH = 13
BAR_WIDTH = 10
TRAINING_SHARE = 0.75  # of a trial's time; the rest is its measurement


@dataclass
class TrialState:
    """Where one trial is.

    Attributes:
        stage: waiting, training, measuring, done, failed, lost (it is tried again), or "done
            before" for an earlier start's.
        step: optimiser steps done.
        latest: last reported metrics.
    """

    steps: int
    stage: str = "waiting"
    step: int = 0
    latest: dict[str, Any] = field(default_factory=dict)

    def progress(self) -> float:
        """Share of the trial's work that is done, 0 to 1."""
        if self.stage in ("done", "done before", "failed"):
            return 1.0
        if self.stage == "measuring":
            return TRAINING_SHARE
        return TRAINING_SHARE * self.step / self.steps


class SweepView:
    """Progress of all trials; `update` it as results arrive, inside a `with` block."""

    def __init__(self, trials: Iterable[Trial], finished: frozenset[str], out: TextIO) -> None:
        self.console = Console(file=out)
        self.trials = {
            trial.name: TrialState(
                trial.run.training.steps, "done before" if trial.name in finished else "waiting"
            )
            for trial in trials
        }
        self.note = "starting Ray"
        self._started = time.monotonic()
        self._printed = 0.0
        self._before = self._done()
        self._live = Live(
            get_renderable=self._table, console=self.console, refresh_per_second=2,
            auto_refresh=self.console.is_terminal,
            # Rich would bring what others print to the screen; it belongs into the log.
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip

    def __enter__(self) -> "SweepView":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def say(self, note: str) -> None:
        """Show what the sweep as a whole is doing."""
        self.note = note
        if not self.console.is_terminal:
            self.console.print(note)

    def tell(self, line: str) -> None:
        """Show a line that stays; any thread may call it."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def update(self, of: Trial, stage: str, metrics: dict[str, Any] | None = None) -> None:
        """Note the stage and last metrics of a trial, which may be one just proposed."""
        name = of.name
        trial = self.trials.setdefault(name, TrialState(of.run.training.steps))
        changed = stage != trial.stage
        trial.stage = stage
        trial.latest.update(metrics or {})
        trial.step = int(trial.latest.get("step", trial.step))
        now = time.monotonic()
        if not self.console.is_terminal and (changed or now - self._printed > LINE_EVERY_S):
            self._printed = now
            self.console.print(
                f"{name:22} {_stage(trial):18} {_shown(trial)}   [{self._summary()}]",
                markup=False, highlight=False, soft_wrap=True,
            )  # fmt: skip

    def _done(self) -> float:
        return sum(trial.progress() for trial in self.trials.values())

    def _summary(self) -> str:
        finished = sum(trial.stage in ("done", "done before") for trial in self.trials.values())
        return f"{finished}/{len(self.trials)} trials, {self.time_left()}"

    def time_left(self) -> str:
        """Time left if the rest goes as fast as what this start has done so far."""
        elapsed, done = time.monotonic() - self._started, self._done() - self._before
        if done < 0.3:
            return f"{_clock(elapsed)} so far"
        left = elapsed * (len(self.trials) - self._done()) / done
        return f"{_clock(elapsed)} so far, about {_clock(left)} left"

    def _table(self) -> Table:
        table = Table(title=f"{self.note}: {self._summary()}", title_justify="left", box=None)
        # In a narrow terminal the metrics are cut, never a trial's name.
        table.add_column("trial", no_wrap=True, min_width=max(map(len, self.trials)))
        table.add_column("stage", no_wrap=True, min_width=STAGE_WIDTH)
        table.add_column("", min_width=BAR_WIDTH)
        table.add_column("last metrics", no_wrap=True)
        for name, trial in self.trials.items():
            bar = ProgressBar(total=1.0, completed=trial.progress(), width=BAR_WIDTH)
            table.add_row(name, _stage(trial), bar, _shown(trial))
        return table


def _stage(trial: TrialState) -> str:
    return f"step {trial.step}/{trial.steps}" if trial.stage == "training" else trial.stage


def _shown(trial: TrialState) -> str:
    """The few metrics worth a glance, in a fixed order."""
    shown = []
    for key, text in (
        ("loss", "loss {:.3f}"),
        ("images_per_s", "{:.0f} images/s"),
        *(
            (f"accuracy/{name}", f"{group.label} {{:.2f}}")
            for name, group in GROUPS.items()
            if group.tier
        ),
        ("redundancy", "RS {:.3f}"),
    ):
        if isinstance(value := trial.latest.get(key), int | float):
            shown.append(text.format(value))
    if trial.stage == "done":
        shown = [text for text in shown if "loss" not in text and "images" not in text]
    return "  ".join(shown)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
