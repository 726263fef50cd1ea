"""What YAML says must be what a person sees: checked on small documents and whole sweep files."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mixlens.design import SweepSpec, load_measure
from mixlens.errors import SpecError
from mixlens.spec import MeasureSpec, PretrainSpec, load_spec
from mixlens.spec.reading import read_yaml

SWEEP = """\
name: small
components:
  simple: {tasks: {coarse: 1}}
  complex: {tasks: {relational: 1}}
design:
  {kind: ratio, high: {complex: 1.0}, low: {simple: 1.0}, ratios: [0.0, 0.5]}
seeds: [0, 1]
training:
  steps: 2
  global_batch: 4
  micro_batch: 2
evaluation: {component: complex, examples: 8}
"""
ROOT = Path(__file__).parents[3]


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    return file


@pytest.mark.parametrize("file", sorted([*ROOT.glob("sweeps/*.yaml"), *ROOT.glob("jobs/*.yaml")]))
def test_shipped_files_say_the_same_to_other_readers_of_yaml(file: Path):
    text = file.read_text()
    assert read_yaml(text, file.name) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("+3", 3), ("0", 0), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0),
        ("1e-3", 0.001), ("1E5", 100000.0), ("1.5e3", 1500.0), ("-2.5e+1", -25.0),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("'010'", "010"), ('"yes"', "yes"), ("!!str 010", "010"), ("yes sir", "yes sir"),
        ("a:b", "a:b"), ("1.2.3", "1.2.3"), ("v1_0", "v1_0"), ("_1", "_1"), ("-", [None]),
        ("10:30am", "10:30am"), ("hub/0x10", "hub/0x10"), ("2024-01", "2024-01"), ("nan", "nan"),
    ],
)  # fmt: skip
def test_clear_values_are_read_as_they_look(text: str, value: object):
    found = read_yaml(text, "x")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.case
@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("yes", "true"), ("No", "false"), ("on", "true"), ("OFF", "false"),
        ("010", "10 or 8"), ("007", "7"), ("-012", "-12 or -10"), ("09", "9"), ("0o17", "15"),
        ("0x10", "16"), ("0b11", "3"), ("1_000", "1000"), ("1_0.5", "10.5"), ("1:30", "90"),
        ("2024-01-01", "'2024-01-01'"), ("2001-12-14 21:59:43", "'2001-12-14 21:59:43'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("around", ["{}", "[0, {}]", "a: {{b: [{}]}}", "- {}\n- 1"])
def test_values_that_programs_read_differently_are_refused(text: str, meant: str, around: str):
    with pytest.raises(SpecError) as caught:
        read_yaml(around.format(text), "x")
    message = str(caught.value)
    assert f"got {text!r}" in message
    assert meant in message
    assert f"uote it: '{text}'" in message


@pytest.mark.case
@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  simple: {tasks", "  complex: {tasks: {count: 1}}\n  simple: {tasks", ["complex", 3, 5]),
        ("seeds:", "training: {steps: 1}\nseeds:", ["training", 7, 9]),
        ("  steps: 2", "  steps: 2\n  learning_rates: {vision: 1.0, vision: 2.0}", ["vision", 10]),
        ("seeds: [0, 1]", "seeds: [0, 1]\nseeds: [1]", ["seeds", 7, 8]),
        ("  steps: 2", "  steps: 2\n  'steps': 3", ["steps", 9, 10]),
    ],
)
def test_a_key_that_stands_twice_is_named_with_both_lines(sweep_file, old, new, named):
    sweep_file.write_text(SWEEP.replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        load_spec(SweepSpec, sweep_file)
    message = str(caught.value)
    assert str(sweep_file) in message
    for part in named:
        assert str(part) in message


def test_merged_keys_are_taken_over_and_overridden(sweep_file: Path):
    sweep_file.write_text(
        SWEEP.replace(
            "  simple: {tasks: {coarse: 1}}\n  complex: {tasks: {relational: 1}}\n",
            "  simple: &one {tasks: {coarse: 1}, seed: 3, size: 40}\n"
            "  complex: {<<: *one, tasks: {relational: 1}, seed: 4}\n",
        )
    )
    spec = load_spec(SweepSpec, sweep_file, ["components.complex.size=9"])
    one, other = spec.components["simple"], spec.components["complex"]
    assert (one.seed, one.size, dict(one.tasks)) == (3, 40, {"coarse": 1})
    assert (other.seed, other.size, dict(other.tasks)) == (4, 9, {"relational": 1})


def test_of_several_merged_mappings_the_first_gives_a_key():
    text = "a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {<<: [*a, *b], y: 3}\n"
    assert read_yaml(text, "x")["c"] == yaml.safe_load(text)["c"] == {"x": 1, "y": 3, "z": 2}


def test_an_override_changes_one_of_two_places_that_share_an_anchor(sweep_file: Path):
    text = SWEEP.replace("{tasks: {coarse: 1}}", "&one {tasks: {coarse: 1}}")
    sweep_file.write_text(text.replace("{tasks: {relational: 1}}", "*one"))
    spec = load_spec(SweepSpec, sweep_file, ["components.complex.seed=5"])
    assert [spec.components[name].seed for name in ("simple", "complex")] == [0, 5]


@pytest.mark.parametrize(
    "text",
    ["a: &a [*a]", "a: !!python/object:os.system {}", "a: !mine 1", "a: !!int x",
     "a: !!set {b}", "? [1]\n: 2", "<<: 3"],
)  # fmt: skip
def test_what_is_no_plain_data_is_refused(text: str):
    with pytest.raises(SpecError, match=r"^file"):
        read_yaml(text, "file")


@pytest.mark.case
@pytest.mark.parametrize("name", ["on", "no", "2024", "1.0", "null", "true", "2024-01-01", "~"])
def test_a_name_that_yaml_does_not_read_as_text_is_to_be_quoted(sweep_file: Path, name: str):
    sweep_file.write_text(SWEEP.replace("complex:", f"{name}:", 1))
    with pytest.raises(SpecError, match=f"Quote it: '{name}'"):
        load_spec(SweepSpec, sweep_file)
    for override in (
        f"design.arms={{{name}: {{simple: 1}}}}",
        f"components.x={{tasks: {{{name}: 1}}}}",
    ):
        with pytest.raises(SpecError, match=f"Quote it: '{name}'"):
            load_spec(SweepSpec, sweep_file, [override])


@pytest.mark.case
@pytest.mark.parametrize("value", ["2024", "1.5", "true", "false"])
def test_text_that_yaml_reads_otherwise_is_to_be_quoted(sweep_file: Path, value: str):
    sweep_file.write_text(SWEEP)
    for field in ("name", "model", "evaluation.component", "runs_dir"):
        with pytest.raises(SpecError, match=f"{field}: .*Quote it: '{value}'"):
            load_spec(SweepSpec, sweep_file, [f"{field}={value}"])


@pytest.mark.case
@pytest.mark.parametrize(
    ("override", "remedy"),
    [
        ("training.learning_rates.language=yes", "Write true; for text, quote it"),
        ("training.learning_rates.language=true", "Write a number"),
        ("training.clip_norm=true", "Write a number"),
        ("training.steps=true", "Write a whole number"),
        ("training.steps=2.0", "Write a whole number"),
        ("training.steps=1e3", "Write a whole number"),
        ("training.steps='2'", "Write a whole number, without quotes"),
        ("training.zero_stage=true", "Write a whole number"),
        ("training.clip_norm='1'", "Write a number, without quotes"),
        ("seeds=[007,010]", "Write 7"),
        ("seeds=[1:30]", "Write 90"),
        ("seeds=[0x10]", "Write 16"),
        ("seeds=[1_000]", "Write 1000"),
        ("seeds=[true]", "Write a whole number"),
        ("seeds=[1.0]", "Write a whole number"),
        ("design.ratios=[true]", "Write a number"),
        ("design.ratios=['0.5']", "Write a number"),
        ("training.learning_rates.vision=.inf", "finite"),
        ("training.learning_rates={vision: -.inf}", "finite"),
        ("training.clip_norm=.nan", "finite"),
        ("training.clip_norm=1e999", "finite"),
        ("design.ratios=[.nan]", "finite"),
        ("design.high={complex: true}", "Write a number"),
        ("components.simple.scene.objects=true", "Write a whole number"),
        ("components.simple.scene.rotation=[0, true]", "Write a number"),
        ("components.simple.tasks={coarse: true}", "Write a whole number"),
        ("training.activation_checkpointing=1", "Write true or false"),
        ("training.activation_checkpointing='true'", "Write true or false"),
        ("training.activation_checkpointing=on", "Write true; for text"),
        ("evaluation.keep_states=no", "Write false; for text"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_to_write(
    sweep_file: Path, override: str, remedy: str
):
    key = override.partition("=")[0]
    with pytest.raises(SpecError) as caught:
        load_spec(SweepSpec, sweep_file, [override])
    assert remedy in str(caught.value)
    assert key.split(".")[-1] in str(caught.value)


def test_rates_may_be_written_with_an_exponent(sweep_file: Path):
    text = SWEEP.replace(
        "  steps: 2", "  steps: 2\n  learning_rates: {vision: 1e-3, language: 2E-4}"
    )
    sweep_file.write_text(text)
    rates = load_spec(SweepSpec, sweep_file, ["training.learning_rates.projector=3e-05"])
    assert rates.training.learning_rates.model_dump() == {
        "vision": 1e-3, "language": 2e-4, "projector": 3e-5, "cross_attention": None
    }  # fmt: skip


@pytest.mark.case
def test_a_value_on_the_command_line_holds_no_key_twice(sweep_file: Path):
    twice = "training={steps: 2, steps: 3, global_batch: 4, micro_batch: 2}"
    with pytest.raises(SpecError, match=r"override training: steps: .*stands before it already"):
        load_spec(SweepSpec, sweep_file, [twice])


BAD_NAMES = [
    "simple (1-2)",
    "a/b",
    "..",
    "a b",
    "ü",
    "-a",
    "_a",
    "a.b",
    "",
    "a\n",
    "x" * 101,
    "a:b",
    "a%20b",
]


@pytest.mark.case
@pytest.mark.parametrize("name", BAD_NAMES)
def test_one_rule_holds_for_all_names(sweep_file: Path, name: str):
    """A folder, MLflow's names of parameters, tags and metrics, and `a.b=c` all have to take it."""
    content = yaml.safe_load(SWEEP)
    mixed = {**content, "components": {**content["components"], name: {"tasks": {"coarse": 1}}}}
    arms = {k: v for k, v in content.items() if k != "design"}
    photos = {"root": "x", "train": {"annotations": "a.json"}}
    for changed in (
        {**content, "name": name},
        mixed,
        {**arms, "design": {"kind": "arms", "arms": {name: {"simple": 1.0}}}},
        {**content, "data": {name: photos}},
    ):
        sweep_file.write_text(yaml.safe_dump(changed))
        with pytest.raises(SpecError, match="letters A to Z, digits, _ and - only"):
            load_spec(SweepSpec, sweep_file)
    measured = {k: v for k, v in mixed.items() if k in ("name", "components", "evaluation")}
    sweep_file.write_text(yaml.safe_dump(measured))
    with pytest.raises(SpecError, match="letters A to Z"):
        load_measure(sweep_file)
    assert "letters" in _refusal(PretrainSpec, {"components": {name: {"tasks": {"coarse": 1}}}})
    assert "letters" in _refusal(MeasureSpec, {"name": name})


def _refusal(kind: type, content: dict) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(content)
    return str(caught.value)


@pytest.mark.parametrize("name", ["simple", "Simple_2-b", "0", "x" * 100])
def test_what_mlflow_and_folders_take_is_taken(sweep_file: Path, name: str, tmp_path: Path):
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    content = yaml.safe_load(SWEEP)
    content["components"] = {
        name: {"tasks": {"coarse": 1}},
        "complex": content["components"]["complex"],
    }
    content["design"]["low"] = {name: 1.0}
    content["name"] = name
    sweep_file.write_text(yaml.safe_dump(content))
    spec = load_spec(SweepSpec, sweep_file)
    assert set(spec.components) == {name, "complex"}
    (tmp_path / "runs" / spec.name).mkdir(parents=True)
    _validate_param_name(f"weight.{name}")
    _validate_metric_name(f"examples/{name}")
