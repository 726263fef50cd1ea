"""Every tensor of adapters is accounted for, and those of older transformers are still theirs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_folders import Tensors, copy_with, edit_json, linear_layers, save_adapters
from safetensors.torch import load_file
from tiny_families import FAMILIES, build

from mixlens.errors import CheckpointError
from mixlens.models import check_model, check_weights, load_vlm
from mixlens.models.family import BLANK
from mixlens.models.tiny import build_tiny_vlm
from mixlens.training.merge import merge

# How transformers 4.51.3 with peft 0.17.1 names what is called so now, as that version wrote it.
OF_LLAVA = {
    "model.language_model.": "language_model.model.",
    "model.vision_tower.": "vision_tower.vision_model.",
    "model.vision_model.": "vision_model.",
    "model.multi_modal_projector": "multi_modal_projector",
}
OF_QWEN = {"model.language_model.": "model.", "model.visual.": "visual."}
NAMES_OF_451 = {
    **dict.fromkeys(("llava", "llava_next", "llava_onevision", "gemma3", "mllama"), OF_LLAVA),
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), OF_QWEN),
    "idefics3": {},
    "smolvlm": {},
}
PREFIX = "base_model.model."


def as_451(name: str, names: dict[str, str]) -> str:
    for now, then in names.items():
        if name.startswith(now):
            return then + name.removeprefix(now)
    return name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A tiny base of a family, and adapters on all its linear layers."""
    root = tmp_path_factory.mktemp("adapters")

    def of(family: str) -> tuple[Path, Path]:
        base, adapters = root / family / "base", root / family / "adapters"
        if not base.exists():
            build(family, base)
            model = load_vlm(str(base)).model
            save_adapters(model, base, adapters, linear_layers(model))
        return base, adapters

    return of


def logits(folder: Path) -> torch.Tensor:
    vlm = load_vlm(str(folder))
    with torch.no_grad():
        return vlm.model(**vlm.adapter.question_batch([BLANK], ["What is shown?"])).logits


def merged_beside(path: str) -> Path:
    return merge(Path(path), Path(path).with_name("merged"))


