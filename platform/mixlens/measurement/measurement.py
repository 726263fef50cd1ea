"""A measurement: one model on one set of held-out images, and where its parts lie."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mixlens.design import BASE, Layout, SweepSpec, Trial
from mixlens.errors import DataError, damaged_file, explain, read_record
from mixlens.measurement.request import Asked, Embeddings, Request, Tokens, answers_of
from mixlens.models.twin import Part
from mixlens.probing.targets import select
from mixlens.spec import HeldOut, MeasureSpec, held_out_of, transfer_of
from mixlens.spec.base import model_digest

FOLDER = "measurements"
RECORD = "record.json"
STATES = "states"
TWINS: dict[str, Part] = {"random language model": "language", "random model": "all"}
"""Controls with random weights -> the part of the model whose weights are random."""
TWIN_SEED = 0


@dataclass(frozen=True)
class Subject:
    """A model that is looked at.

    Attributes:
        name: for people.
        path: folder, hub id or builtin name of the checkpoint.
        digest: of what decides its weights.
    """

    name: str
    path: str
    digest: str


@dataclass(frozen=True)
class Measurement:
    """One model on one set of held-out images.

    Its folder is named by these two. Each part of it, a `Request`, lies in a folder of its own,
    which has its name only when all of it is there.

    Attributes:
        root: the directory of the sweep, or of the measured model.
        subject: the model.
        held_out: the images.
        asked: what is looked at, beyond the metrics of tokens.
        base: the measurement whose subspaces are compared with.
    """

    root: Path
    subject: Subject
    held_out: HeldOut
    asked: Asked
    base: "Measurement | None" = None

    @property
    def folder(self) -> Path:
        on = self.held_out.name if self.held_out.images == "own" else self.held_out.images
        digests = f"{self.subject.digest}-{self.held_out.digest()}"
        return self.root / FOLDER / f"{self.subject.name}@{on}-{digests}"

    @property
    def tokens(self) -> Tokens:
        """The request for the metrics of its tokens."""
        return Tokens(base=self.base.subject.digest if self.base else "")

    @property
    def states(self) -> Path:
        """Where hidden states stay that are asked for."""
        return self.folder / STATES

    def part(self, request: Request) -> Path:
        """The folder of a part."""
        return self.folder / request.folder

    def record(self, request: Request) -> Path:
        """The record of a part: it is there when the part is."""
        return self.part(request) / RECORD

    def has(self, request: Request) -> bool:
        return self.record(request).is_file()

    def attributes(self) -> list[str]:
        """The attributes to probe; known once the tokens are measured.

        Raises:
            SpecError: one is asked for that no image has.
        """
        if self.asked.probes is None:
            return []
        file = self.part(self.tokens) / "attributes.parquet"
        table = read_table(file).drop(columns="example_id")
        return select(table, self.asked.probes.attributes)

    def requests(self) -> list[Request]:
        """Everything that is asked; probes only once the tokens are measured, which say of what."""
        found: list[Request] = [self.tokens]
        if self.asked.answers:
            found.insert(0, self.asked.answers)
        found += self.asked.extended()
        if self.asked.probes:
            found.append(Embeddings())
            found += self.asked.probings(self.attributes()) if self.has(self.tokens) else []
        return [*found, *self.asked.deletions(self.held_out.examples)]

    def missing(self) -> list[Request]:
        """What of it is not there."""
        return [request for request in self.requests() if not self.has(request)]

    def finished_at(self) -> float | None:
        """When the last of its parts came to be, in seconds since 1970; None while one is missing.

        Hidden states that are to be kept are a part as well.
        """
        if self.missing() or (self.asked.keep_states and not self.states.is_dir()):
            return None
        return max(self.record(request).stat().st_mtime for request in self.requests())

    def is_finished(self) -> bool:
        return self.finished_at() is not None

    def left_out(self) -> list[str]:
        """The held-out photographs that the model cannot be given, and why."""
        record = read_record(self.record(self.tokens), "left_out")
        return [str(line) for line in record["left_out"]]


def base_of(spec: SweepSpec, root: Path) -> Measurement:
    """The base of a sweep on the held-out images."""
    return Measurement(root, _base(spec), held_out_of(spec), Asked.of(spec.evaluation))


def trial_of(spec: SweepSpec, root: Path, trial: Trial) -> Measurement:
    """A trial of a sweep on the held-out images, compared with the base."""
    layout = Layout(root)
    model = layout.trial(trial) / "model"
    subject = Subject(layout.label(trial), str(model), trial.run.digest())
    asked = Asked.of(spec.evaluation)
    return Measurement(root, subject, held_out_of(spec), asked, base_of(spec, root))


def is_finished(spec: SweepSpec, root: Path, trial: Trial) -> bool:
    """Whether a trial is trained, and measured as `spec` asks now."""
    return Layout(root).trained(trial) and trial_of(spec, root, trial).is_finished()


def model_of(spec: MeasureSpec, root: Path) -> Measurement:
    """The model of a measure file on the held-out images."""
    return Measurement(root, _model(spec), held_out_of(spec), Asked.of(spec.evaluation))


def other_of(spec: SweepSpec | MeasureSpec, root: Path) -> Measurement | None:
    """The base or model on the images that trends are held against; None without such."""
    held_out = transfer_of(spec)
    if held_out is None:
        return None
    subject = _model(spec) if isinstance(spec, MeasureSpec) else _base(spec)
    return Measurement(
        root, subject, held_out, Asked(answers_of(spec.evaluation), spec.evaluation.metrics)
    )


def controls_of(spec: MeasureSpec, root: Path) -> dict[str, Measurement]:
    """The controls of a measured model by name: random weights, and images without content."""
    if not spec.controls:
        return {}
    held_out, answers = held_out_of(spec), answers_of(spec.evaluation)
    metrics = spec.evaluation.metrics
    found = {}
    for name, part in TWINS.items():
        digest = model_digest(spec.model, spec.model_fingerprint, part=part, seed=TWIN_SEED)
        path = str(root / "controls" / f"weights-{part}")
        subject = Subject(name.replace(" ", "-"), path, digest)
        found[name] = Measurement(root, subject, held_out, Asked(metrics=metrics))
    for images in ("blank", "noise"):
        empty = held_out.model_copy(update={"images": images})
        found[f"{images} images"] = Measurement(root, _model(spec), empty, Asked(answers, metrics))
    return found


def _base(spec: SweepSpec) -> Subject:
    return Subject(BASE, spec.model, spec.base_digest())


def _model(spec: MeasureSpec) -> Subject:
    return Subject(spec.model_name, spec.model, spec.model_digest())


def read_table(
    file: Path, remedy: str = "Delete its folder; the command that measured it does so again."
) -> pd.DataFrame:
    """A Parquet table of ours.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's errors are one of the two
        raise damaged_file(file, error, remedy) from None


def unfinished(measurement: Measurement, part: str) -> DataError:
    """What is said of a measurement whose part is asked for and not there."""
    return DataError(
        explain(str(measurement.folder), f"no {part}", "the measurement is not finished",
                "Start its command again.")
    )  # fmt: skip
