"""Where a sweep keeps what: plain paths, so that every room names the same places."""

from dataclasses import dataclass
from pathlib import Path

from mixlens.design.level import Trial
from mixlens.design.sweep import SweepSpec
from mixlens.spec import RunSpec, held_out_of

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

    def trial(self, trial: Trial) -> Path:
        """Holds trial.json, model/, training.jsonl, mixture.parquet; named by its run alone."""
        return self.trials / f"{_mix(trial.run)},seed={trial.seed}-{trial.run.digest()}"

    def base(self, spec: SweepSpec) -> Path:
        """Measurement of the base model; the same for all trials of a sweep."""
        return self.root / f"base-{spec.base_digest()}"

    def measurement(self, spec: SweepSpec, trial: Trial) -> Path:
        """What was measured of a trial on the held-out images of `spec`."""
        return self.trial(trial) / f"measure-{held_out_of(spec).digest()}"

    def trained(self, trial: Trial) -> bool:
        """Whether its model is whole."""
        return (self.trial(trial) / TRAINED).is_file()

    def finished(self, spec: SweepSpec, trial: Trial) -> bool:
        """Whether it is trained, and measured as `spec` asks."""
        measured = self.measurement(spec, trial) / "measured.json"
        return self.trained(trial) and measured.is_file()


def _mix(run: RunSpec) -> str:
    """The mixture of a run for people who look at folders."""
    text = ",".join(f"{name}={weight:.4g}" for name, weight in sorted(run.weights.items()))
    return text if len(text) <= _MIX_LENGTH else f"{text[:_MIX_LENGTH]}..."
