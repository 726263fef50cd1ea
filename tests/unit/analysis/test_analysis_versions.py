"""Results of different library versions are never compared without a word."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import transformers as hf

from mixlens.analysis import Provenance, collect_provenance, read_provenance
from mixlens.analysis.versions import measure_version_warnings, version_warnings
from mixlens.spec import MeasureSpec

pytestmark = pytest.mark.case

HERE = collect_provenance("a command")


def made(**packages: str) -> Provenance:
    return replace(HERE, packages=HERE.packages | packages)


def model_of(family: str, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    return str(folder)


def test_what_decides_tokens_pixels_and_logits_is_recorded():
    assert {"transformers", "tokenizers", "torchvision", "peft", "torch"} <= HERE.packages.keys()
    assert HERE.packages["transformers"] == hf.__version__


def test_the_same_versions_need_no_word():
    assert version_warnings({"the base": HERE, "ratio=0": HERE, "ratio=1": None}, "any") == []
    # That the code is another, or numpy, is told by its own line of the recipe.
    assert version_warnings({"the base": HERE, "ratio=0": made(numpy="1.0")}, "any") == []


def test_results_of_different_versions_are_named():
    old, new = made(transformers="5.9.0", torch="2.13.0"), made(transformers="5.23.0", torch="2.13")
    results = {f"ratio={place}": new for place in range(4)}
    (told,) = version_warnings({"the base": old} | results, "/no/model")
    assert "transformers 5.9.0 (the base) and 5.23.0 (ratio=0, ratio=1 and 2 more)" in told
    assert "torch 2.13 (ratio=0, ratio=1 and 2 more) and 2.13.0 (the base)" in told
    assert "peft" not in told


@pytest.mark.parametrize(
    ("family", "one", "another", "name"),
    [
        ("idefics3", "4.57.6", "5.23.0", "Idefics 3"),
        ("smolvlm", "5.16.1", "5.23.0", "SmolVLM"),
        ("smolvlm", "4.57.6", "5.16.1", "SmolVLM"),
        ("qwen2_5_vl", "5.4.0", "5.16.1", "Qwen2.5-VL"),
        ("qwen2_5_vl", "4.57.6", "5.3.0", "Qwen2.5-VL"),
        ("idefics3", "4.51.3", "5.23.0", None),
        ("qwen2_5_vl", "4.57.6", "5.23.0", None),
        ("qwen2_vl", "5.4.0", "5.23.0", None),
        ("llava", "4.57.6", "5.16.1", None),
    ],
)
def test_releases_that_see_a_picture_otherwise_are_told(
    family: str, one: str, another: str, name: str | None, tmp_path: Path
):
    results = {"a": made(transformers=another), "b": made(transformers=one)}
    *known, general = version_warnings(results, model_of(family, tmp_path / "model"))
    assert general.startswith("Results were made with different versions: transformers")
    if name is None:
        assert known == []
    else:
        (sentence,) = known
        assert sentence.startswith(
            f"{name} sees a picture otherwise in transformers {one} than in {another} ("
        )


def test_work_that_was_begun_with_another_version_stays_known(tmp_path: Path):
    old, new = made(transformers="5.9.0"), made(transformers="5.23.0")
    for folder, does_work in ((tmp_path / "idle", False), (tmp_path / "begun", True)):
        old.write(folder)
        if does_work:
            (folder / "training.jsonl").touch()
        new.write(folder)
        new.write(folder)
    idle, begun = (read_provenance(tmp_path / name) for name in ("idle", "begun"))
    assert idle == new
    assert begun == replace(new, earlier=(old.packages,))
    assert version_warnings({"a": idle}, "any") == []
    (told,) = version_warnings({"a": begun}, "any")
    assert "5.9.0 (a) and 5.23.0 (a)" in told


def test_a_record_of_before_is_still_read(tmp_path: Path):
    HERE.write(tmp_path)
    path = tmp_path / "provenance.json"
    content = json.loads(path.read_text())
    del content["earlier"]
    path.write_text(json.dumps(content))
    assert read_provenance(tmp_path) == HERE


def test_a_model_that_was_trained_with_another_version_is_measured_with_a_word(tmp_path: Path):
    trial, measured = tmp_path / "trial", tmp_path / "measured"
    made(transformers="5.16.1").write(trial)
    made(transformers="5.23.0").write(measured)
    spec = MeasureSpec.model_construct(model=model_of("idefics3", trial / "model"))
    known, general = measure_version_warnings(spec, measured)
    assert "Idefics 3 sees a picture otherwise in transformers 5.16.1 than in 5.23.0" in known
    assert "5.16.1 (the model's training) and 5.23.0 (the measurement)" in general
