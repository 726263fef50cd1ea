from pathlib import Path

import pytest
import yaml

from mixlens.design import SweepSpec
from mixlens.errors import SpecError
from mixlens.spec import load_spec

MINIMAL = {
    "name": "small",
    "components": {
        "simple": {"tasks": {"coarse": 1}},
        "complex": {"tasks": {"relational": 1}},
    },
    "design": {
        "kind": "ratio",
        "high": {"complex": 1.0},
        "low": {"simple": 1.0},
        "ratios": [0.0, 0.5],
    },
    "training": {"steps": 2, "global_batch": 4, "micro_batch": 2},
    "evaluation": {"component": "complex", "examples": 8},
}


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(MINIMAL))
    return file


def test_overrides_replace_values_at_any_depth(sweep_file: Path):
    spec = load_spec(
        SweepSpec,
        sweep_file,
        ["training.steps=7", "components.simple.scene.objects=[2,3]", "design.ratios=[1]"],
    )
    assert spec.training.steps == 7
    assert spec.components["simple"].scene.objects == (2, 3)
    assert spec.design.ratios == (1.0,)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.step=3", ["training.step", "3", "unknown key", "'steps'"]),
        ("components.simple.scene.colour=red", ["components.simple.scene.colour", "'colours'"]),
        ("design.ratios=[0.5,1.5]", ["ratios.1", "1.5", "It should be less than or equal to 1."]),
        ("design.ratios=[]", ["ratios", "Give at least 1"]),
        ("design.ratios=3", ["ratios", "3", "Give a list"]),
        ("design.low.simple=0.4", ["design.low", "sum to 0.4", "must sum to 1"]),
        ("design.high={complexx: 1}", ["design.high: got 'complexx'", "are complex, simple."]),
        ("design.high={simple: 2, complex: -1}", ["high", "negative"]),
        ("evaluation.component=nothing", ["evaluation.component: got 'nothing'", "complex"]),
        ("training.micro_batch=3", ["training: global_batch 4", "micro_batch 3", "to 6"]),
        ("resources.workers=3", ["training.global_batch: got 4", "resources.workers 3", "to 6"]),
        ("resources.workers=3", ["training.micro_batch 2", "resources.workers to 2"]),
        ("training.zero_stage=4", ["training.zero_stage", "4"]),
        ("training.warmup_steps=9", ["warmup_steps 9", "steps 2", "at most 1"]),
        ("training.freeze=[vision, projector, language]", ["freeze", "nothing would be trained"]),
        ("components.simple.scene.objects=[0,3]", ["objects", "1 to 200"]),
        (
            "components.simple.scene.objects=[5,3]",
            ["starts at 5", "ends at 3", "first"],
        ),
        ("components.simple.tasks={}", ["components.simple.tasks"]),
        ("components.simple.tasks={corse: 1}", ["components.simple.tasks.corse:", "'coarse'"]),
        ("components.simple.tasks={coarse: 0}", ["tasks.coarse", "0"]),
        ("seeds=[1,1]", ["seeds", "[1, 1]"]),
        ("name=Not A Name", ["name", "Not A Name"]),
        ("training=3", ["training", "3"]),
    ],
)
def test_a_wrong_value_is_named_with_its_place_and_remedy(
    sweep_file: Path, override: str, named: list[str]
):
    with pytest.raises(SpecError) as caught:
        load_spec(SweepSpec, sweep_file, [override])
    message = str(caught.value)
    assert str(sweep_file) in message
    assert "(whole file)" not in message
    for part in named:
        assert part in message


def test_all_problems_of_a_file_are_told_at_once(sweep_file: Path):
    with pytest.raises(SpecError) as caught:
        load_spec(SweepSpec, sweep_file, ["training.step=3", "design.ratios=[2]", "nam=x"])
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("override", ["training.steps", "=3", "a..b=1", "name.deeper=1"])
def test_an_override_that_is_none_is_refused(sweep_file: Path, override: str):
    with pytest.raises(SpecError, match="override"):
        load_spec(SweepSpec, sweep_file, [override])


def test_a_missing_file_is_answered_with_the_files_there(sweep_file: Path):
    with pytest.raises(SpecError, match=r"sweep\.yaml"):
        load_spec(SweepSpec, sweep_file.with_name("swep.yaml"))


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2", "just text", "\xff"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str):
    file = tmp_path / "bad.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(SpecError, match=r"bad\.yaml"):
        load_spec(SweepSpec, file)


def test_a_missing_key_is_named(tmp_path: Path):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, "training": {"steps": 2}}))
    with pytest.raises(SpecError, match=r"training\.global_batch.*missing"):
        load_spec(SweepSpec, file)
