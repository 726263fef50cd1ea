"""Designs: their levels, and how a wrong one is refused."""

from pathlib import Path

import pytest
import yaml

from mixlens.design import SweepSpec, asked_trials
from mixlens.errors import SpecError
from mixlens.spec import load_spec

ROOT = Path(__file__).resolve().parents[3]
ARMS = {
    "kind": "arms",
    "arms": {"z_first": {"shapes": 1.0}, "both": {"shapes": 0.5, "graphs": 0.5}},
}
RATIO = {
    "kind": "ratio",
    "high": {"graphs": 1.0},
    "low": {"shapes": 1.0},
    "ratios": [0.0, 0.25, 1.0],
}
MINIMAL = {
    "name": "small",
    "components": {
        "shapes": {"tasks": {"coarse": 1}},
        "graphs": {"tasks": {"scene_graph": 1}},
    },
    "design": ARMS,
    "seeds": [3, 4],
    "training": {"steps": 2, "global_batch": 4, "micro_batch": 2},
    "evaluation": {"component": "graphs", "examples": 8},
}


def load(folder: Path, content: dict, *overrides: str) -> SweepSpec:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_spec(SweepSpec, file, overrides)


def test_one_trial_for_each_arm_and_seed_in_the_order_of_the_file(tmp_path: Path):
    spec = load(tmp_path, MINIMAL)
    trials = asked_trials(spec)
    assert [trial.name for trial in trials] == [
        "z_first,seed=3", "z_first,seed=4", "both,seed=3", "both,seed=4",
    ]  # fmt: skip
    assert trials[0].run.weights == {"shapes": 1.0}
    assert trials[2].run.weights == {"shapes": 0.5, "graphs": 0.5}
    assert len({trial.run.digest() for trial in trials}) == 4
    again = SweepSpec.model_validate_json(spec.model_dump_json())
    assert asked_trials(again) == trials
    assert spec.design.axis.scale is None


def test_one_trial_for_each_ratio_and_seed_with_its_weights(tmp_path: Path):
    spec = load(tmp_path, {**MINIMAL, "design": RATIO})
    trials = asked_trials(spec)
    assert [(trial.level.coordinates["ratio"], trial.seed) for trial in trials] == [
        (0.0, 3), (0.0, 4), (0.25, 3), (0.25, 4), (1.0, 3), (1.0, 4),
    ]  # fmt: skip
    assert [trial.run.weights for trial in trials[::2]] == [
        {"shapes": 1.0}, {"graphs": 0.25, "shapes": 0.75}, {"graphs": 1.0},
    ]  # fmt: skip
    assert trials[0].run.components.keys() == {"shapes"}  # the others are never drawn
    assert spec.design.axis.scale == "ratio"


def test_ratio_mixes_both_sides(tmp_path: Path):
    sides = {"high": {"graphs": 0.5, "c": 0.5}, "low": {"shapes": 0.8, "c": 0.2}}
    components = {**MINIMAL["components"], "c": {"tasks": {"count": 1}}}
    design = {"kind": "ratio", **sides, "ratios": [0.25]}
    spec = load(tmp_path, {**MINIMAL, "components": components, "design": design})
    (level,) = spec.design.levels()
    assert level.weights == pytest.approx({"shapes": 0.6, "graphs": 0.125, "c": 0.275})


def test_ratios_that_differ_little_have_names_of_their_own(tmp_path: Path):
    spec = load(tmp_path, {**MINIMAL, "design": {**RATIO, "ratios": [0.12345671, 0.12345672]}})
    assert len({trial.name for trial in asked_trials(spec)}) == 4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"design": None}, ["design: this key is missing"]),
        ({"design": {"arms": {}}}, ["design", "kind"]),
        ({"design": {"kind": "line"}}, ["design", "'ratio'", "'arms'"]),
        ({"design": {**RATIO, "arms": {}}}, ["design.arms", "unknown key"]),
        ({"design": {**RATIO, "rations": 1}}, ["design.rations", "Did you mean 'ratios'"]),
        ({"ratios": [0.5]}, ["ratios", "this key has moved", "under design now"]),
        ({"arms": {}}, ["arms", "this key has moved", "kind: arms"]),
        ({"mixture": {}}, ["mixture", "this key has moved", "kind: ratio"]),
        ({"design": {**RATIO, "ratios": [0.5, 0.5]}}, ["ratios: got [0.5, 0.5]", "repeated"]),
        ({"design": {**RATIO, "ratios": [0.5, 2]}}, ["design.ratios.1", "less than or equal to 1"]),
        ({"design": {"kind": "arms", "arms": {}}}, ["design.arms", "Give at least 1"]),
        (
            {"design": {"kind": "arms", "arms": {"a": {"nothing": 1.0}}}},
            ["design.arms.a: got 'nothing'", "are graphs, shapes."],
        ),
        (
            {"design": {"kind": "arms", "arms": {"a": {"shapes": 0.6}}}},
            ["design.arms.a", "sum to 0.6", "must sum to 1"],
        ),
        (
            {"design": {"kind": "arms", "arms": {"a": {"shapes": 2, "graphs": -1}}}},
            ["design.arms.a", "negative"],
        ),
        (
            {"design": {"kind": "arms", "arms": {"base": {"shapes": 1.0}}}},
            ["design: got 'base'", "before fine-tuning", "Rename"],
        ),
        (
            {"design": {"kind": "arms", "arms": {"Not A Name": {"shapes": 1.0}}}},
            ["design.arms", "Not A Name"],
        ),
        (
            {"design": {"kind": "arms", "arms": {"a": {"shapes": 1}, "b": {"shapes": 1.0}}}},
            ["design: got 'b'", "its weights are those of a"],
        ),
        ({"design": {"kind": "arms", "arms": [1]}}, ["design.arms", "Give keys and values below"]),
    ],
)
def test_a_wrong_design_is_one_clear_message(tmp_path: Path, change: dict, named: list[str]):
    content = {key: value for key, value in {**MINIMAL, **change}.items() if value is not None}
    with pytest.raises(SpecError) as caught:
        load(tmp_path, content)
    for part in [str(tmp_path), *named]:
        assert part in str(caught.value)


def test_the_shipped_arms_differ_in_their_questions_alone():
    spec = load_spec(SweepSpec, ROOT / "sweeps" / "task_groups.yaml")
    data = [spec.components[name] for level in spec.design.levels() for name in level.weights]
    assert [list(one.tasks) for one in data] == [
        ["coarse"], ["attribute"], ["relational"], ["scene_graph"],
    ]  # fmt: skip
    assert len({one.model_copy(update={"tasks": {"coarse": 1}}).digest() for one in data}) == 1
    assert set(spec.components[spec.evaluation.component].tasks) == {
        group for one in data for group in one.tasks
    }
