"""Real photographs with real annotations, where this machine has some (see tests/conftest.py)."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from coco_truth import read_coco, slow_attributes
from PIL import Image, ImageOps

from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.index import CocoIndex, open_index
from mixlens.sources.coco.source import CocoSource
from mixlens.spec import HELD_OUT_START, CocoComponent, CocoSpec
from mixlens.tasks.photo import PHOTO_GROUPS


@pytest.fixture(scope="module")
def annotations(coco_sample) -> Path:
    """The smallest instances file, so that a full COCO folder serves as well."""
    found = sorted(
        (coco_sample / "annotations").glob("instances_*.json"), key=lambda p: p.stat().st_size
    )
    return found[0]


@pytest.fixture(scope="module")
def spec(coco_sample, annotations, tmp_path_factory) -> CocoSpec:
    year = annotations.stem.removeprefix("instances_")
    images = next(name for name in ("images", year) if (coco_sample / name).is_dir())
    data = CocoSpec.model_validate(
        {
            "root": str(coco_sample),
            "train": {"annotations": f"annotations/{annotations.name}", "images": images},
            "held_out": 0.2,
        }
    )
    return build_index("sample", data, tmp_path_factory.mktemp("indexes"), lambda *_: None)


@pytest.fixture(scope="module")
def index(spec) -> CocoIndex:
    return open_index(Path(spec.index))


def gone(spec: CocoSpec, what: str) -> dict[int, str]:
    table = pq.read_table(Path(spec.index) / "left_out.parquet").to_pylist()
    name = "image_id" if what == "image" else "id"
    return {r[name]: r["reason"] for r in table if r["what"] == what and r["outcome"] == "left_out"}


def some_rows(index: CocoIndex) -> np.ndarray:
    every = np.arange(len(index.image_id))
    return every if len(every) <= 200 else np.random.default_rng(0).choice(every, 200, False)


def test_every_image_and_annotation_is_used_or_left_out_for_a_reason(spec, index, annotations):
    listed = json.loads(annotations.read_text())
    images, objects = gone(spec, "image"), gone(spec, "annotation")
    assert set(images) | set(index.image_id.tolist()) == {i["id"] for i in listed["images"]}
    assert not set(images) & set(index.image_id.tolist())
    used = sum(len(index.photo(row).category) for row in range(len(index.image_id)))
    with_image = [a for a in listed["annotations"] if a["image_id"] in images]
    assert used + len(objects) + len(with_image) == len(listed["annotations"])
    assert all(images.values())
    assert all(objects.values())
    assert len(images) <= 0.02 * len(listed["images"])
    assert len(objects) <= 0.02 * len(listed["annotations"])


def test_sizes_are_those_of_the_upright_pictures_and_boxes_lie_inside(coco_sample, index):
    for row in some_rows(index):
        photo = index.photo(row)
        with Image.open(coco_sample / index.path(row)) as image:
            assert ImageOps.exif_transpose(image).size == (photo.width, photo.height)
        x0, y0, x1, y1 = photo.boxes.T
        assert (x0 >= 0).all()
        assert (y0 >= 0).all()
        assert (x0 < x1).all()
        assert (y0 < y1).all()
        assert (x1 <= photo.width).all()
        assert (y1 <= photo.height).all()
        assert (photo.area > 0).all()


def test_attributes_are_those_of_a_slow_implementation(spec, index, annotations):
    coco = read_coco(annotations)
    without = frozenset(gone(spec, "annotation"))
    spread = set()
    for row in some_rows(index):
        slow = slow_attributes(coco, int(index.image_id[row]), without)
        fast = index.attributes(row)
        assert set(fast) == set(slow)
        for name, value in slow.items():
            if isinstance(value, str):
                assert fast[name] == value, (row, name)
            else:
                # Boxes are kept in single precision, and those written with two decimals are cut
                # off at the frame.
                assert fast[name] == pytest.approx(value, rel=1e-3, abs=2e-5), (row, name)
        spread.add((fast["object_count"], fast["dominant_supercategory"]))
    assert len(spread) > 5


def test_most_photographs_carry_questions_of_most_groups(spec, index):
    groups = [group for group in PHOTO_GROUPS if group not in ("caption", "pair")]
    component = CocoComponent(kind="coco", data="sample", tasks=dict.fromkeys(groups, 2))
    source = CocoSource("sample", component, spec)
    assert source.size + source.held_out_size >= 0.9 * len(index.image_id)
    assert source.held_out_size >= 1
    asked = dict.fromkeys(groups, 0)
    places = [*range(min(source.size, 150))]
    places += [HELD_OUT_START + i for i in range(min(source.held_out_size, 30))]
    for place in places:
        example = source.example(place)
        assert example.turns
        assert example.image
        for group in {turn.group for turn in example.turns}:
            asked[group] += 1
        for turn in example.turns:
            assert turn.question
            assert turn.answer
    assert all(count >= 0.1 * len(places) for count in asked.values()), asked
