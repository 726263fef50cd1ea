"""A measure file: what it may say, which sweep file stands for one, what its digest holds."""

from pathlib import Path

import pytest
import yaml

from mixlens.design import load_measure
from mixlens.errors import SpecError
from mixlens.models.tiny import build_tiny_vlm
from mixlens.spec import DeletionSpec, MeasureSpec, ProbeSpec, held_out_of
from mixlens.sweep.known import check_file
from mixlens.sweep.plan import check_evaluation

ROOT = Path(__file__).resolve().parents[3]
MINIMAL = {
    "name": "small",
    "components": {"scenes": {"tasks": {"coarse": 1}}, "other": {"tasks": {"count": 1}}},
    "evaluation": {"component": "scenes", "examples": 8},
}
SWEEP = {
    **MINIMAL,
    "model": "some/model",
    "runs_dir": "elsewhere",
    "design": {
        "kind": "ratio",
        "high": {"scenes": 1.0},
        "low": {"other": 1.0},
        "ratios": [0.0, 0.5],
    },
    "training": {"steps": 2, "global_batch": 4, "micro_batch": 2},
    "resources": {"actors": 2},
    "tracking": {"experiment": "mine"},
}


def read(folder: Path, content: dict, *overrides: str) -> MeasureSpec:
    file = folder / "file.yaml"
    file.write_text(yaml.safe_dump(content))
    return load_measure(file, overrides)


def test_a_measure_file_asks_for_no_more_than_it_says(tmp_path: Path):
    spec = read(tmp_path, MINIMAL, "evaluation.probes={}", "controls=false")
    assert spec.evaluation.probes == ProbeSpec()
    assert spec.evaluation.deletion is None
    assert not spec.controls
    assert spec.model == "builtin:tiny-vllm"


def test_a_sweep_file_stands_for_its_base_model(tmp_path: Path):
    spec = read(tmp_path, SWEEP, "evaluation.examples=16")
    assert (spec.name, spec.model, spec.runs_dir) == ("small", "some/model", "elsewhere")
    assert spec.components.keys() == {"scenes", "other"}
    assert spec.evaluation.examples == 16
    assert spec.resources.actors == 2
    assert spec.tracking.experiment == "mine"
    assert spec.controls
    # Here they are what one came for.
    assert spec.evaluation.probes == ProbeSpec()
    assert spec.evaluation.deletion == DeletionSpec()


def test_what_a_sweep_file_says_of_probes_and_deletion_holds(tmp_path: Path):
    asked = ["evaluation.probes.kinds=[linear]", "evaluation.deletion.shares=[0.5]"]
    spec = read(tmp_path, SWEEP, *asked)
    assert spec.evaluation.probes == ProbeSpec(kinds=("linear",))
    assert spec.evaluation.deletion == DeletionSpec(shares=(0.5,))
    # And it is the same as a measure file that says so.
    evaluation = {"probes": {"kinds": ["linear"]}, "deletion": {"shares": [0.5]}}
    same = {**MINIMAL, "model": "some/model",
            "evaluation": {**MINIMAL["evaluation"], **evaluation}}  # fmt: skip
    assert read(tmp_path, same).evaluation == spec.evaluation
    assert held_out_of(read(tmp_path, same)) == held_out_of(spec)


