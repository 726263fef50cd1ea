"""Stored hidden states against those of the forward pass, through kills, damage and full disks."""

import json
import logging
import shutil
import subprocess
import sys
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pyarrow.dataset
import pytest
import torch

from mixlens.activations import parts, store
from mixlens.activations.store import (
    check_room,
    damaged_parts,
    layers_of,
    read_layer,
    store_bytes,
    write_states,
)
from mixlens.activations.streams import visit
from mixlens.errors import DataError, ResourceError
from mixlens.models import load_vlm
from mixlens.models.tiny import build_tiny_vlm
from mixlens.sources import open_source
from mixlens.spec import SceneComponent, SceneSpec
from mixlens.tasks import vocabulary

IMAGES = 12
PLACES = [(stream, layer) for stream in ("visual", "text") for layer in range(3)]


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    build_tiny_vlm(folder, vocabulary(), seed=2, size="test")
    return load_vlm(str(folder))


@pytest.fixture(scope="module")
def examples():
    spec = SceneComponent(
        scene=SceneSpec(image_size=64, objects=(2, 6)), tasks={"coarse": 1}, seed=3
    )
    source = open_source("scenes", spec)
    return [source.example(index) for index in range(IMAGES)]


@pytest.fixture
def passes(vlm):
    """How many images each forward pass had."""
    found = []
    handle = vlm.adapter.projector(vlm.model).register_forward_pre_hook(
        lambda module, args: found.append(len(args[0]))
    )
    yield found
    handle.remove()


@pytest.fixture
def ragged(monkeypatch):
    """Makes images of different token counts: image i of a batch lacks its last i of each stream,
    the last image of a batch all of its text, and one state is NaN.
    """

    def cut(vlm, images, take):
        def shorter(place, tokens, exists):
            for row in range(len(images)):
                exists[row, exists.shape[1] - row :] = False
            if place == ("visual", 1):
                tokens = tokens.clone()
                tokens[1, 2, 3] = torch.nan
            take(place, tokens, exists)

        visit(vlm, images, shorter)

    monkeypatch.setattr(store, "visit", cut)
    return cut


def states_of(vlm, examples, visit=visit):
    found = {}
    visit(
        vlm,
        [example.image for example in examples],
        lambda place, tokens, exists: found.update({place: (tokens.clone(), exists.clone())}),
    )
    return found


def write_all(vlm, examples, directory, batch=4, digest="one"):
    return sum(
        write_states(vlm, examples[first : first + batch], directory, digest)
        for first in range(0, len(examples), batch)
    )


