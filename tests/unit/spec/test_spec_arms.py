"""Sweeps that name arms in place of a mixture and its ratios."""

from pathlib import Path

import pytest
import yaml

from mixlens.errors import SpecError
from mixlens.spec import SweepSpec, load_spec

ROOT = Path(__file__).resolve().parents[3]
MINIMAL = {
    "name": "small",
    "components": {
        "shapes": {"tasks": {"coarse": 1}},
        "graphs": {"tasks": {"scene_graph": 1}},
    },
    "arms": {"z_first": {"shapes": 1.0}, "both": {"shapes": 0.5, "graphs": 0.5}},
    "seeds": [3, 4],
    "training": {"steps": 2, "global_batch": 4, "micro_batch": 2},
    "evaluation": {"component": "graphs", "examples": 8},
}
RATIOS = {"mixture": {"high": {"graphs": 1.0}, "low": {"shapes": 1.0}}, "ratios": [0.0, 1.0]}


def load(folder: Path, content: dict, *overrides: str) -> SweepSpec:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_spec(SweepSpec, file, overrides)


def test_one_run_for_each_arm_and_seed_in_the_order_of_the_file(tmp_path: Path):
    spec = load(tmp_path, MINIMAL)
    runs = spec.runs()
    assert [run.name for run in runs] == [
        "z_first,seed=3", "z_first,seed=4", "both,seed=3", "both,seed=4",
    ]  # fmt: skip
    assert [(run.arm, run.ratio) for run in runs[::2]] == [("z_first", None), ("both", None)]
    assert runs[0].weights == {"shapes": 1.0}
    assert runs[2].weights == {"shapes": 0.5, "graphs": 0.5}
    assert len({run.digest() for run in runs}) == 4
    again = SweepSpec.model_validate_json(spec.model_dump_json())
    assert [run.name for run in again.runs()] == [run.name for run in runs]


def test_the_name_of_an_arm_is_no_part_of_what_decides_a_result(tmp_path: Path):
    run = load(tmp_path, MINIMAL).runs()[0]
    assert run.model_copy(update={"arm": "another"}).digest() == run.digest()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({**RATIOS}, ["mixture, ratios, arms: got 'mixture, ratios, arms'", "or arms alone"]),
        ({"ratios": [0.5]}, ["got 'ratios, arms'", "either a mixture and its ratios, or arms"]),
        ({"arms": None}, ["mixture, ratios, arms: got None", "Give mixture and ratios, or arms"]),
        ({"arms": None, "ratios": [0.5]}, ["got 'ratios'", "Give mixture and ratios"]),
        ({"arms": None, "mixture": RATIOS["mixture"]}, ["got 'mixture'", "Give mixture and"]),
        ({"arms": {}}, ["arms", "Give at least 1"]),
        ({"arms": {"a": {"nothing": 1.0}}}, ["arms.a: got 'nothing'", "are graphs, shapes."]),
        ({"arms": {"a": {"shapes": 0.6}}}, ["arms.a", "sum to 0.6", "must sum to 1"]),
        ({"arms": {"a": {"shapes": 2, "graphs": -1}}}, ["arms.a", "negative"]),
        ({"arms": {"base": {"shapes": 1.0}}}, ["arms: got 'base'", "before fine-tuning"]),
        ({"arms": {"Not A Name": {"shapes": 1.0}}}, ["arms", "Not A Name"]),
        ({"arms": [1]}, ["arms", "Give keys and values below it."]),
    ],
)
def test_a_wrong_axis_is_one_clear_message(tmp_path: Path, change: dict, named: list[str]):
    content = {key: value for key, value in {**MINIMAL, **change}.items() if value is not None}
    with pytest.raises(SpecError) as caught:
        load(tmp_path, content)
    for part in [str(tmp_path), *named]:
        assert part in str(caught.value)


def test_the_shipped_arms_differ_in_their_questions_alone():
    spec = load_spec(SweepSpec, ROOT / "sweeps" / "task_groups.yaml")
    assert spec.arms is not None
    data = [spec.components[name] for weights in spec.arms.values() for name in weights]
    assert [list(one.tasks) for one in data] == [
        ["coarse"], ["attribute"], ["relational"], ["scene_graph"],
    ]  # fmt: skip
    assert len({one.model_copy(update={"tasks": {"coarse": 1}}).digest() for one in data}) == 1
    assert set(spec.components[spec.evaluation.component].tasks) == {
        group for one in data for group in one.tasks
    }
