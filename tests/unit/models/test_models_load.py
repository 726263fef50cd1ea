import json
from pathlib import Path

import pytest

from mixlens.errors import CheckpointError
from mixlens.models import fingerprint, load_vlm, model_config, model_folder, resolve_model
from mixlens.models.tiny import build_tiny_vlm


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("builtin:huge-vllm", "builtin:tiny-vllm"),
        ("/no/such/folder", "no such folder"),
        ("./nor/this", "no such folder"),
        ("not a model", "no such folder"),
    ],
)
def test_a_missing_model_is_told_before_loading(path: str, told: str):
    with pytest.raises(CheckpointError, match=told) as caught:
        resolve_model(path)
    assert path in str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        resolve_model(str(tmp_path))


def test_a_hub_id_passes_unloaded():
    assert resolve_model("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"


def test_a_hub_id_that_cannot_be_had_is_told_before_any_weights():
    with pytest.raises(CheckpointError, match=r"model: got 'nobody/nomodel'.*HF_HUB_OFFLINE"):
        model_config("nobody/nomodel")
    assert model_folder("nobody/nomodel") is None


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    build_tiny_vlm(tmp_path / "own", ["red"], size="test")
    assert resolve_model("~/own") == str(tmp_path / "own")
    assert model_folder("~/own") == tmp_path / "own"
    model_config("~/own")
    with pytest.raises(CheckpointError, match="no such folder"):
        resolve_model("~/none")


def test_a_fetched_hub_model_is_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    repository = tmp_path / "models--some--model"
    snapshot = repository / "snapshots" / "0123"
    build_tiny_vlm(snapshot, ["red"], size="test")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert model_folder("some/model") == snapshot


def test_a_family_without_adapter_is_refused_with_those_there_are(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match=r"bert.*llava"):
        load_vlm(str(tmp_path))


def test_pickled_weights_are_not_loaded(tmp_path: Path):
    build_tiny_vlm(tmp_path, ["red"], size="test")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_vlm(str(tmp_path))


def test_damaged_weights_are_told_with_their_folder(tmp_path: Path):
    build_tiny_vlm(tmp_path, ["red"], size="test")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        load_vlm(str(tmp_path))
    assert str(tmp_path) in str(caught.value)


def test_fingerprint_follows_the_weights(tmp_path: Path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_tiny_vlm(tmp_path / name, ["red"], seed=seed, size="test")
    a, b, c = (fingerprint(str(tmp_path / name)) for name in "abc")
    assert a == b != c


def saved_with_template(folder: Path, template: str | None) -> str:
    """The small model with another chat template."""
    build_tiny_vlm(folder, ["red"], size="test")
    file = folder / "chat_template.jinja"
    assert file.exists()
    file.unlink()
    if template is not None:
        file.write_text(template)
    return str(folder)


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"no chat template.*chat_template\.jinja") as caught:
        load_vlm(saved_with_template(tmp_path, None))
    assert str(tmp_path) in str(caught.value)


def test_a_chat_template_that_shows_no_image_is_refused(tmp_path: Path):
    blind = "{% for message in messages %}{{ message.role }} says{% endfor %}"
    with pytest.raises(CheckpointError, match="shows no <image>") as caught:
        load_vlm(saved_with_template(tmp_path, blind))
    assert str(tmp_path) in str(caught.value)
