"""A photograph that turns out to be damaged is replaced, the same way for any workers."""

import threading

import numpy as np
import pytest
import torch
from photo_cases import Photos, photo_run, serve

from mixlens.errors import DataError
from mixlens.mixture.batches import Reader
from mixlens.mixture.decoding import ATTEMPTS, Decoder
from mixlens.mixture.local import LocalStream
from mixlens.mixture.order import order_of
from mixlens.spec import RunSpec

SIZE = 20
TRUNCATED, GONE = {3, 14, 15}, {7}


@pytest.fixture
def photos(monkeypatch: pytest.MonkeyPatch) -> Photos:
    return serve(monkeypatch, Photos("photos", SIZE, TRUNCATED, GONE))


def collate(examples):
    assert all(isinstance(example.image, np.ndarray) for example in examples)
    return {"grey": torch.tensor([int(example.image[0, 0, 0]) for example in examples])}


def read(run: RunSpec, world_size: int, first: int, last: int):
    """(position, id, grey) and replacements of all steps, over all ranks."""
    rows, replaced = [], []
    for rank in range(world_size):
        for step in LocalStream(run, rank, world_size, collate).steps(first, last):
            for micro in step:
                grey = micro.tensors["grey"].tolist()
                rows += zip(micro.positions, micro.example_ids, grey, strict=True)
                replaced += micro.replaced
    return sorted(rows), sorted(replaced, key=lambda one: one.position)


def due(run: RunSpec, first: int, last: int) -> dict[int, int]:
    """Position -> index of the photographs of some steps."""
    batch, order = run.training.global_batch, order_of(run)
    entries = {p: order.at(p) for p in range(first * batch, last * batch)}
    return {p: index for p, (name, index) in entries.items() if name == "photos"}


def test_damaged_photographs_are_replaced_by_others_of_their_component(photos: Photos):
    run = photo_run()
    rows, replaced = read(run, 1, 0, 10)
    wanted = due(run, 0, 10)
    assert len(wanted) == 40
    # Two epochs of 20, so each damaged image twice. 3 -> 13, 7 -> 17, 14 -> 4, 15 -> 5.
    stand_in = {3: 13, 7: 17, 14: 4, 15: 5}
    assert {(r.position, r.example_id, r.instead) for r in replaced} == {
        (p, f"photos/{i}", f"photos/{stand_in[i]}") for p, i in wanted.items() if i in stand_in
    }
    assert len(replaced) == 8
    used = {p: (f"photos/{stand_in.get(i, i)}", stand_in.get(i, i)) for p, i in wanted.items()}
    assert {p: (name, grey) for p, name, grey in rows if name.startswith("photos/")} == used
    assert [p for p, _, _ in rows] == list(range(80))  # nothing is lost


def test_a_replacement_says_what_was_wrong(photos: Photos):
    _, replaced = read(photo_run(), 1, 0, 10)
    by_id = {r.example_id: r for r in replaced}
    assert {r.data for r in replaced} == {"street"}
    assert by_id["photos/7"].file_name == "007.png"
    assert (
        by_id["photos/7"].detail
        == "007.png: unreadable: the file is gone, cannot be read, or is empty"
    )
    assert by_id["photos/3"].detail.startswith("003.png: ")
    assert "gone" not in by_id["photos/3"].detail


def test_any_number_of_workers_and_a_resume_replace_the_same(photos: Photos):
    run = photo_run()
    whole = read(run, 1, 0, 10)
    for world_size in (2, 4):
        assert read(run, world_size, 0, 10) == whole
    rows, replaced = whole
    assert read(run, 2, 4, 10) == (rows[32:], [r for r in replaced if r.position >= 32])


def test_the_next_is_tried_when_the_replacement_is_damaged_too(monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, Photos("photos", SIZE, truncated={3, 13}, gone={14}))
    _, replaced = read(photo_run(), 1, 0, 5)
    instead = {r.example_id: (r.instead, r.detail) for r in replaced}
    assert instead["photos/3"][0] == "photos/15"
    assert [part.partition(": ")[0] for part in instead["photos/3"][1].split("; ")] == [
        "003.png", "013.png", "014.png",
    ]  # fmt: skip
    assert instead["photos/13"][0] == "photos/4"  # wraps around: 13 + 10 + 1 attempt past 3
    assert instead["photos/14"][0] == "photos/4"


@pytest.mark.parametrize(("sound", "is_enough"), [(35, True), (36, False)])
def test_sixteen_are_tried(monkeypatch: pytest.MonkeyPatch, sound: int, is_enough: bool):
    photos = serve(monkeypatch, Photos("photos", 40, gone=set(range(40)) - {sound}))
    run = photo_run()
    position = next(p for p, i in due(run, 0, 10).items() if i == 0)  # tried: 20 to 35
    assert ATTEMPTS == 16
    decode = Decoder(run)
    if is_enough:
        (example,), (replaced,) = decode([position], [photos.example(0)])
        assert example.example_id == replaced.instead == "photos/35"
        return
    with pytest.raises(DataError, match=r"data\.street: got '000\.png': .*16.*street-root"):
        decode([position], [photos.example(0)])


def test_the_error_reaches_the_step_that_needs_the_image(monkeypatch: pytest.MonkeyPatch):
    serve(monkeypatch, Photos("photos", 5, gone=range(5)))
    with pytest.raises(DataError, match=r"data\.street"):
        next(LocalStream(photo_run(), 0, 1, collate).steps(0, 1))


def test_a_file_that_goes_away_in_the_middle_is_replaced(photos: Photos):
    run = photo_run()
    position = next(p for p, i in due(run, 5, 10).items() if i == 11)
    steps = LocalStream(run, 0, 1, collate).steps(0, 10)
    next(steps)
    photos.gone = {*photos.gone, 11}
    replaced = [r for step in steps for micro in step for r in micro.replaced]
    assert (position, "photos/11", "photos/1") in [
        (r.position, r.example_id, r.instead) for r in replaced
    ]


def test_photographs_of_an_object_store_are_fetched_at_once(monkeypatch: pytest.MonkeyPatch):
    """Eight requests that wait for each other would hang one after the other."""
    together = threading.Barrier(8)

    class Store(Photos):
        def example(self, index):
            together.wait(timeout=10)
            return super().example(index)

    run = photo_run()
    local = serve(monkeypatch, Photos("photos", SIZE))
    positions = list(range(16))
    expected = Reader(run)(positions)
    assert local.is_remote is False
    serve(monkeypatch, Store("photos", SIZE, is_remote=True))
    examples = Reader(run)(positions)
    assert [e.example_id for e in examples] == [e.example_id for e in expected]
    assert [type(e.image) for e in examples] == [type(e.image) for e in expected]
