"""A twin differs from its model in the weights it should, and in nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from mixlens.errors import CheckpointError
from mixlens.models import load_vlm
from mixlens.models.twin import random_twin

MODEL = "builtin:tiny-vllm"


@pytest.fixture(scope="module")
def trained():
    return load_vlm(MODEL)


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twins")
    return {part: random_twin(MODEL, folder / part, part, seed=3) for part in ("language", "all")}


def weights_of(path: str, tower: str) -> dict[str, torch.Tensor]:
    vlm = load_vlm(path)
    return {
        f"{i}.{name}": weight
        for i, module in enumerate(vlm.adapter.towers(vlm.model)[tower])
        for name, weight in module.state_dict().items()
    }


@pytest.mark.parametrize(
    ("part", "tower", "random"),
    [
        ("language", "vision", False),
        ("language", "projector", False),
        ("language", "language", True),
        ("all", "vision", True),
        ("all", "projector", True),
        ("all", "language", True),
    ],
)
def test_only_the_named_part_is_random(twins, part: str, tower: str, random: bool):
    theirs, ours = weights_of(MODEL, tower), weights_of(twins[part], tower)
    assert theirs.keys() == ours.keys()
    for name, weight in ours.items():
        assert weight.shape == theirs[name].shape
        if "post_layernorm" not in name:  # on no path of this model, so nobody trained it
            assert torch.equal(weight, theirs[name]) is not random, name


def test_random_weights_have_the_spread_of_the_class(twins, trained):
    spread = trained.model.config.text_config.initializer_range
    for name, weight in weights_of(twins["language"], "language").items():
        if weight.ndim == 2 and not name.startswith("1."):  # the head is the embedding
            assert float(weight.std()) == pytest.approx(spread, rel=0.1), name
            assert float(weight.mean()) == pytest.approx(0, abs=spread / 10), name


def test_configuration_and_processor_are_the_model_s(twins, trained):
    image = np.zeros((40, 40, 3), np.uint8)
    for path in twins.values():
        twin = load_vlm(path)
        ours, theirs = (v.model.config.to_dict() for v in (twin, trained))
        assert ours == theirs | {"_name_or_path": ours.get("_name_or_path")}
        batches = [v.adapter.question_batch([image], ["what is it ?"]) for v in (twin, trained)]
        for name, tensor in batches[0].items():
            assert torch.equal(tensor, batches[1][name])
        assert twin.processor.tokenizer.get_vocab() == trained.processor.tokenizer.get_vocab()
        with torch.inference_mode():
            assert twin.model(**batches[0]).logits.isfinite().all()


def test_the_seed_decides(twins, tmp_path: Path):
    state = torch.get_rng_state()
    again = random_twin(MODEL, tmp_path / "again", "all", seed=3)
    other = random_twin(MODEL, tmp_path / "other", "all", seed=4)
    assert torch.equal(torch.get_rng_state(), state)  # the caller's draws stay as they were
    first = weights_of(twins["all"], "projector")
    for name, weight in weights_of(again, "projector").items():
        assert torch.equal(weight, first[name])
    changed = [
        name
        for name, weight in weights_of(other, "projector").items()
        if not torch.equal(weight, first[name])
    ]
    assert len(changed) >= len(first) / 2


def test_a_whole_twin_is_not_made_again(tmp_path: Path):
    folder = tmp_path / "twin"
    random_twin(MODEL, folder, "all", seed=1)
    (folder / "mark").touch()
    assert random_twin(MODEL, folder, "all", seed=1) == str(folder)
    assert (folder / "mark").exists()
    for part, seed in (("all", 2), ("language", 1)):
        with pytest.raises(CheckpointError, match="something other"):
            random_twin(MODEL, folder, part, seed)
    assert (folder / "mark").exists()


def test_what_an_interrupted_call_left_is_no_twin(tmp_path: Path):
    (tmp_path / "twin.unfinished").mkdir()
    (tmp_path / "twin.unfinished" / "model.safetensors").write_text("half")
    path = random_twin(MODEL, tmp_path / "twin", "all")
    load_vlm(path)
    assert not (tmp_path / "twin.unfinished").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="Delete it or name another"):
        random_twin(MODEL, tmp_path, "all")
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_adapters_count_as_weights_of_the_model(trained, tmp_path: Path):
    vlm = load_vlm(MODEL)
    config = LoraConfig(r=2, target_modules=r".*vision_tower.*fc1", init_lora_weights=False)
    peft = get_peft_model(vlm.model, config)
    peft.save_pretrained(tmp_path / "adapters")
    settings = tmp_path / "adapters" / "adapter_config.json"
    settings.write_text(
        json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": MODEL})
    )
    twin = random_twin(str(tmp_path / "adapters"), tmp_path / "twin", "language")
    merged = peft.merge_and_unload().state_dict()
    base = trained.model.state_dict()
    ours = load_vlm(twin).model.state_dict()
    moved = [name for name in ours if "fc1.weight" in name]
    assert moved
    for name in moved:
        assert torch.allclose(ours[name], merged[name], atol=1e-6)
        assert not torch.allclose(ours[name], base[name], atol=1e-3)
