"""A finite source of encoded images, some of which are damaged, in place of a data set on disk."""

import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixlens.mixture import batches, decoding, order
from mixlens.sources import Example, open_source
from mixlens.spec import (
    CocoComponent,
    CocoFiles,
    CocoSpec,
    RunSpec,
    SceneComponent,
    SceneSpec,
    SizeRange,
    TrainingSpec,
)


@dataclass
class Photos:
    """Image i is grey of value i; a truncated one has half of its bytes, a gone one none."""

    name: str
    size: int
    truncated: Collection[int] = ()
    gone: Collection[int] = ()
    is_remote: bool = False
    is_replaceable: bool = True

    def example(self, index: int) -> Example:
        assert 0 <= index < self.size
        file = io.BytesIO()
        Image.fromarray(np.full((8, 12, 3), index, np.uint8)).save(file, format="PNG")
        data = file.getvalue()
        if index in self.truncated:
            data = data[: len(data) // 2]
        elif index in self.gone:
            data = b""
        return Example(f"{self.name}/{index}", self.name, data, (), {"index": index})

    def file_name(self, index: int) -> str:
        return f"{index:03d}.png"


def photo_run(max_left_out: float = 0.02, **training: Any) -> RunSpec:
    """Half scenes, half photographs: those at odd positions."""
    large = SizeRange(name="large", diameter=(0.3, 0.4))
    scene = SceneSpec(image_size=32, objects=(1, 2), sizes=(large,))
    files = CocoFiles(annotations="instances.json")
    return RunSpec(
        model="none",
        data={"street": CocoSpec(root="street-root", train=files, max_left_out=max_left_out)},
        components={
            "photos": CocoComponent(kind="coco", data="street", tasks={"coarse": 1}),
            "scenes": SceneComponent(scene=scene, tasks={"coarse": 1}),
        },
        weights={"photos": 0.5, "scenes": 0.5},
        seed=3,
        training=TrainingSpec(**{"steps": 10, "global_batch": 8, "micro_batch": 2, **training}),
    )


def serve(patch: pytest.MonkeyPatch, photos: Photos) -> Photos:
    """Let every component of photographs draw from `photos`."""

    def opened(name, spec, data=None):
        if spec.kind == "synthetic":
            return open_source(name, spec)
        assert data is not None
        assert spec.data in data
        return photos

    for module in (batches, decoding, order):
        patch.setattr(module, "open_source", opened)
    return photos
