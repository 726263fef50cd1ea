"""What MLflow is to hold of a run directory: one run for a sweep, a child for base and trials.

Everything is read from the disk, where it lies anyway; nothing needs to be told while it happens.
A `Member` is one MLflow run; a `Section` a part of its content that comes to be at one moment.
"""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mixlens.analysis import answer_sentences, load_run
from mixlens.analysis.diagnosis import diagnose
from mixlens.analysis.measured import read_model_tables
from mixlens.analysis.tables import read_tables
from mixlens.analysis.transfer_answer import read_answer
from mixlens.analysis.versions import measure_version_warnings, sweep_version_warnings
from mixlens.design import Layout, SweepSpec, Trial, sweep_trials
from mixlens.design.layout import TRIAL, check_layout
from mixlens.errors import DataError, explain
from mixlens.measurement import Measurement, base_of, load, model_of, trial_of
from mixlens.spec import MeasureSpec
from mixlens.tasks.prompts import prompts_digest, prompts_text
from mixlens.tracking.data import data_params, data_sets, log_data
from mixlens.tracking.model import log_model
from mixlens.tracking.notes import note_of_base, note_of_model, note_of_sweep, note_of_trial
from mixlens.tracking.results import log_intervals, log_run, log_sweep
from mixlens.tracking.sink import Record, Sink

Stamp = tuple[tuple[str, int, int], ...]
"""Of the files that a section is read from: name, size and time."""


@dataclass(frozen=True)
class Section:
    """A part of a run's content.

    Attributes:
        name: of the part.
        files: what it is read from; it is there when all of them are.
        write: gives it to a sink.
    """

    name: str
    files: tuple[Path, ...]
    write: Callable[[Sink], None]

    def stamp(self) -> Stamp | None:
        """Something that changes with the content; None while there is none."""
        found = []
        for file in self.files:
            try:
                state = file.stat()
            except OSError:
                return None
            found.append((file.name, state.st_size, state.st_mtime_ns))
        return tuple(found)


@dataclass(frozen=True)
class Member:
    """One MLflow run.

    Attributes:
        name: of the run.
        folder: its directory, which holds its ledger.
        kind: sweep, base, trial or model.
        tags: it is made with these.
        begins: the file that says that work on it has begun.
        finished_at: when all of it came to be on disk, in seconds since 1970; None before that.
        sections: in the order in which they come to be.
    """

    name: str
    folder: Path
    kind: str
    tags: Mapping[str, str]
    begins: Path
    finished_at: Callable[[], float | None]
    sections: tuple[Section, ...]

    def is_finished(self) -> bool:
        return self.finished_at() is not None


def members_of(spec: SweepSpec | MeasureSpec, root: Path) -> tuple[Member, ...]:
    """The MLflow runs of a run directory, the parent of the others first."""
    if isinstance(spec, MeasureSpec):
        return (_model(spec, root),)
    return (_sweep(spec, root), _base(spec, root), *_trials(spec, root))


def read_spec(root: Path) -> SweepSpec | MeasureSpec:
    """The spec of a run directory.

    Raises:
        DataError: it is not the directory of a sweep or of a measured model, or of another version.
    """
    check_layout(root)
    for file, kind in ((root / "sweep.json", SweepSpec), (root / "measure.json", MeasureSpec)):
        if file.is_file():
            try:
                return kind.model_validate_json(file.read_text())
            except (OSError, ValidationError, ValueError) as error:
                what = str(error).splitlines()[0]
                raise DataError(
                    explain(str(file), what, "it cannot be read, or is of another version",
                            "Start the command of this folder again, which writes it.")
                ) from None  # fmt: skip
    raise DataError(
        explain(str(root), "neither sweep.json nor measure.json",
                "this is not the folder of a sweep or of a measured model",
                "Name runs/NAME of a sweep, or runs/NAME/MODEL-DIGEST of a measured model.")
    )  # fmt: skip


