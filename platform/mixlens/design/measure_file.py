"""Read a measure file, or what a sweep file says of its base."""

from collections.abc import Sequence
from pathlib import Path

from mixlens.design.sweep import SweepSpec
from mixlens.spec import DeletionSpec, MeasureSpec, ProbeSpec, load_spec
from mixlens.spec.load import keys_of


def load_measure(path: Path, overrides: Sequence[str] = ()) -> MeasureSpec:
    """Read a measure file, or of a sweep file what concerns its base model.

    A sweep file that asks for no probes or no deletion gets those of the defaults: here they are
    what one came for.

    Raises:
        SpecError: as `load_spec`.
    """
    if "training" not in keys_of(path):
        return load_spec(MeasureSpec, path, overrides)
    sweep = load_spec(SweepSpec, path, overrides)
    asked = sweep.evaluation
    evaluation = asked.model_copy(
        update={"probes": asked.probes or ProbeSpec(), "deletion": asked.deletion or DeletionSpec()}
    )
    return MeasureSpec(
        name=sweep.name,
        model=sweep.model,
        runs_dir=sweep.runs_dir,
        data=sweep.data,
        components=sweep.components,
        evaluation=evaluation,
        resources=sweep.resources,
        tracking=sweep.tracking,
    )
