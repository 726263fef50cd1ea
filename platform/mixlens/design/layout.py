"""Where a sweep keeps what: plain paths, so that every room names the same places."""

from dataclasses import dataclass
from pathlib import Path

from mixlens.design.level import Trial
from mixlens.design.sweep import SweepSpec
from mixlens.errors import DataError, explain
from mixlens.spec import RunSpec

_EARLIER = ("base-*/measure", "trials/*/run.json", "trials/*/measure*", "measure/measured.json")
TRIAL = "trial.json"
TRAINED = "trained.json"  # says that a model is whole; written by the training
_MIX_LENGTH = 60  # of the readable part of a trial's folder


@dataclass(frozen=True)
class Layout:
    """Places in the directory of one sweep.

    Everything that took time lies in a folder named by the digest of what made it, so a changed
    sweep file never picks up results of the old one.
    """

    root: Path

    @classmethod
    def of(cls, spec: SweepSpec) -> "Layout":
        return cls(Path(spec.runs_dir).expanduser().absolute() / spec.name)

    @property
    def sweep_file(self) -> Path:
        return self.root / "sweep.json"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    def label(self, trial: Trial) -> str:
        """A trial for people who look at folders: its mixture and seed."""
        return f"{_mix(trial.run)},seed={trial.seed}"

    def trial(self, trial: Trial) -> Path:
        """Holds trial.json, model/, training.jsonl, mixture.parquet; named by its run alone."""
        return self.trials / f"{self.label(trial)}-{trial.run.digest()}"

    def trained(self, trial: Trial) -> bool:
        """Whether its model is whole."""
        return (self.trial(trial) / TRAINED).is_file()


def check_layout(root: Path) -> None:
    """Refuse the directory of an earlier version, whose results lie elsewhere below it.

    Raises:
        DataError: there are results of an earlier version.
    """
    for pattern in _EARLIER:
        if old := next(root.glob(pattern), None):
            raise DataError(
                explain("run directory", str(root), f"{old.relative_to(root)} is of an earlier "
                        "version of Mixlens, which this one does not read",
                        "Keep it for that version under another name, and start the command again.")
            )  # fmt: skip


def _mix(run: RunSpec) -> str:
    """The mixture of a run for people who look at folders."""
    text = ",".join(f"{name}={weight:.4g}" for name, weight in sorted(run.weights.items()))
    return text if len(text) <= _MIX_LENGTH else f"{text[:_MIX_LENGTH]}..."
