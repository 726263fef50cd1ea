"""The ledger: which trials a sweep is made of when its file changes."""

from pathlib import Path

import pytest

from mixlens.design import Layout, SweepSpec, asked_trials, held_trials, sweep_trials
from mixlens.design.level import Trial
from mixlens.errors import DataError

CONTENT = {
    "name": "small",
    "components": {
        "simple": {"tasks": {"coarse": 1}},
        "complex": {"tasks": {"relational": 1}},
        "third": {"tasks": {"count": 1}},
    },
    "design": {
        "kind": "ratio", "high": {"complex": 1.0}, "low": {"simple": 1.0}, "ratios": [0.0, 1.0],
    },
    "seeds": [0],
    "training": {"steps": 2, "global_batch": 4, "micro_batch": 2},
    "evaluation": {"component": "third", "examples": 8},
}  # fmt: skip


def spec_of(runs_dir: Path, **changes: object) -> SweepSpec:
    return SweepSpec.model_validate({**CONTENT, "runs_dir": str(runs_dir), **changes})


def ratios(*values: float) -> dict:
    return {**CONTENT["design"], "ratios": list(values)}


def begun(spec: SweepSpec) -> Layout:
    """Enter what the file names in the ledger."""
    layout = Layout.of(spec)
    for trial in asked_trials(spec):
        layout.trial(trial).mkdir(parents=True)
        (layout.trial(trial) / "trial.json").write_text(trial.model_dump_json())
    return layout


def names(trials: tuple[Trial, ...]) -> list[str]:
    return [trial.name for trial in trials]


def test_a_sweep_is_what_its_file_names_and_what_its_folder_holds(tmp_path: Path):
    layout = begun(spec_of(tmp_path))
    grown = spec_of(tmp_path, design=ratios(0.5), seeds=[1])
    assert names(held_trials(grown, layout)) == ["ratio=0,seed=0", "ratio=1,seed=0"]
    assert names(sweep_trials(grown, layout)) == [
        "ratio=0,seed=0", "ratio=0.5,seed=1", "ratio=1,seed=0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation": {"component": "third", "examples": 64, "batch_size": 3, "probes": {}}},
        {"resources": {"workers": 2}},
        {"design": ratios(0.0, 0.5, 1.0)},
        {"seeds": [1, 0]},
        {"components": {**CONTENT["components"], "third": {"tasks": {"locate": 1}}}},
        {"training": {**CONTENT["training"], "log_every": 1}},
    ],
)
def test_what_decides_no_weights_leaves_the_trials_where_they_are(tmp_path: Path, change: dict):
    first, later = spec_of(tmp_path), spec_of(tmp_path, **change)
    layout = begun(first)
    assert names(held_trials(later, layout)) == ["ratio=0,seed=0", "ratio=1,seed=0"]
    there = {layout.trial(trial) for trial in asked_trials(later)}
    assert there >= {layout.trial(trial) for trial in asked_trials(first)}


@pytest.mark.parametrize(
    "change",
    [
        {"model_fingerprint": "another"},
        {"prompts_digest": "another"},
        {"training": {**CONTENT["training"], "steps": 3}},
        {"design": {**CONTENT["design"], "high": {"third": 1.0}}},
        {"design": {"kind": "arms", "arms": {"a": {"complex": 1.0}}}},
    ],
)
def test_what_decides_weights_begins_anew(tmp_path: Path, change: dict):
    layout = begun(spec_of(tmp_path))
    assert held_trials(spec_of(tmp_path, **change), layout) == ()


def test_a_component_that_changes_leaves_the_trials_that_never_drew_from_it(tmp_path: Path):
    layout = begun(spec_of(tmp_path))
    components = {**CONTENT["components"], "complex": {"tasks": {"relational": 2}}}
    assert names(held_trials(spec_of(tmp_path, components=components), layout)) == [
        "ratio=0,seed=0"
    ]


def test_the_same_weights_under_another_design_are_the_same_folder(tmp_path: Path):
    layout = begun(spec_of(tmp_path))
    arms = spec_of(tmp_path, design={"kind": "arms", "arms": {"all": {"complex": 1.0}}})
    (trial,) = asked_trials(arms)
    assert layout.trial(trial) == layout.trial(asked_trials(spec_of(tmp_path))[1])


def test_a_folder_names_its_mixture_in_few_letters(tmp_path: Path):
    spec = spec_of(tmp_path, design=ratios(0.25))
    name = Layout.of(spec).trial(asked_trials(spec)[0]).name
    assert name.startswith("complex=0.25,simple=0.75,seed=0-")
    assert len(name) < 120


def test_a_damaged_entry_is_named(tmp_path: Path):
    spec = spec_of(tmp_path)
    layout = begun(spec)
    file = layout.trial(asked_trials(spec)[0]) / "trial.json"
    file.write_text("{")
    with pytest.raises(DataError, match=r"trial\.json"):
        held_trials(spec, layout)