def contents(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_what_is_read_is_what_the_model_made(vlm, examples, tmp_path):
    assert write_all(vlm, examples, tmp_path) == IMAGES * len(PLACES)
    assert layers_of(tmp_path) == PLACES
    ids = [example.example_id for example in examples]
    order = [7, 0, 11, 3, 4, 0]
    batches = [states_of(vlm, examples[first : first + 4]) for first in range(0, IMAGES, 4)]
    for place in PLACES:
        made = torch.cat([batch[place][0] for batch in batches])
        read = read_layer(tmp_path, *place, ids)
        assert read.example_ids == tuple(ids)
        assert read.tokens.dtype == torch.float32
        assert torch.equal(read.tokens, made.bfloat16().float())
        assert read.exists.all()
        some = read_layer(tmp_path, *place, [ids[i] for i in order])
        assert some.example_ids == tuple(ids[i] for i in order)
        assert torch.equal(some.tokens, made[order].bfloat16().float())
    assert read_layer(tmp_path, "visual", 2).example_ids == tuple(sorted(ids))


def test_images_have_their_own_number_of_tokens(vlm, examples, tmp_path, ragged):
    write_states(vlm, examples[:5], tmp_path, "one")
    ids = [example.example_id for example in examples[:5]]
    for place, (tokens, exists) in states_of(vlm, examples[:5], ragged).items():
        if place not in PLACES:
            continue
        assert exists.sum(-1).unique().numel() > 3
        expected = torch.where(exists[..., None], tokens, 0.0).bfloat16().float()
        read = read_layer(tmp_path, *place, ids)
        assert torch.equal(read.exists, exists)
        assert torch.equal(read.tokens.isnan(), expected.isnan())
        assert read.tokens.isnan().any() == (place == ("visual", 1))
        assert torch.equal(read.tokens.nan_to_num(), expected.nan_to_num())
    assert not read_layer(tmp_path, "text", 1, ids).exists[4].any()


def test_states_of_every_size_are_kept(vlm, examples, tmp_path, monkeypatch):
    sizes = torch.tensor([0.0, -0.0, 1e-38, -3e38, 65536.0, 1.00390625, torch.inf, -2.5e-5])

    def made(vlm, images, take):
        for layer in range(3):
            tokens = sizes.expand(len(images), 2, -1) * (1 - 2 * layer)
            take(("visual", layer), tokens, torch.ones(len(images), 2, dtype=torch.bool))

    monkeypatch.setattr(store, "visit", made)
    write_states(vlm, examples[:2], tmp_path, "one")
    read = read_layer(tmp_path, "visual", 0).tokens
    expected = sizes.bfloat16().float().expand_as(read)
    assert torch.equal(read.view(torch.int32), expected.contiguous().view(torch.int32))


def test_other_parquet_readers_can_read_it(vlm, examples, tmp_path):
    write_all(vlm, examples, tmp_path)
    data = pyarrow.dataset.dataset(list(tmp_path.glob("*.parquet")), format="parquet")
    field = pyarrow.dataset.field
    rows = data.to_table(filter=(field("stream") == "text") & (field("layer") == 1)).to_pylist()
    assert {row["example_id"] for row in rows} == {example.example_id for example in examples}
    made = read_layer(tmp_path, "text", 1, [row["example_id"] for row in rows])
    for row, tokens in zip(rows, made.tokens, strict=True):
        bits = torch.frombuffer(bytearray(row["states"]), dtype=torch.bfloat16)
        assert torch.equal(bits.float().reshape(row["tokens"], row["width"]), tokens)
    groups = [parts.pq.read_metadata(f).num_row_groups for f in tmp_path.glob("*.parquet")]
    assert groups == [len(PLACES)] * 3  # one stretch a layer


def test_what_is_there_is_not_computed_again(vlm, examples, tmp_path, passes):
    write_all(vlm, examples[:6], tmp_path, batch=3)
    before = contents(tmp_path)
    assert passes == [3, 3]
    assert write_all(vlm, examples[:6], tmp_path, batch=3) == 0
    assert write_all(vlm, examples[:6], tmp_path, batch=2) == 0
    assert passes == [3, 3]
    assert contents(tmp_path) == before
    # Another batch size: only the images that are not there go through the model.
    assert write_states(vlm, examples[4:9], tmp_path, "one") == 3 * len(PLACES)
    assert passes == [3, 3, 3]
    assert contents(tmp_path).items() > before.items()
    assert write_states(vlm, [examples[9], examples[9]], tmp_path, "one") == len(PLACES)
    assert len(read_layer(tmp_path, "text", 2).example_ids) == 10


def test_a_killed_run_goes_on_where_it_was(vlm, examples, tmp_path, passes, monkeypatch):
    write_all(vlm, examples, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    del passes[:]

    left = 1 * len(PLACES) + 3  # killed in the middle of the second batch
    write = parts.PartWriter.write

    def killed(*args):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(parts.PartWriter, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            write_all(vlm, examples, tmp_path / "cut")
    assert passes == [4, 4]
    assert len(read_layer(tmp_path / "cut", "visual", 0).example_ids) == 4
    with pytest.raises(DataError, match="no states of 4 images, such as scenes/4"):
        read_layer(tmp_path / "cut", "visual", 0, [e.example_id for e in examples[2:8]])
    assert write_all(vlm, examples, tmp_path / "cut") == 8 * len(PLACES)
    assert passes == [4, 4, 4, 4]
    assert contents(tmp_path / "cut") == whole


@pytest.mark.parametrize("kept", [0, 1, 5000, -1, -9])
def test_a_cut_off_file_is_made_anew(vlm, examples, tmp_path, passes, caplog, kept):
    write_all(vlm, examples, tmp_path)
    whole = contents(tmp_path)
    file = sorted(tmp_path.glob("*.parquet"))[1]
    file.write_bytes(whole[file.name][:kept])
    assert damaged_parts(tmp_path) == [file]
    with pytest.raises(DataError, match=file.name):
        read_layer(tmp_path, "visual", 1)
    del passes[:]
    with caplog.at_level(logging.WARNING):
        assert write_all(vlm, examples, tmp_path) == 4 * len(PLACES)
    assert passes == [4]
    assert file.name in caplog.text
    assert damaged_parts(tmp_path) == []
    assert contents(tmp_path) == whole


def test_changed_bytes_are_not_read_as_states(vlm, examples, tmp_path):
    write_states(vlm, examples[:4], tmp_path, "one")
    (file,) = tmp_path.glob("*.parquet")
    content = bytearray(file.read_bytes())
    group = parts.pq.read_metadata(file).row_group(4)
    column = group.column(group.num_columns - 1)
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=file.name):
        read_layer(tmp_path, "visual", 2)  # the fifth that the model hands over
    for place in PLACES:
        if place != ("visual", 2):
            assert read_layer(tmp_path, *place).exists.all()
    file.unlink()
    assert write_states(vlm, examples[:4], tmp_path, "one") == 4 * len(PLACES)
    assert read_layer(tmp_path, "visual", 2).exists.all()


def test_a_folder_holds_one_models_states(vlm, examples, tmp_path, monkeypatch):
    write_states(vlm, examples[:2], tmp_path, "one")
    before = contents(tmp_path)
    with pytest.raises(DataError, match="another model") as error:
        write_states(vlm, examples[2:4], tmp_path, "two")
    assert "'one'" in str(error.value)
    assert "'two'" in str(error.value)
    with pytest.raises(DataError, match="another streams"):
        write_states(vlm, examples[2:4], tmp_path, "one", streams=("visual",))
    monkeypatch.setattr(store, "PROMPT", "what is this ?")
    with pytest.raises(DataError, match="another prompt"):
        write_states(vlm, examples[2:4], tmp_path, "one")
    assert contents(tmp_path) == before
    assert json.loads(before["store.json"])["model"] == "one"


def test_the_files_of_others_are_left_alone(vlm, examples, tmp_path):
    (tmp_path / "examples.parquet").write_bytes(b"not ours")
    write_states(vlm, examples[:2], tmp_path, "one")
    assert damaged_parts(tmp_path) == []
    assert len(read_layer(tmp_path, "visual", 0).example_ids) == 2
    assert (tmp_path / "examples.parquet").read_bytes() == b"not ours"
    ours = next(tmp_path.glob("states-*.parquet"))
    parts.pq.write_table(parts.pa.table({"a": [1]}), ours)  # whole, but of something else
    assert damaged_parts(tmp_path) == [ours]


def test_only_the_streams_that_are_asked_for(vlm, examples, tmp_path):
    assert write_states(vlm, examples[:2], tmp_path, "one", ("vision", "pixels")) == 4
    assert layers_of(tmp_path) == [("pixels", -1), ("vision", -1)]
    pixels = read_layer(tmp_path, "pixels", -1).tokens
    assert 0 <= pixels.min() < pixels.max() <= 1


def test_what_is_not_there_is_named(vlm, examples, tmp_path):
    for empty in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="no hidden states"):
            layers_of(empty)
        with pytest.raises(DataError, match="no hidden states"):
            read_layer(empty, "visual", 0)
    write_states(vlm, examples[:2], tmp_path, "one")
    with pytest.raises(DataError, match="no stream 'visual' with layer 3"):
        read_layer(tmp_path, "visual", 3)
    with pytest.raises(DataError, match="such as scenes/9"):
        read_layer(tmp_path, "visual", 0, ["scenes/0", "scenes/9"])


@pytest.mark.parametrize(("images", "batch"), [(12, 12), (12, 5), (1, 1)])
@pytest.mark.parametrize("streams", [("visual", "text"), ("vision",)])
def test_the_estimate_is_near_the_size_on_disk(vlm, examples, tmp_path, images, batch, streams):
    for first in range(0, images, batch):
        write_states(vlm, examples[first : min(first + batch, images)], tmp_path, "one", streams)
    real = sum(file.stat().st_size for file in tmp_path.glob("*.parquet"))
    estimate = store_bytes(vlm, images, examples[0].image, streams, batch)
    assert estimate == pytest.approx(real, rel=0.02)
    states = images * (2 * 32 * 3 * (64 + 4) if "text" in streams else 2 * 32 * 64)
    rows = images * (len(PLACES) if "text" in streams else 1)
    # Nothing smaller holds them, and the rest is little even beside states as small as these.
    assert states < real < states + 120 * rows + 6000 * len(list(tmp_path.glob("*.parquet")))


def test_a_store_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    asked = []

    def usage(path):
        asked.append(path)
        return SimpleNamespace(free=1000)

    monkeypatch.setattr(store.shutil, "disk_usage", usage)
    deep = tmp_path / "not" / "yet"
    check_room(deep, 1000)
    with pytest.raises(ResourceError, match=r"1,000 bytes free.* 1,001 bytes"):
        check_room(deep, 1001)
    assert set(asked) == {tmp_path}
    (tmp_path / "states-0.parquet").write_bytes(bytes(300))
    check_room(tmp_path, 1300)  # what is there is not written again
    with pytest.raises(ResourceError, match="1,001 bytes"):
        check_room(tmp_path, 1301)


def test_a_disk_that_fills_up_is_said_clearly(vlm, examples, tmp_path):
    write_states(vlm, examples[:2], tmp_path, "one")
    write_states(vlm, examples[2:4], tmp_path / "other", "one")
    (file,) = (tmp_path / "other").glob("*.parquet")
    shutil.rmtree(tmp_path / "other")
    before = contents(tmp_path)
    (tmp_path / f"{file.stem}.unfinished").symlink_to("/dev/full")  # any write fails
    with pytest.raises(ResourceError, match="No space left"):
        write_states(vlm, examples[2:4], tmp_path, "one")
    assert contents(tmp_path) == before
    assert write_states(vlm, examples[2:4], tmp_path, "one") == 2 * len(PLACES)


def test_one_layer_is_in_memory_at_a_time(vlm, examples, tmp_path, monkeypatch):
    alive = []

    def layers(vlm, images, take):
        for layer in range(5):
            assert not [one for one in alive if one() is not None]
            tokens = torch.full((len(images), 3, 4), float(layer))
            alive.append(weakref.ref(tokens.untyped_storage()))
            take(("visual", layer), tokens, torch.ones(len(images), 3, dtype=torch.bool))
            del tokens

    monkeypatch.setattr(store, "visit", layers)
    assert write_states(vlm, examples, tmp_path, "one") == 5 * IMAGES
    assert len(alive) == 5
    assert read_layer(tmp_path, "visual", 4).tokens.unique().tolist() == [4.0]


MEMORY = """
import sys
from pathlib import Path
import torch
from mixlens.activations import store
from mixlens.sources import Example

def layers(vllm, images, take):
    for layer in range(4):
        tokens = torch.ones(len(images), 64, 512)
        take(("visual", layer), tokens, torch.ones(len(images), 64, dtype=torch.bool))

store.visit = layers
directory, batches = Path(sys.argv[1]), int(sys.argv[2])

def write(first, last):
    for batch in range(first, last):
        images = [Example(f"a/{batch}/{i}", "a", b"", (), {}) for i in range(16)]
        assert store.write_states(None, images, directory, "one") == 64

def peak():  # getrusage begins with that of the parent, and would not see what stays below it
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

write(0, 5)  # pools and caches are filled
before = peak()
write(5, 5 + batches)
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path), "75"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    written = sum(file.stat().st_size for file in tmp_path.glob("*.parquet")) / 2**20
    assert written > 300  # MiB
    assert int(done.stdout) / 2**10 < 0.05 * written


def test_an_image_may_be_an_encoded_file(vlm, examples, tmp_path):
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.fromarray(examples[0].image).save(file, "png")
    write_states(vlm, [examples[0]], tmp_path / "pixels", "one")
    write_states(vlm, [replace(examples[0], image=file.getvalue())], tmp_path / "file", "one")
    first, second = (read_layer(tmp_path / name, "visual", 2).tokens for name in ("pixels", "file"))
    assert torch.equal(first, second)
