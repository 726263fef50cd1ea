"""Every tensor of a model is accounted for, by its header and when it is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from model_folders import Tensors, copy_with
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, build

from mixlens.errors import CheckpointError
from mixlens.models import check_model, check_weights, load_vlm
from mixlens.models.tiny import build_tiny_vlm

TIED = ("qwen3_vl", "internvl", "gemma3")
# All of them take too long for a quick look at the cases.
EACH = [
    pytest.param(family, marks=pytest.mark.case) if family in ("llava", "gemma3") else family
    for family in FAMILIES
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("families")

    def folder(family: str) -> Path:
        if not (root / family).exists():
            build(family, root / family)
        return root / family

    return folder


def refused(folder: Path) -> str:
    """What is said of a folder, which is the same before anything starts and when it is loaded."""
    messages = []
    for look in (check_weights, load_vlm):
        with pytest.raises(CheckpointError) as caught:
            look(str(folder))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"model: got {str(folder)!r}: its weights are not those of the")
    return messages[0]


@pytest.mark.parametrize("family", EACH)
def test_what_is_missing_misnamed_or_misshapen_is_refused(
    family: str, folders: Callable[[str], Path], tmp_path: Path
):
    whole = folders(family)
    check_model(str(whole))
    names = list(load_file(whole / "model.safetensors"))
    # Some layer of each tower, whatever the family calls them.
    of_vision = next(name for name in names if "vis" in name and name.endswith("weight"))
    of_language = next(
        name for name in names if name.endswith(("down_proj.weight", "ff_out.weight"))
    )
    for number, dropped in enumerate((of_vision, of_language)):
        part = copy_with(
            whole, tmp_path / f"part-{number}", lambda all_, gone=dropped: without(all_, gone)
        )
        assert "tensors are missing (" in refused(part)

    strange = copy_with(whole, tmp_path / "strange", lambda all_: {**all_, "some.head": ones()})
    assert "1 are of no use to the model (some.head)" in refused(strange)

    wrapped = copy_with(
        whole,
        tmp_path / "wrapped",
        lambda all_: {f"module.{name}": tensor for name, tensor in all_.items()},
    )
    message = refused(wrapped)
    assert f"{len(names)} are of no use to the model (module." in message
    assert "All names in the file begin with 'module.'" in message

    def widen(tensors: Tensors) -> Tensors:
        return {**tensors, of_language: torch.cat([tensors[of_language]] * 2)}

    message = refused(copy_with(whole, tmp_path / "wide", widen))
    rows, columns = load_file(whole / "model.safetensors")[of_language].shape
    assert "1 have another shape (" in message
    assert f"[{2 * rows}, {columns}] in the file, [{rows}, {columns}] in the model" in message


@pytest.mark.parametrize("family", EACH)
def test_only_a_tied_head_may_be_absent(
    family: str, folders: Callable[[str], Path], tmp_path: Path
):
    whole = folders(family)
    heads = [name for name in load_file(whole / "model.safetensors") if "lm_head" in name]
    if family in TIED:
        assert not heads
        model = load_vlm(str(whole)).model
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    else:
        (head,) = heads
        headless = copy_with(whole, tmp_path / "headless", lambda all_: without(all_, head))
        assert "1 tensors are missing (lm_head.weight)" in refused(headless)


@pytest.mark.case
def test_buffers_that_the_model_computes_may_be_there(tmp_path: Path):
    build_tiny_vlm(tmp_path / "whole", ["red"], size="test")
    old = "language_model.model.rotary_emb.inv_freq", "vision_tower.vision_model.position_ids"
    with_buffers = copy_with(
        tmp_path / "whole", tmp_path / "old", lambda all_: all_ | {name: ones() for name in old}
    )
    check_model(str(with_buffers))
    load_vlm(str(with_buffers))


@pytest.mark.case
def test_shards_are_those_that_the_index_names(tmp_path: Path):
    build_tiny_vlm(tmp_path / "whole", ["red"], size="test")
    vlm = load_vlm(str(tmp_path / "whole"))
    shards = tmp_path / "shards"
    vlm.model.save_pretrained(shards, max_shard_size="20KB")
    vlm.processor.save_pretrained(shards)
    files = sorted(shards.glob("model-*.safetensors"))
    assert len(files) > 2
    check_model(str(shards))
    # A file that no index names is not read, whatever it holds.
    save_file({"stray": ones()}, shards / "consolidated.safetensors")
    load_vlm(str(shards))
    check_model(str(shards))

    kept = files[1].read_bytes()
    files[1].write_bytes(kept[:-10])
    with pytest.raises(CheckpointError, match=rf"{files[1].name}.*its weights cannot be read"):
        check_model(str(shards))
    files[1].unlink()
    with pytest.raises(CheckpointError, match=rf"{files[1].name}.*is not there.*index\.json says"):
        check_model(str(shards))
    (shards / "model.safetensors.index.json").write_text('{"weight_map": {"a": ')
    with pytest.raises(CheckpointError, match=r"index\.json.*cannot be read as JSON"):
        check_model(str(shards))


def without(tensors: Tensors, name: str) -> Tensors:
    return {each: tensor for each, tensor in tensors.items() if each != name}


def ones() -> torch.Tensor:
    return torch.ones(3)
