"""Where a sweep keeps what: plain paths, so that every room names the same places."""

from dataclasses import dataclass
from pathlib import Path

from mixlens.spec.sweep import RunSpec, SweepSpec


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

    def trial(self, run: RunSpec) -> Path:
        """Holds run.json, model/, training.jsonl, mixture.parquet, measure/; last, record.json."""
        return self.root / "trials" / f"{run.name}-{run.digest()}"

    def base(self, run: RunSpec) -> Path:
        """Measurement of the base model; the same for all runs of a sweep."""
        return self.root / f"base-{run.base_digest()}"

    def finished(self, run: RunSpec) -> bool:
        return (self.trial(run) / "record.json").is_file()
