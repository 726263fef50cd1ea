"""The ledger: a sweep is the trials that its folder holds, and those that its file asks for.

A trial belongs to a sweep if the file as it is now would make the very same run at its level and
seed. So levels and seeds that are added, or taken out, repeat nothing and lose nothing; a changed
base, component or training begins anew beside what is there.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from mixlens.design.layout import TRIAL, Layout
from mixlens.design.level import Trial
from mixlens.design.sweep import SweepSpec
from mixlens.errors import SpecError, damaged_file, first_line
from mixlens.spec import RunSpec


def asked_trials(spec: SweepSpec) -> tuple[Trial, ...]:
    """The trials that the file names: each level with each seed, in the order of the file."""
    return tuple(spec.trial(level, seed) for level in spec.design.levels() for seed in spec.seeds)


def held_trials(spec: SweepSpec, layout: Layout) -> tuple[Trial, ...]:
    """The trials of the sweep that its folder holds, finished or not, in the design's order.

    Raises:
        DataError: a `trial.json` cannot be read.
    """
    found = []
    for file in sorted(layout.trials.glob(f"*/{TRIAL}")):
        try:
            trial = Trial.model_validate_json(file.read_text())
        except (OSError, ValidationError, ValueError) as error:
            remedy = "Delete its folder; the sweep's command trains it again."
            raise damaged_file(file, error, remedy) from None
        if (same := _as_now(trial, spec)) is not None:
            found.append(same)
    return _ordered(spec, found)


def sweep_trials(spec: SweepSpec, layout: Layout) -> tuple[Trial, ...]:
    """The trials that the file names and those that the folder holds, in the design's order."""
    asked = asked_trials(spec)
    names = {trial.name for trial in asked}
    others = [trial for trial in held_trials(spec, layout) if trial.name not in names]
    return _ordered(spec, [*asked, *others])


def read_run(file: Path) -> RunSpec:
    """The run of a trial's `trial.json`, or a run by itself as JSON.

    Raises:
        SpecError: it is neither.
    """
    try:
        text = file.read_text()
        content = json.loads(text)
        if isinstance(content, dict) and "run" in content:
            return Trial.model_validate_json(text).run
        return RunSpec.model_validate_json(text)
    except (OSError, ValueError) as error:
        problem = f"this is no trial.json of a trial, and no run: {first_line(error)}"
        raise SpecError(f"{file}: {problem}") from None


def _as_now(trial: Trial, spec: SweepSpec) -> Trial | None:
    """The trial as the file makes it now, where that is the same run; else None."""
    if trial.space != spec.design.digest_of_space():
        return None
    named = {level.id: level for level in spec.design.levels()}
    level = named.get(trial.level.id, trial.level)
    if not {name for name, weight in level.weights.items() if weight > 0} <= set(spec.components):
        return None
    same = spec.trial(level, trial.seed)
    return same if same.run.digest() == trial.run.digest() else None


def _ordered(spec: SweepSpec, trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """By level as the design orders them, then by seed as the file does."""
    levels = {trial.level.id: trial.level for trial in trials}
    place = {level.id: n for n, level in enumerate(spec.design.ordered(levels.values()))}
    seeds = {seed: n for n, seed in enumerate(spec.seeds)}
    return tuple(
        sorted(
            trials,
            key=lambda trial: (
                place[trial.level.id], seeds.get(trial.seed, len(seeds)), trial.seed
            ),
        )
    )  # fmt: skip
