"""Photographs of a size that a model cannot be given."""

import io
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pytest
from photo_cases import Photos, photo_run, serve
from PIL import Image

from mixlens.errors import DataError
from mixlens.mixture.decoding import Decoder
from mixlens.mixture.local import LocalStream
from mixlens.mixture.order import order_of
from mixlens.mixture.refused import held_out_taken, refused
from mixlens.sources import Example
from mixlens.spec import HELD_OUT_START

pytestmark = pytest.mark.case

SIZES = np.array([[60, 80], [10, 2500], [60, 80], [2, 500], [80, 60]])


class Sized:
    """A source that knows sizes alone: the same for training and held out."""

    def sizes(self, held_out: bool):
        return SIZES

    def file_name(self, index: int) -> str:
        return f"{index % HELD_OUT_START}.jpg"


@dataclass
class Wide(Photos):
    """Some of its images are far wider than high."""

    wide: Collection[int] = ()

    def example(self, index: int) -> Example:
        example = super().example(index)
        if index not in self.wide:
            return example
        file = io.BytesIO()
        Image.fromarray(np.zeros((20, 4020, 3), np.uint8)).save(file, format="PNG")
        return replace(example, image=file.getvalue())


def collate(examples):
    assert all(too_wide(*example.image.shape[:2]) is None for example in examples)
    return {}


def too_wide(height: int, width: int) -> str | None:
    return f"too wide by {width // height}" if width > 200 * height else None


def test_they_are_known_from_the_index_and_each_size_is_asked_once():
    asked = []

    def refuses(height: int, width: int) -> str | None:
        asked.append((height, width))
        return too_wide(height, width)

    assert refused(Sized(), refuses) == {
        1: "1.jpg (2500 x 10: too wide by 250)",
        3: "3.jpg (500 x 2: too wide by 250)",
    }
    assert sorted(asked) == [(2, 500), (10, 2500), (60, 80), (80, 60)]
    assert list(refused(Sized(), too_wide, held_out=True)) == [
        HELD_OUT_START + 1,
        HELD_OUT_START + 3,
    ]


def test_held_out_are_the_first_that_the_model_takes():
    assert held_out_taken(Sized(), too_wide, 3) == [HELD_OUT_START + i for i in (0, 2, 4)]
    assert held_out_taken(Sized(), lambda height, width: None, 3) == [
        HELD_OUT_START + i for i in range(3)
    ]


def test_in_training_another_comes_in_its_place(monkeypatch: pytest.MonkeyPatch):
    photos = serve(monkeypatch, Wide("photos", 20, wide={3, 13}))
    run = photo_run()
    wanted = {order_of(run).at(p): p for p in range(80)}
    streams = [
        [micro for step in LocalStream(run, rank, workers, collate, too_wide).steps(0, 10)
         for micro in step]
        for workers in (1, 2) for rank in range(workers)
    ]  # fmt: skip
    replaced = [[r for micro in stream for r in micro.replaced] for stream in streams]
    assert {(r.example_id, r.instead) for r in replaced[0]} == {
        ("photos/3", "photos/14"),
        ("photos/13", "photos/4"),  # 13 + 10 is 3, which is wide too
    }
    first = next(r for r in replaced[0] if r.example_id == "photos/3")
    assert first.position <= wanted["photos", 3]
    assert first.detail == (
        "003.png: 4020 x 20 pixels: the model cannot be given it: too wide by 201; "
        "013.png: 4020 x 20 pixels: the model cannot be given it: too wide by 201"
    )
    assert sorted(replaced[1] + replaced[2], key=lambda r: r.position) == replaced[0]
    with pytest.raises(DataError, match=r"003\.png.*none can be used"):
        Decoder(run, lambda height, width: "no")([first.position], [photos.example(3)])