def refused(folder: Path, *looks: Callable[[str], object]) -> str:
    """What is said of adapters, which is the same before anything starts and in every job."""
    messages = []
    for look in looks or (check_weights, load_vlm, merged_beside):
        with pytest.raises(CheckpointError) as caught:
            look(str(folder))
        messages.append(str(caught.value))
    assert len(set(messages)) == 1
    assert not folder.with_name("merged").exists()
    return messages[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_missing_misnamed_or_misshapen_is_refused(
    family: str, made: Callable[[str], tuple[Path, Path]], tmp_path: Path
):
    base, adapters = made(family)
    check_model(str(adapters))
    assert (logits(adapters) - logits(base)).abs().max() > 0.01
    tensors = load_file(adapters / "adapter_model.safetensors")
    name = min(n for n in tensors if n.endswith("lora_B.weight") and (".0." in n))

    def changed(name_of: str, change: Callable[[Tensors], Tensors]) -> str:
        folder = copy_with(adapters, tmp_path / name_of / "adapters", change)
        return refused(folder, check_weights, load_vlm)

    said = changed("part", lambda all_: {k: v for k, v in all_.items() if k != name})
    assert f"1 tensors are missing ({name})" in said
    said = changed("wide", lambda all_: {**all_, name: torch.cat([all_[name]] * 2)})
    rows, columns = tensors[name].shape
    assert f"{name}: [{2 * rows}, {columns}] in the file, [{rows}, {columns}] in the" in said
    misnamed = name.replace(".0.", ".")
    said = changed("misnamed", lambda all_: {misnamed if k == name else k: all_[k] for k in all_})
    assert f"1 tensors are missing ({name}), and 1 are of no use" in said
    said = changed("bare", lambda all_: {k.removeprefix(PREFIX): v for k, v in all_.items()})
    assert f"{len(tensors)} tensors are missing ({PREFIX}" in said


@pytest.mark.parametrize(
    "family",
    [
        # All of them take too long for a quick look at the cases.
        pytest.param(family, marks=pytest.mark.case) if family in ("llava", "qwen2_vl") else family
        for family in NAMES_OF_451
    ],
)
def test_adapters_of_older_transformers_are_put_where_they_belong(
    family: str, made: Callable[[str], tuple[Path, Path]], tmp_path: Path
):
    base, adapters = made(family)
    names = NAMES_OF_451[family]

    def rename(tensors: Tensors) -> Tensors:
        return {
            PREFIX + as_451(name.removeprefix(PREFIX), names): tensor
            for name, tensor in tensors.items()
        }

    old = copy_with(adapters, tmp_path / "old", rename)
    there = load_file(old / "adapter_model.safetensors").keys()
    assert (there != load_file(adapters / "adapter_model.safetensors").keys()) is bool(names)
    expected = logits(adapters)

    layers = linear_layers(load_vlm(str(base)).model)
    then = [as_451(layer, names) for layer in layers]
    for targets in (
        sorted({layer.rpartition(".")[2] for layer in layers}),  # what peft makes of many
        then,  # and of few
        "|".join(layer.replace(".", r"\.") for layer in then),
    ):
        # Ends of names may fit layers without adapters (a "proj" that is no "attn.proj").
        ambiguous = isinstance(targets, list) and targets != then and "proj" in targets
        if ambiguous and family.startswith("qwen"):
            continue
        edit_json(old / "adapter_config.json", target_modules=targets)
        check_model(str(old))
        assert torch.equal(logits(old), expected)
    merged = logits(merge(old, tmp_path / "merged"))
    assert (merged - expected).abs().max() < 0.01 * (logits(base) - expected).abs().max()


@pytest.mark.case
def test_scales_of_single_layers_follow_their_layers(
    made: Callable[[str], tuple[Path, Path]], tmp_path: Path
):
    base, _ = made("qwen2_vl")
    model = load_vlm(str(base)).model
    layer = next(name for name in linear_layers(model) if "language_model" in name)
    own = {"rank_pattern": {layer: 3}, "alpha_pattern": {layer: 64}}
    adapters = save_adapters(model, base, tmp_path / "now", linear_layers(model), **own)
    names = NAMES_OF_451["qwen2_vl"]

    def rename(tensors: Tensors) -> Tensors:
        return {PREFIX + as_451(n.removeprefix(PREFIX), names): t for n, t in tensors.items()}

    old = copy_with(adapters, tmp_path / "old", rename)
    then = as_451(layer, names)
    edit_json(old / "adapter_config.json", rank_pattern={then: 3}, alpha_pattern={then: 64})
    assert torch.equal(logits(old), logits(adapters))


@pytest.mark.case
def test_names_that_nothing_is_known_of_are_refused(tmp_path: Path):
    base, adapters = tmp_path / "base", tmp_path / "adapters"
    build_tiny_vlm(base, ["red"], size="test")
    save_adapters(load_vlm(str(base)).model, base, adapters, ["q_proj", "v_proj"])

    def rename(tensors: Tensors) -> Tensors:
        return {
            k.replace("model.language_model.layers", "model.layers"): tensors[k] for k in tensors
        }

    said = refused(copy_with(adapters, tmp_path / "lost" / "adapters", rename))
    assert "tensors are missing (base_model.model.model.language_model.layers.0." in said
    assert "are of no use to the adapted model (base_model.model.model.layers.0." in said


@pytest.mark.case
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"target_modules": ["nonesuch"]}, r"adapter_config\.json.*cannot be put on this base"),
        ({"target_modules": ["q_proj", "v_proj", "down_proj"]}, "tensors are missing"),
        ({"target_modules": ["q_proj"]}, "are of no use"),
        ({"r": 4}, "have another shape"),
        ({"peft_type": "NONESUCH"}, r"adapter_config\.json.*cannot be put on this base"),
        ({"peft_type": None}, r"adapter_config\.json.*cannot be put on this base"),
        ({"base_model_name_or_path": ...}, r"adapter_config\.json, base_model_name.*got None"),
        ({"base_model_name_or_path": None}, r"adapter_config\.json, base_model_name.*got None"),
        ({"base_model_name_or_path": "/gone"}, r"adapter_config\.json, base_m.*'/gone': no such"),
        ({"base_model_name_or_path": "SELF"}, "folder of adapters itself.*merge"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    fields: dict[str, object], told: str, tmp_path: Path
):
    base, adapters = tmp_path / "base", tmp_path / "adapters"
    build_tiny_vlm(base, ["red"], size="test")
    save_adapters(load_vlm(str(base)).model, base, adapters, ["q_proj", "v_proj"])
    check_model(str(adapters))
    fields = {name: str(adapters) if value == "SELF" else value for name, value in fields.items()}
    edit_json(adapters / "adapter_config.json", **fields)
    with pytest.raises(CheckpointError, match=told):
        raise CheckpointError(refused(adapters))


@pytest.mark.case
@pytest.mark.parametrize("damage", ["cut", "list", "empty", "no weights", "cut weights", "pickled"])
def test_a_damaged_folder_of_adapters_is_named(damage: str, tmp_path: Path):
    base, adapters = tmp_path / "base", tmp_path / "adapters"
    build_tiny_vlm(base, ["red"], size="test")
    save_adapters(load_vlm(str(base)).model, base, adapters, ["q_proj"])
    config, weights = adapters / "adapter_config.json", adapters / "adapter_model.safetensors"
    match damage:
        case "cut":
            config.write_text(config.read_text()[:100])
        case "list":
            config.write_text(json.dumps([1]))
        case "empty":
            config.write_text("")
        case "no weights":
            weights.unlink()
        case "cut weights":
            weights.write_bytes(weights.read_bytes()[:-8])
        case "pickled":
            weights.rename(adapters / "adapter_model.bin")
    said = refused(adapters)
    assert str(config if damage in ("cut", "list", "empty") else adapters) in said
    assert {
        "cut": "cannot be read as JSON",
        "list": "no JSON object",
        "empty": "cannot be read as JSON",
        "no weights": "'adapter_model.safetensors': the file is not there",
        "cut weights": "its weights cannot be read",
        "pickled": "adapter_model.bin is pickled",
    }[damage] in said


def test_an_embedding_that_was_trained_too_is_loaded(tmp_path: Path):
    base, adapters = tmp_path / "base", tmp_path / "adapters"
    build_tiny_vlm(base, ["red"], size="test")
    model = load_vlm(str(base)).model
    save_adapters(model, base, adapters, ["q_proj"], modules_to_save=["lm_head"])

    def louder(tensors: Tensors) -> Tensors:
        return {k: 2 * v if "lm_head" in k else v for k, v in tensors.items()}

    loud = copy_with(adapters, tmp_path / "loud", louder)
    assert torch.allclose(logits(loud), 2 * logits(adapters), atol=1e-5)
