"""Held-out images are decoded when the index is made."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from coco_set import make_coco_set
from PIL import Image

from mixlens.sources import open_source
from mixlens.sources.coco.build import build_index
from mixlens.sources.pixels import decode
from mixlens.spec import HELD_OUT_START, CocoComponent, CocoSpec


def broken_inside(file: Path, seed: int) -> None:
    """A PNG of the same size with a sound beginning and end, and garbage between."""
    size = Image.open(file).size
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    file.write_bytes(data)


def test_a_held_out_image_that_does_not_decode_is_left_out_before_anything_runs(tmp_path):
    made = make_coco_set(tmp_path / "set", train=12, held_out=12, faults=False)
    truths = [truth for (split, _), truth in made.truth.items() if split == "held_out"]
    train = next(truth for (split, _), truth in made.truth.items() if split == "train")
    bad = truths[3]
    broken_inside(made.root / "val2017" / bad.file_name, seed=0)
    broken_inside(made.root / "train2017" / train.file_name, seed=1)
    data = CocoSpec.model_validate({**made.data, "max_left_out": 0.2})

    stages = []
    data = build_index("coco", data, tmp_path / "indexes", lambda *told: stages.append(told))

    told = pq.read_table(Path(data.index) / "left_out.parquet").to_pylist()
    told = [row for row in told if row["outcome"] == "left_out"]
    assert [(row["split"], row["image_id"], row["reason"]) for row in told] == [
        ("held_out", bad.image_id, "undecodable")  # the training image is replaced when drawn
    ]
    assert ("decode held-out", 12, 12) in stages
    component = CocoComponent(kind="coco", data="coco", tasks={"coarse": 1, "locate": 1})
    source = open_source("photos", component, {"coco": data})
    assert 0 < source.held_out_size < 12
    for place in range(source.held_out_size):
        assert source.file_name(HELD_OUT_START + place) != bad.file_name
        decode(source.example(HELD_OUT_START + place).image)
