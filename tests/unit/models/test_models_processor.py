"""Files of a processor that lack something, or are damaged: said with the file and the remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_folders import edit_json
from tiny_families import build

from mixlens.design import SweepSpec
from mixlens.errors import CheckpointError
from mixlens.evaluation import answer
from mixlens.models import check_model, load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.sources import open_source
from mixlens.spec import load_spec

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build_tiny_vlm(tmp_path / "model", ["red", "circle"], size="test")
    return tmp_path / "model"


@pytest.mark.case
def test_a_tokenizer_without_a_token_to_pad_with_gives_the_same_numbers(folder: Path):
    spec = load_spec(SweepSpec, ROOT / "sweeps" / "quickstart.yaml")
    source = open_source("simple", spec.components["simple"])
    examples = [source.example(index) for index in range(4)]
    images = [example.image for example in examples]

    def seen() -> tuple[dict[str, torch.Tensor], torch.Tensor, list[str]]:
        vlm = load_vlm(str(folder))
        questions = ["Is there a red circle?", "What?", "Which colour has the largest of them?", ""]
        batch = vlm.adapter.question_batch(images, questions)
        with torch.no_grad():
            logits = vlm.model(**batch).logits[batch["attention_mask"].bool()]
        training = vlm.adapter.training_batch(examples)
        mask = training["attention_mask"]
        there = mask.bool() if mask.dim() == 2 else mask[:, 0].diagonal(dim1=1, dim2=2).bool()
        kept = {"labels": training["labels"], "tokens": training["input_ids"][there]}
        said = answer(vlm, examples, max_new_tokens=8)["response"].to_pylist()
        return kept, logits, said

    before = seen()
    edit_json(folder / "tokenizer_config.json", pad_token=None)
    check_model(str(folder))
    tokenizer = load_vlm(str(folder)).processor.tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token == "<|end|>"
    after = seen()
    assert torch.equal(before[0]["labels"], after[0]["labels"])
    assert torch.equal(before[1], after[1])
    assert before[2] == after[2]


@pytest.mark.case
@pytest.mark.parametrize("look", [check_model, load_vlm])
@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        ("tokenizer_config.json", {"pad_token": None, "eos_token": None},
         'pad_token: got None.*Put "pad_token" and "eos_token" there'),
        ("processor_config.json", {"patch_size": None},
         'patch_size: got None.*Put "patch_size": 4 there'),
        ("processor_config.json", {"vision_feature_select_strategy": ...},
         'strategy: got None.*Put "vision_feature_select_strategy": "default" there'),
    ],
)  # fmt: skip
def test_a_field_that_is_missing_is_named_with_its_value(
    file: str, fields: dict[str, object], told: str, look: Callable[[str], object], folder: Path
):
    edit_json(folder / file, **fields)
    with pytest.raises(CheckpointError, match=told) as caught:
        look(str(folder))
    assert str(folder / file) in str(caught.value)


@pytest.mark.case
def test_a_count_of_tokens_that_is_missing_is_named(tmp_path: Path):
    build("llava_onevision", tmp_path)
    edit_json(tmp_path / "processor_config.json", num_image_tokens=None)
    with pytest.raises(CheckpointError, match='Put "num_image_tokens": 16 there'):
        check_model(str(tmp_path))


@pytest.mark.case
@pytest.mark.parametrize("look", [check_model, load_vlm])
@pytest.mark.parametrize(
    "file", ["config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json"]
)
def test_a_file_that_is_cut_short_is_told(file: str, look: Callable[[str], object], folder: Path):
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"cannot be had") as caught:
        look(str(folder))
    assert str(folder) in str(caught.value)


@pytest.mark.case
def test_settings_that_no_picture_passes_are_told_before_anything_starts(folder: Path):
    import json

    file = folder / "processor_config.json"
    content = json.loads(file.read_text())
    content["image_processor"] |= {"size": {"shortest_edge": -5}, "crop_size": {"height": -1}}
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"processor (makes no inputs|cannot be had)"):
        check_model(str(folder))