def _sweep(spec: SweepSpec, root: Path) -> Member:
    layout = Layout(root)
    params = {
        "model": spec.model,
        "levels": " ".join(level.id for level in spec.design.levels()),
        "seeds": " ".join(str(seed) for seed in spec.seeds),
        **data_params(spec.data),
        **_training_params(spec),
    }

    def about(sink: Sink) -> None:
        sink.log_params(params)
        sink.tag("mlflow.note.content", note_of_sweep(spec))
        sink.log_inputs(data_sets(spec, _drawn(spec)))
        sink.log_json("sweep.json", json.loads(layout.sweep_file.read_text()))
        sink.log_text("prompts.yaml", prompts_text())
        log_data(sink, spec.data)

    def results(sink: Sink) -> None:
        tables = read_tables(layout.tables)
        warnings = sweep_version_warnings(spec, root)
        sentences = [*answer_sentences(tables), *read_answer(layout.tables), *warnings]
        log_sweep(sink, tables, sentences, root)

    return Member(
        spec.name, root, "sweep", _tags("sweep", spec.name), layout.sweep_file,
        _file_time(layout.report),
        (
            Section("about", (layout.sweep_file,), about),
            Section("results", (layout.report,), results),
        ),
    )  # fmt: skip


def _base(spec: SweepSpec, root: Path) -> Member:
    base = base_of(spec, root)
    folder, records = base.folder, _records(base)

    def about(sink: Sink) -> None:
        sink.log_params({"model": spec.model, "digest": spec.base_digest()})
        sink.tag("mlflow.note.content", note_of_base(spec))
        sink.log_inputs(data_sets(spec, {}, with_transfer=False))

    def results(sink: Sink) -> None:
        log_run(sink, load_run(spec, root, None))
        sink.log_outcome("base", {"model": spec.model, "digest": spec.base_digest()})

    return Member(
        "base", folder, "base",
        # MLflow's list opens the children of a run that has one of this type among them.
        _tags("base", spec.name) | {"mlflow.runType": "evaluation"},
        folder, base.finished_at,
        (
            Section("about", (Layout(root).sweep_file,), about),
            Section("results", records, results),
            _intervals("base", root, records),
        ),
    )  # fmt: skip


def _trials(spec: SweepSpec, root: Path) -> Iterator[Member]:
    for trial in sweep_trials(spec, Layout(root)):
        yield _trial(spec, trial, root)


def _trial(spec: SweepSpec, trial: Trial, root: Path) -> Member:
    layout, run = Layout(root), trial.run
    folder, measurement = layout.trial(trial), trial_of(spec, root, trial)
    records, journal = _records(measurement), folder / "training.jsonl"
    steps = Steps(journal)
    params = {
        "level": trial.level.id,
        **trial.level.coordinates,
        "seed": trial.seed,
        "model": run.model,
        "digest": run.digest(),
        **{f"weight.{name}": weight for name, weight in run.weights.items()},
        **_training_params(spec),
    }

    def about(sink: Sink) -> None:
        sink.log_params(params)
        sink.tag("mlflow.note.content", note_of_trial(run))
        sink.log_inputs(data_sets(spec, run.weights, with_transfer=False))
        sink.log_json(TRIAL, trial.model_dump(mode="json"))

    def results(sink: Sink) -> None:
        log_run(sink, load_run(spec, root, trial))
        if journal.is_file():
            sink.log_file(journal)
        sink.log_outcome(trial.name, {"model": run.model, "digest": run.digest()})

    return Member(
        trial.name, folder, "trial", _tags("trial", spec.name), folder / TRIAL,
        measurement.finished_at,
        (
            Section("about", (folder / TRIAL,), about),
            Section("training", (journal,), lambda sink: sink.log_training(steps.read())),
            Section("results", records, results),
            _intervals(trial.name, root, records),
        ),
    )  # fmt: skip


