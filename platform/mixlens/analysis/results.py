"""Read what a sweep left on disk: its spec, and the measured tables of the base and every trial."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from mixlens.design import BASE, Layout, Level, SweepSpec, Trial, sweep_trials
from mixlens.errors import DataError, damaged_file, explain

_TABLES = ("examples", "image_metrics", "pooled_metrics")


@dataclass(frozen=True)
class RunResults:
    """One measured model: the base, or a trial after fine-tuning.

    Attributes:
        name: of the trial, or "base".
        folder: its directory.
        measurement: the directory of what was measured.
        trial: what was run; None for the base.
        examples: one row a question asked about a held-out image, with answer and scores.
        image_metrics: stream, layer, metric, example_id, value.
        pooled_metrics: stream, layer, metric, value, low, high, n.
        training: one row a logged optimiser step; empty for the base.
    """

    name: str
    folder: Path
    measurement: Path
    trial: Trial | None
    examples: pd.DataFrame
    image_metrics: pd.DataFrame
    pooled_metrics: pd.DataFrame
    training: pd.DataFrame

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
        attributes: example_id and the facts about each held-out image.
    """

    folder: Path
    spec: SweepSpec
    base: RunResults
    trials: tuple[RunResults, ...]
    missing: tuple[str, ...]
    example_ids: tuple[str, ...]
    attributes: pd.DataFrame

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
    spec = _read_spec(layout.sweep_file)
    base_folder = _base_folder(layout, spec)
    base = load_run(base_folder, base_folder / "measure", None)
    everything = sweep_trials(spec, layout)
    trials = [
        load_run(layout.trial(trial), layout.measurement(spec, trial), trial)
        for trial in everything
        if layout.finished(spec, trial)
    ]
    missing = [trial.name for trial in everything if not layout.finished(spec, trial)]
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
                    str(trial.measurement / "examples.parquet"),
                    f"{len(others)} images, {len(others & set(ids))} of them also the base's",
                    f"the base was measured on {len(ids)} images, and only equal images compare",
                    "Delete this measure folder and start the sweep's command again.",
                )
            )
    attributes = base.measurement / "attributes.parquet"
    table = pd.DataFrame({"example_id": []})
    if attributes.is_file():
        table = read_table(attributes)
    return SweepResults(sweep_dir, spec, base, tuple(trials), tuple(missing), ids, table)


def load_run(folder: Path, measurement: Path, trial: Trial | None) -> RunResults:
    """Read one measured model; `trial` is None for the base."""
    tables = {name: read_table(measurement / f"{name}.parquet") for name in _TABLES}
    return RunResults(
        name=BASE if trial is None else trial.name,
        folder=folder,
        measurement=measurement,
        trial=trial,
        training=read_training(folder),
        **tables,
    )


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


def _base_folder(layout: Layout, spec: SweepSpec) -> Path:
    folder = layout.base(spec)
    if not (folder / "measure" / "examples.parquet").is_file():
        raise DataError(
            explain(
                str(folder),
                "no measure/examples.parquet",
                "the base model has not been measured",
                "Start the sweep's command again.",
            )
        )
    return folder


def read_table(
    file: Path, remedy: str = "Delete its folder; the command that measured it does so again."
) -> pd.DataFrame:
    """A Parquet table of ours.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise damaged_file(file, error, remedy) from None
