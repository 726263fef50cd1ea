"""Read what a sweep left on disk: its spec, and the measured tables of the base and every trial."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mixlens.design import BASE, Layout, Level, SweepSpec, Trial, sweep_trials
from mixlens.design.layout import check_layout
from mixlens.errors import DataError, damaged_file, explain
from mixlens.measurement import Measured, base_of, is_finished, load, other_of, trial_of


@dataclass(frozen=True)
class RunResults:
    """One measured model: the base, or a trial after fine-tuning.

    Attributes:
        name: of the trial, or "base".
        folder: its directory; of the base that of its measurement.
        trial: what was run; None for the base.
        measured: what was measured of it.
        training: one row a logged optimiser step; empty for the base.
    """

    name: str
    folder: Path
    trial: Trial | None
    measured: Measured
    training: pd.DataFrame

    @property
    def examples(self) -> pd.DataFrame:
        return self.measured.examples

    @property
    def image_metrics(self) -> pd.DataFrame:
        return self.measured.image_metrics

    @property
    def pooled_metrics(self) -> pd.DataFrame:
        return self.measured.pooled_metrics

    @property
    def level(self) -> str:
        """The id of its level; "base" for the base."""
        return BASE if self.trial is None else self.trial.level.id

    @property
    def seed(self) -> int | None:
        return None if self.trial is None else self.trial.seed

    def training_records(self) -> list[dict[str, Any]]:
        """The rows of `training` as records, without what a step did not log."""
        rows = self.training.to_dict("records")
        return [{str(key): value for key, value in row.items() if pd.notna(value)} for row in rows]


@dataclass(frozen=True)
class SweepResults:
    """A sweep's spec and its measured models, all on the same held-out images.

    Attributes:
        folder: the sweep's directory.
        spec: the sweep file.
        base: the model before fine-tuning.
        trials: the finished trials, in the order of the sweep file.
        missing: names of the trials that have not finished.
        example_ids: the held-out images.
        other: the base on the images of `evaluation.transfer`; None without it.
    """

    folder: Path
    spec: SweepSpec
    base: RunResults
    trials: tuple[RunResults, ...]
    missing: tuple[str, ...]
    example_ids: tuple[str, ...]
    other: Measured | None = None

    @property
    def attributes(self) -> pd.DataFrame:
        """example_id and the facts about each held-out image."""
        return self.base.measured.attributes

    @property
    def runs(self) -> tuple[RunResults, ...]:
        """The base, then the trials."""
        return (self.base, *self.trials)

    @property
    def levels(self) -> tuple[Level, ...]:
        """Those with a finished trial, in the order of the design."""
        found = {one.trial.level.id: one.trial.level for one in self.trials if one.trial}
        return tuple(self.spec.design.ordered(found.values()))

    def level_of_trials(self) -> list[int]:
        """For each trial the place of its level in `levels`."""
        places = [level.id for level in self.levels]
        return [places.index(trial.level) for trial in self.trials]

    def groups_of(self, level: Level) -> tuple[str, ...]:
        """The task groups that a level is trained on, in the order of its components."""
        return tuple(
            dict.fromkeys(
                group
                for name, weight in level.weights.items()
                if weight > 0
                for group in self.spec.components[name].tasks
            )
        )


def load_sweep(sweep_dir: Path) -> SweepResults:
    """Read a run directory.

    Raises:
        DataError: there is no sweep, no measured base or no finished trial in `sweep_dir`, a table
            is missing or unreadable, or a run was measured on other images than the base.
    """
    layout = Layout(sweep_dir)
    check_layout(sweep_dir)
    spec = _read_spec(layout.sweep_file)
    base = load_run(spec, sweep_dir, None)
    everything = sweep_trials(spec, layout)
    finished = [trial for trial in everything if is_finished(spec, sweep_dir, trial)]
    trials = [load_run(spec, sweep_dir, trial) for trial in finished]
    missing = [trial.name for trial in everything if trial not in finished]
    if not trials:
        raise DataError(
            explain(
                str(sweep_dir),
                f"0 of {len(missing)} trials finished",
                "there is nothing to report yet",
                "Start the sweep's command again to finish its trials.",
            )
        )
    ids = tuple(sorted(base.examples["example_id"].unique()))
    for trial in trials:
        others = set(trial.examples["example_id"])
        if others != set(ids):
            raise DataError(
                explain(
                    str(trial.measured.folder),
                    f"{len(others)} images, {len(others & set(ids))} of them also the base's",
                    f"the base was measured on {len(ids)} images, and only equal images compare",
                    "Delete this folder and start the sweep's command again.",
                )
            )
    other = other_of(spec, sweep_dir)
    elsewhere = None if other is None else load(other)
    return SweepResults(sweep_dir, spec, base, tuple(trials), tuple(missing), ids, elsewhere)


def load_run(spec: SweepSpec, root: Path, trial: Trial | None) -> RunResults:
    """Read one measured model of a sweep; `trial` is None for the base.

    Raises:
        DataError: it is not measured, or a file is damaged.
    """
    if trial is None:
        measured = load(base_of(spec, root))
        return RunResults(BASE, measured.folder, None, measured, read_training(measured.folder))
    folder = Layout(root).trial(trial)
    measured = load(trial_of(spec, root, trial))
    return RunResults(trial.name, folder, trial, measured, read_training(folder))


def read_training(folder: Path) -> pd.DataFrame:
    """The training log below a trial's folder, one row a logged step; empty if it has none.

    A step logged twice (a restart repeats the steps after its checkpoint) keeps the later record.

    Raises:
        DataError: a line before the last is damaged.
    """
    files = sorted(folder.glob("**/training.jsonl"))
    if not files:
        return pd.DataFrame({"step": []})
    records = []
    lines = files[0].read_text(errors="replace").splitlines(keepends=True)
    for line in lines:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if line is lines[-1]:  # of a log that is still being written, or was cut
                break
            remedy = "Delete the trial's folder; the sweep's command trains it again."
            raise damaged_file(files[0], error, remedy) from None
    if not records:
        return pd.DataFrame({"step": []})
    return (
        pd.DataFrame(records)
        .drop_duplicates("step", keep="last")
        .sort_values("step", ignore_index=True)
    )


def _read_spec(file: Path) -> SweepSpec:
    if not file.is_file():
        raise DataError(
            explain("run directory", str(file.parent), "it holds no sweep.json", "Name runs/NAME.")
        )
    try:
        return SweepSpec.model_validate_json(file.read_text())
    except (OSError, ValueError) as error:
        raise damaged_file(file, error, "The sweep's command writes it again.") from None