def _records(measurement: Measurement) -> tuple[Path, ...]:
    """The records of the parts that the numbers of a base or a trial are taken from."""
    answers = measurement.asked.answers
    parts = (answers, measurement.tokens) if answers else (measurement.tokens,)
    return tuple(measurement.record(part) for part in parts)


def _intervals(name: str, root: Path, finished: tuple[Path, ...]) -> Section:
    """Of the values of one model, from the tables of its sweep."""
    tables = Layout(root).tables
    return Section(
        "intervals",
        (*finished, tables / "accuracy.parquet", tables / "layers.parquet"),
        lambda sink: log_intervals(sink, name, tables),
    )


def _model(spec: MeasureSpec, root: Path) -> Member:
    file, report = root / "measure.json", root / "report.html"
    params = {
        "model": spec.model,
        "digest": spec.model_digest(),
        "held_out_images": spec.evaluation.examples,
        "prompts": prompts_digest(),
        **data_params(spec.data),
    }

    def about(sink: Sink) -> None:
        sink.log_params(params)
        sink.tag("mlflow.note.content", note_of_model(spec))
        sink.log_inputs(data_sets(spec, {}))
        sink.log_json("measure.json", json.loads(file.read_text()))
        sink.log_text("prompts.yaml", prompts_text())
        log_data(sink, spec.data)

    def results(sink: Sink) -> None:
        tables = read_model_tables(root / "tables")
        sentences = [*diagnose(tables), *measure_version_warnings(spec, root)]
        log_model(sink, tables, load(model_of(spec, root)).throughput, sentences, root)
        sink.log_outcome(
            Path(spec.model.removeprefix("builtin:")).name,
            {"model": spec.model, "digest": spec.model_digest()},
        )

    return Member(
        f"{spec.name} {Path(spec.model).name}", root, "model", _tags("model", spec.name), file,
        _file_time(report),
        (Section("about", (file,), about), Section("results", (report,), results)),
    )  # fmt: skip


def _file_time(file: Path) -> Callable[[], float | None]:
    """When a file was written, for who asks."""
    return lambda: file.stat().st_mtime if file.is_file() else None


class Steps:
    """The records of a `training.jsonl`, one a step; what was read once is not read again.

    A line that is being written is left out. A resumed training replaces the file.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = threading.Lock()  # the thread that sends, and the one that counts
        self._forget()

    def _forget(self) -> None:
        self._file, self._read = -1, 0
        self._records: dict[int, Record] = {}

    def read(self) -> list[Record]:
        """All records so far, by their steps."""
        with self._lock, self._journal.open("rb") as file:
            state = os.fstat(file.fileno())
            if state.st_ino != self._file or state.st_size < self._read:
                self._forget()
            file.seek(self._read)
            whole, newline, _ = file.read().rpartition(b"\n")
            for line in whole.splitlines():
                record = json.loads(line)
                self._records[int(record["step"])] = record
            self._file, self._read = state.st_ino, self._read + len(whole) + len(newline)
            return [self._records[step] for step in sorted(self._records)]


def _tags(kind: str, sweep: str) -> dict[str, str]:
    return {"mixlens.kind": kind, "mixlens.sweep": sweep, "mlflow.source.name": "mixlens"}


def _drawn(spec: SweepSpec) -> dict[str, float]:
    """Components that any trial draws from."""
    return {
        name: weight
        for level in spec.design.levels()
        for name, weight in level.weights.items()
        if weight
    }


def _training_params(spec: SweepSpec) -> dict[str, Any]:
    training = spec.training
    lora = training.lora
    return {
        "zero_stage": training.zero_stage,
        "precision": training.precision,
        "steps": training.steps,
        "global_batch": training.global_batch,
        "workers": spec.resources.workers,
        **{f"lr.{tower}": rate for tower, rate in training.learning_rates},
        "freeze": " ".join(training.freeze) or "none",
        "lora_rank": lora.rank if lora else "none",
        "held_out_images": spec.evaluation.examples,
        "prompts": prompts_digest(),
    }