@pytest.mark.parametrize("file", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_shipped_file_can_be_measured(file: Path):
    spec = load_measure(file)
    assert spec.evaluation.component in spec.components
    assert spec.evaluation.probes is not None
    assert spec.evaluation.deletion is not None


@pytest.mark.parametrize("change", ["model=other/model", "model_fingerprint=ab"])
def test_the_folder_is_of_the_model(tmp_path: Path, change: str):
    before, after = read(tmp_path, MINIMAL), read(tmp_path, MINIMAL, change)
    assert after.folder != before.folder
    assert held_out_of(after).digest() == held_out_of(before).digest()


@pytest.mark.parametrize(
    "change",
    [
        "prompts_digest=ab", "evaluation.examples=9", "evaluation.component=other",
        "components.scenes.seed=7", "components.scenes.scene.objects=[2,3]",
    ],
)  # fmt: skip
def test_other_images_are_another_held_out_set_of_the_same_model(tmp_path: Path, change: str):
    before, after = read(tmp_path, MINIMAL), read(tmp_path, MINIMAL, change)
    assert held_out_of(after).digest() != held_out_of(before).digest()
    assert after.folder == before.folder


@pytest.mark.parametrize(
    "change",
    [
        "controls=false", "evaluation.probes={}", "evaluation.deletion={}",
        "evaluation.batch_size=4", "evaluation.max_new_tokens=4", "evaluation.keep_states=true",
        "evaluation.transfer=other", "components.other.seed=7", "resources.actors=4",
        "tracking.experiment=mine",
    ],
)  # fmt: skip
def test_the_requests_decide_neither_model_nor_images(tmp_path: Path, change: str):
    before, after = read(tmp_path, MINIMAL), read(tmp_path, MINIMAL, change)
    assert after != before
    assert held_out_of(after).digest() == held_out_of(before).digest()
    assert after.folder == before.folder


def test_the_folder_is_named_by_the_model_and_its_digest(tmp_path: Path):
    spec = read(tmp_path, MINIMAL, f"runs_dir={tmp_path}")
    assert spec.folder == tmp_path / "small" / f"tiny-vllm-{spec.model_digest()}"
    hub = spec.model_copy(update={"model": "some/model-7b"})
    assert hub.folder.name == f"model-7b-{hub.model_digest()}"
    # Where the weights lie decides nothing once they are known.
    here, there = (
        spec.model_copy(update={"model": path, "model_fingerprint": "ab"}) for path in ("a", "b")
    )
    assert here.model_digest() == there.model_digest()


@pytest.mark.parametrize("content", [MINIMAL, SWEEP], ids=["measure file", "sweep file"])
@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("evaluation.component=nothing", ["got 'nothing'", "no such component", "other, scenes"]),
        ("evaluation.deletion.policies=[norm]", ["random is missing", "Add it"]),
        ("evaluation.deletion.layers=[-2]", ["layers [-2]", "smallest place is -1"]),
        ("evaluation.deletion.shares=[1.5]", ["shares.0", "1.5", "less than or equal to 1"]),
        ("evaluation.deletion.policies=[random,luck]", ["policies.1", "'luck'"]),
        ("evaluation.probes.attribute=[x]", ["unknown key", "Did you mean 'attributes'?"]),
        ("evaluation.deletion.layer=[0]", ["unknown key", "Did you mean 'layers'?"]),
        ("evaluation.probe={}", ["unknown key", "Did you mean 'probes'?"]),
        ("component={}", ["unknown key", "Did you mean 'components'?"]),
        ("name=Über", ["name", "'Über'"]),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: dict, override: str, named: list[str]):
    with pytest.raises(SpecError) as caught:
        read(tmp_path, content, override)
    for part in ("file.yaml", *named):
        assert part in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(SpecError, match=r"no such file"):
        load_measure(tmp_path / "nothing.yaml")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    build_tiny_vlm(folder, ["red"], size="test")
    return str(folder)


def test_what_images_and_decoder_have_is_measured(tmp_path: Path, model: str):
    asked = ["evaluation.probes.attributes=[object_count,crowding]",
             "evaluation.deletion.layers=[-1,0]"]  # fmt: skip
    spec = read(tmp_path, MINIMAL, f"model={model}", *asked)
    check_file(spec)
    check_evaluation(spec)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("evaluation.probes.attributes=[object_cont]", ["attributes", "'object_cont'", "object_c"]),
        ("evaluation.deletion.layers=[-1,99]", ["deletion.layers", "99", "-1 (behind the"]),
        ("components.scenes.scene.objects=[150,200]", ["components.scenes", "fit"]),
    ],
)
def test_what_they_do_not_have_is_refused(
    tmp_path: Path, model: str, override: str, named: list[str]
):
    spec = read(tmp_path, MINIMAL, f"model={model}", override)
    check = check_evaluation if "deletion" in override else check_file
    with pytest.raises(SpecError) as caught:
        check(spec)
    for part in named:
        assert part in str(caught.value)


def test_the_last_block_of_the_decoder_is_the_last_place(tmp_path: Path, model: str):
    from mixlens.models import model_config

    blocks = model_config(model).get_text_config().num_hidden_layers

    def asked(layer: int) -> MeasureSpec:
        return read(tmp_path, MINIMAL, f"model={model}", f"evaluation.deletion.layers=[{layer}]")

    check_evaluation(asked(blocks - 1))
    with pytest.raises(SpecError, match=rf"{blocks} blocks.*to {blocks - 1}"):
        check_evaluation(asked(blocks))
