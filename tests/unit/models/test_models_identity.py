"""What decides a model changes its fingerprint, nothing else does, and no file is read twice."""

import json
import os
import shutil
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch
from model_folders import Tensors, copy_with, edit_json, save_adapters

from mixlens.errors import CheckpointError
from mixlens.models import fingerprint, load_vlm
from mixlens.models.identity import cache_file, file_digests
from mixlens.models.tiny import build_tiny_vlm


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("mixlens.models.identity._IN_MEMORY", {})
    return tmp_path / "cache" / "mixlens" / "digests.json"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    build_tiny_vlm(tmp_path / "base", ["red"], size="test")
    return tmp_path / "base"


def of(folder: Path) -> str:
    return fingerprint(str(folder))


@pytest.mark.case
def test_it_follows_the_weights_in_the_middle_of_a_file(base: Path, tmp_path: Path):
    def noise(tensors: Tensors) -> Tensors:
        return {
            name: torch.randn_like(tensor) if "projector" in name else tensor
            for name, tensor in tensors.items()
        }

    trained = copy_with(base, tmp_path / "trained", noise)
    weights = "model.safetensors"
    assert (trained / weights).stat().st_size == (base / weights).stat().st_size
    assert of(trained) != of(base)


@pytest.mark.case
@pytest.mark.parametrize(
    "change",
    [
        lambda folder: edit_json(folder / "config.json", vision_feature_layer=-1),
        lambda folder: edit_json(folder / "generation_config.json", temperature=0.5),
        lambda folder: edit_json(folder / "processor_config.json", patch_size=9),
        lambda folder: edit_json(folder / "tokenizer_config.json", eos_token="red"),
        lambda folder: edit_json(folder / "tokenizer.json", truncation=None),
        lambda folder: (folder / "chat_template.jinja").write_text("{{ messages }}"),
        lambda folder: (folder / "special_tokens_map.json").write_text("{}"),
    ],
)
def test_it_follows_every_file_that_decides(change: Callable[[Path], None], base: Path):
    before = of(base)
    change(base)
    assert of(base) != before


@pytest.mark.case
def test_it_does_not_follow_what_decides_nothing(base: Path, tmp_path: Path):
    before = of(base)
    for name in ("README.md", ".gitattributes", "mixlens.json", "trainer_state.json",
                 "provenance.json", "optimizer.pt", "consolidated.safetensors"):  # fmt: skip
        (base / name).write_text("whatever")
    (base / "checkpoint-10").mkdir()
    (base / "checkpoint-10" / "model.safetensors").write_text("whatever")
    os.utime(base / "model.safetensors", (1, 1))
    assert of(base) == before
    assert of(Path(shutil.copytree(base, tmp_path / "elsewhere"))) == before


@pytest.mark.case
def test_shards_count_by_what_they_hold_and_only_those_that_the_index_names(
    base: Path, tmp_path: Path
):
    vlm = load_vlm(str(base))
    shards = tmp_path / "shards"
    vlm.model.save_pretrained(shards, max_shard_size="20KB")
    vlm.processor.save_pretrained(shards)
    before = of(shards)
    index = shards / "model.safetensors.index.json"
    files = sorted(shards.glob("model-*.safetensors"))
    # Other names of the same files.
    weight_map = json.loads(index.read_text())["weight_map"]
    renamed = {file.name: f"part-{len(files) - i}.safetensors" for i, file in enumerate(files)}
    for file in files:
        file.rename(shards / renamed[file.name])
    edit_json(index, weight_map={name: renamed[file] for name, file in weight_map.items()})
    (shards / "model-00009-of-00009.safetensors").write_bytes(b"left behind")
    assert of(shards) == before
    last = shards / "part-1.safetensors"
    last.write_bytes(last.read_bytes()[:-1] + b"\1")
    assert of(shards) != before
    last.unlink()
    with pytest.raises(CheckpointError, match=r"part-1\.safetensors.*is not there"):
        of(shards)


@pytest.mark.case
def test_adapters_count_with_their_base(base: Path, tmp_path: Path):
    adapters = save_adapters(load_vlm(str(base)).model, base, tmp_path / "adapters", ["q_proj"])
    before = of(adapters)
    assert before != of(base)
    # The base may lie elsewhere, and sets of modules are written in any order.
    moved = Path(shutil.copytree(base, tmp_path / "moved"))
    edit_json(adapters / "adapter_config.json", base_model_name_or_path=str(moved))
    assert of(adapters) == before
    (adapters / "README.md").write_text("notes")
    assert of(adapters) == before
    edit_json(adapters / "adapter_config.json", lora_alpha=99)
    assert of(adapters) != before
    edit_json(adapters / "adapter_config.json", lora_alpha=8)
    assert of(adapters) == before
    edit_json(moved / "processor_config.json", patch_size=9)  # of the base: the one that is used
    assert of(adapters) != before
    edit_json(adapters / "adapter_config.json", base_model_name_or_path=...)
    with pytest.raises(CheckpointError, match="base_model_name_or_path"):
        of(adapters)


