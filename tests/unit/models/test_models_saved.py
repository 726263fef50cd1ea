"""Saved folders: every setting under its old name too, and read again as in training."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from tiny_families import FAMILIES, build

from mixlens.errors import CheckpointError
from mixlens.models import load_vlm, save_adapter_names, save_config, save_processor
from mixlens.models.saved import differs

pytestmark = pytest.mark.case

# Rotary settings of published files: as version 5 keeps them, and as the files have them.
ROPE = {
    "llama 3.2 vision": (
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192, "rope_theta": 5e5},
        {"rope_theta": 5e5,
         "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}},
    ),
    "gemma 3": (
        {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
         "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}},
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4,
         "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
    ),
    "glm 4.1 v": (
        {"rope_type": "default", "mrope_section": [8, 12, 12], "partial_rotary_factor": 0.5,
         "rope_theta": 1e4},
        {"rope_theta": 1e4, "partial_rotary_factor": 0.5,
         "rope_scaling": {"rope_type": "default", "mrope_section": [8, 12, 12]}},
    ),
}  # fmt: skip


class Configured:
    """A model that is nothing but its configuration."""

    def __init__(self, config: Any) -> None:
        self.config = config


@pytest.mark.parametrize("name", ROPE)
def test_rotary_positions_have_their_published_names(name: str, tmp_path: Path):
    new, published = ROPE[name]
    whole = {"text_config": {"rope_parameters": new}, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(whole))
    save_config(Configured(hf.LlavaConfig(tie_word_embeddings=True)), tmp_path)
    text = read(tmp_path / "config.json")["text_config"]
    assert text == {"rope_parameters": new, "tie_word_embeddings": True} | published


@pytest.mark.parametrize("family", FAMILIES)
def test_this_transformers_reads_a_saved_folder_as_before(family: str, tmp_path: Path):
    """Also where positions are of another base than the default."""
    base, saved = tmp_path / "base", tmp_path / "saved"
    build(family, base)
    config = read(base / "config.json")
    rope = config["text_config"]["rope_parameters"]
    rope.get("full_attention", rope)["rope_theta"] = 123456.0
    write(base / "config.json", config)
    vlm = load_vlm(str(base))
    vlm.model.config.save_pretrained(saved)
    save_config(vlm.model, saved)
    save_processor(vlm, saved)

    text = read(saved / "config.json")["text_config"]
    assert text["rope_theta"] == 123456.0
    before, after = (
        hf.AutoConfig.from_pretrained(folder).get_text_config().to_dict()
        for folder in (base, saved)
    )
    before["tie_word_embeddings"] = vlm.model.config.to_dict().get("tie_word_embeddings", False)
    assert after == before | {"_name_or_path": after.get("_name_or_path")}
    again = hf.AutoProcessor.from_pretrained(saved)
    for part in ("image_processor", "video_processor"):
        if hasattr(vlm.processor, part):
            assert getattr(again, part).to_dict() == getattr(vlm.processor, part).to_dict()
    special = "special_tokens_map", "all_special_ids", "padding_side", "chat_template"
    for name in special:
        assert getattr(again.tokenizer, name) == getattr(vlm.processor.tokenizer, name)
    assert differs(vlm, saved) is None


def test_tokenizer_and_processors_have_old_names_too(tmp_path: Path):
    build("qwen2_vl", tmp_path / "base")
    path = tmp_path / "base" / "tokenizer_config.json"
    tokens = ["<|im_start|>", "<|im_end|>"]
    write(path, read(path) | {"extra_special_tokens": tokens})
    save_processor(load_vlm(str(tmp_path / "base")), made(tmp_path / "saved"))
    saved = read(tmp_path / "saved" / "tokenizer_config.json")
    assert saved["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert saved["additional_special_tokens"] == tokens
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    assert saved["extra_special_tokens"] == named
    whole = read(tmp_path / "saved" / "processor_config.json")
    images = read(tmp_path / "saved" / "preprocessor_config.json")
    # Version 4 without torchvision reads these two and passes over the size.
    bounds = {"min_pixels": 4 * 8 * 8, "max_pixels": 100 * 8 * 8}
    assert images == whole["image_processor"] | bounds | {"processor_class": "Qwen2VLProcessor"}
    videos = read(tmp_path / "saved" / "video_preprocessor_config.json")
    assert videos == whole["video_processor"] | {"processor_class": "Qwen2VLProcessor"}


def test_published_files_stay_byte_for_byte(tmp_path: Path):
    """What version 4 wrote needs no other names."""
    build("llava", tmp_path / "base")
    base = tmp_path / "base"
    whole = read(base / "processor_config.json")
    write(base / "preprocessor_config.json", whole.pop("image_processor"))
    write(base / "processor_config.json", whole)
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").unlink()
    write(base / "chat_template.json", {"chat_template": template})
    config = read(base / "tokenizer_config.json")
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "additional_special_tokens": []}
    write(base / "tokenizer_config.json", config | {"extra_special_tokens": {}})
    save_processor(load_vlm(str(base)), made(tmp_path / "saved"))
    for file in (tmp_path / "saved").iterdir():
        assert file.read_bytes() == (base / file.name).read_bytes()
    assert len(list((tmp_path / "saved").iterdir())) == 5


def test_no_pointer_to_code_that_the_folder_does_not_hold(tmp_path: Path):
    base, saved = tmp_path / "base", tmp_path / "saved"
    build("molmo2", base)
    for name, auto in {
        "config.json": {"AutoConfig": "configuration_molmo2.Molmo2Config"},
        "processor_config.json": {"AutoProcessor": "processing_molmo2.Molmo2Processor"},
        "tokenizer_config.json": {"AutoProcessor": "processing_molmo2.Molmo2Processor"},
    }.items():
        write(base / name, read(base / name) | {"auto_map": auto})
    vlm = load_vlm(str(base))
    vlm.model.config.save_pretrained(saved)
    save_config(vlm.model, saved)
    save_processor(vlm, saved)
    assert not any("auto_map" in file.read_text() for file in saved.glob("*.json"))
    hf.AutoConfig.from_pretrained(saved, trust_remote_code=True)
    hf.AutoProcessor.from_pretrained(saved, trust_remote_code=True)


def test_a_tokenizer_that_transformers_does_not_save_whole_is_kept(tmp_path: Path):
    """`legacy` puts a blank behind special tokens; transformers 5 drops it when it saves."""
    base, again = llama_tokens(tmp_path / "base", legacy=True), tmp_path / "again"
    vlm = load_vlm(str(base))
    vlm.processor.save_pretrained(again)
    assert "becomes the tokens" in str(differs(vlm, again))
    save_processor(vlm, made(tmp_path / "saved"))
    assert differs(vlm, tmp_path / "saved") is None
    assert read(tmp_path / "saved" / "tokenizer_config.json")["legacy"] is True


def test_files_that_changed_since_are_not_taken(tmp_path: Path):
    base = tmp_path / "base"
    build("llava", base)
    vlm = load_vlm(str(base))
    whole = read(base / "processor_config.json")
    whole["image_processor"]["image_mean"] = [0.0, 0.0, 0.0]
    write(base / "processor_config.json", whole)
    save_processor(vlm, made(tmp_path / "saved"))
    mean = read(tmp_path / "saved" / "processor_config.json")["image_processor"]["image_mean"]
    assert mean == list(vlm.processor.image_processor.image_mean)
    shutil.rmtree(base)
    save_processor(vlm, made(tmp_path / "gone"))
    assert differs(vlm, tmp_path / "gone") is None


def test_a_processor_that_neither_way_gives_again_is_an_error(tmp_path: Path):
    base = llama_tokens(tmp_path / "base", legacy=True)
    vlm = load_vlm(str(base))
    path = base / "tokenizer_config.json"
    write(path, read(path) | {"legacy": False})
    with pytest.raises(CheckpointError, match=r"opened again, it reads otherwise.*becomes the tok"):
        save_processor(vlm, made(tmp_path / "saved"))


@pytest.mark.parametrize("family", ["llava", "gemma3", "internvl"])
def test_adapters_have_the_names_of_older_releases(family: str, tmp_path: Path):
    """And are the same model by them, for Mixlens and for plain peft."""
    base, folder = tmp_path / "base", tmp_path / "adapters"
    build(family, base)
    config = LoraConfig(r=2, target_modules=["q_proj", "fc1"], init_lora_weights=False)
    get_peft_model(load_vlm(str(base)).model, config).save_pretrained(folder)
    before = load_file(folder / "adapter_model.safetensors")
    was = dict(load_vlm(str(folder)).model.named_parameters())
    save_adapter_names(load_vlm(str(base)), folder)
    after = load_file(folder / "adapter_model.safetensors")
    assert len(after) == len(before)
    # 4.57 has vision_model within the towers of CLIP and SigLIP; InternVL has a tower of its own.
    level = "" if family == "internvl" else "vision_model."
    vision = {name for name in after if ".vision_tower." in name}
    assert vision
    assert all(f".vision_tower.{level}encoder." in name for name in vision)
    plain = hf.AutoModelForImageTextToText.from_pretrained(base)
    plain = PeftModel.from_pretrained(plain, folder)
    for now in (load_vlm(str(folder)).model, plain):
        found = dict(now.named_parameters())
        assert found.keys() == was.keys()
        assert all(torch.equal(found[name], weight) for name, weight in was.items())


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("processor_config.json", {"image_processor": {"rescale_factor": 1 / 254}}, "is off by"),
        ("processor_config.json", {"image_processor": {"crop_size": 24}}, "has the shape"),
        ("tokenizer_config.json", {"pad_token": "<unk>"}, "pad_token is '<unk>'"),
        ("chat_template.jinja", "{{ messages[0].content }}", "chat template"),
        ("tokenizer.json", "{}", "cannot be had"),
    ],
)
def test_what_differs_is_told(file: str, change: Any, told: str, tmp_path: Path):
    build("llava", tmp_path / "base")
    vlm = load_vlm(str(tmp_path / "base"))
    save_processor(vlm, made(tmp_path / "saved"))
    path = tmp_path / "saved" / file
    if isinstance(change, str):
        path.write_text(change)
    else:
        content = read(path)
        for name, value in change.items():
            content[name] = content[name] | value if isinstance(value, dict) else value
        write(path, content)
    assert told in str(differs(vlm, tmp_path / "saved"))


def llama_tokens(folder: Path, legacy: bool) -> Path:
    """A LLaVA-OneVision whose tokenizer is of SentencePiece kind, in its version 4 settings."""
    build("llava_onevision", folder)
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    tokens = hf.LlamaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[])
    special = ["<image>", "<video>", "<|im_start|>", "<|im_end|>"]
    tokens.add_special_tokens({"additional_special_tokens": special})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tokens.save_pretrained(folder)
    config = read(folder / "tokenizer_config.json")
    named = {"image_token": "<image>", "video_token": "<video>", "pad_token": "<unk>"}
    write(folder / "tokenizer_config.json", config | named | {"legacy": legacy})
    model = read(folder / "config.json")
    model["image_token_index"] = tokens.convert_tokens_to_ids("<image>")
    write(folder / "config.json", model)
    return folder


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content))