@pytest.mark.case
def test_a_hub_id_stands_for_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    repository = tmp_path / "hub" / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    for commit in ("0" * 40, "1" * 40):
        build_tiny_vlm(repository / "snapshots" / commit, ["red"], size="test")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = []
    for commit in ("0" * 40, "1" * 40, "0" * 40):
        (repository / "refs" / "main").write_text(commit)
        found.append(fingerprint("some/model"))
    assert found[0] == found[2] != found[1]
    with pytest.raises(CheckpointError, match=r"nobody/nomodel.*cannot be had"):
        fingerprint("nobody/nomodel")


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file worth remembering, of a while ago."""
    file = tmp_path / "weights.safetensors"
    file.write_bytes(os.urandom(3 << 20))
    long_ago(file)
    return file


def long_ago(file: Path) -> None:
    """As if the file's last change lay back; its time of change in the system cannot be set."""
    time.sleep(0.01)
    os.utime(file, (1, 1))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once: a test cannot wait."""
    monkeypatch.setattr("mixlens.models.identity.SETTLED_S", 0.0)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that are read from here on."""
    from mixlens.models import identity

    seen: list[Path] = []
    digest = identity._Reading.digest

    def counted(self: object, file: Path) -> str:
        seen.append(file)
        return digest(self, file)

    monkeypatch.setattr(identity._Reading, "digest", counted)
    return seen


@pytest.mark.case
def test_a_second_start_reads_nothing_until_the_file_changes(
    large: Path, settled: None, monkeypatch: pytest.MonkeyPatch
):
    seen = reads(monkeypatch)

    def started() -> str:
        monkeypatch.setattr("mixlens.models.identity._IN_MEMORY", {})
        return file_digests([large])[0]

    first = started()
    assert started() == first
    assert len(seen) == 1
    # Other bytes of the same length, with the old time put back.
    kept = large.stat()
    with large.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"other")
    os.utime(large, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert large.stat().st_mtime_ns == kept.st_mtime_ns
    assert large.stat().st_ino == kept.st_ino
    assert started() != first
    assert len(seen) == 2


@pytest.mark.case
def test_what_was_just_written_is_not_remembered(
    large: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
):
    large.write_bytes(large.read_bytes())
    file_digests([large])
    assert not own_cache.exists()


@pytest.mark.case
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"\xff\xfe", b'{"PLACE": 3}', b'{"PLACE": [1, 2, 3, 4, "ab"]}',
     b'{"PLACE": [null, {}, 3, 4, 5]}'],
)  # fmt: skip
def test_a_damaged_cache_is_no_harm(content: bytes, large: Path, settled: None, own_cache: Path):
    expected = file_digests([large])
    own_cache.write_bytes(content.replace(b"PLACE", str(large).encode()))
    assert file_digests([large]) == expected


@pytest.mark.case
def test_a_cache_that_cannot_be_written_is_no_harm(
    large: Path, settled: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    expected = file_digests([large])
    for place in (tmp_path / "weights.safetensors", Path("/proc/nowhere")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        assert file_digests([large]) == expected
        assert not cache_file().exists()
    # Within a process nothing is read again all the same.
    seen = reads(monkeypatch)
    assert file_digests([large]) == expected
    assert not seen


@pytest.mark.case
def test_starts_at_once_share_one_cache(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
):
    files = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for file in files:
        file.write_bytes(os.urandom(2 << 20))
    forks = get_context("fork")
    monkeypatch.setattr("mixlens.models.identity.SETTLED_S", 0.0)
    with forks.Pool(3) as pool:
        said = pool.map(each_digest, [files, files[::-1], files], chunksize=1)
    assert said[0] == said[1][::-1] == said[2]
    assert len(set(said[0])) == len(files)
    there = json.loads(own_cache.read_text())
    assert {entry[-1] for entry in there.values()} <= set(said[0])
    assert list(own_cache.parent.iterdir()) == [own_cache]  # nothing half written


def each_digest(files: list[Path]) -> list[str]:
    return [file_digests([file])[0] for file in files]


def test_long_reading_is_told_once(large: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mixlens.models.identity.PATIENCE_S", 0.0)
    said: list[str] = []
    file_digests([large, large], said.append)
    (sentence,) = said
    assert str(large.parent) in sentence
    assert "GB of weights" in sentence
