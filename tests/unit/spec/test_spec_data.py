"""Data sets and components of photographs in sweep files."""

from pathlib import Path

import pytest
import yaml

from mixlens.design import load_measure
from mixlens.errors import SpecError
from mixlens.spec import MeasureSpec, held_out_of, load_spec, transfer_of
from mixlens.spec.held_out import used_data

FILE = {
    "name": "photos",
    "data": {
        "coco": {"root": "s3://bucket/coco", "train": {"annotations": "a.json"}, "held_out": 0.2},
        "other": {"root": "/other", "train": {"annotations": "b.json"}},
    },
    "components": {
        "photos": {"kind": "coco", "data": "coco", "tasks": {"coarse": 1}},
        "scenes": {"tasks": {"coarse": 1}},
    },
    "evaluation": {"component": "photos", "examples": 16, "transfer": "scenes"},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "photos.yaml"
    path.write_text(yaml.safe_dump(FILE))
    return path


def test_held_out_images_come_with_their_data_set_alone(file):
    spec = load_measure(file)
    assert set(held_out_of(spec).data) == {"coco"}
    assert transfer_of(spec).data == {}
    assert set(used_data(spec, ["photos", "scenes"])) == {"coco"}


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.coco.root=s3://key:secret@bucket/coco", ["data.coco.root", "password"]),
        ("data.coco.root=", ["data.coco.root"]),
        ("data.coco.held_out=1.0", ["data.coco.held_out", "share"]),
        ("data.coco.held_out=0.0", ["data.coco.held_out", "share"]),
        ("data.coco.max_left_out=2", ["data.coco.max_left_out"]),
        ("data.coco.folder=x", ["data.coco.folder", "unknown key"]),
        ("data.coco.train={images: x}", ["data.coco.train.annotations", "missing"]),
        ("components.photos.data=coc", ["components.photos.data", "coc", "coco, other"]),
        ("components.photos.kind=imagenet", ["components.photos", "synthetic", "coco"]),
        ("components.photos.scene={}", ["components.photos.scene", "unknown key"]),
        ("components.photos.tasks={pair: 1}", ["components.photos.tasks", "pairs"]),
        ("components.photos.tasks={coarse: 99}", ["tasks.coarse", "99", "1 to 32"]),
        ("components.photos.strata={object_count: [0.5, 0.5]}", ["strata", "quantiles"]),
        ("components.photos.strata={object_count: [0.5, 1.5]}", ["strata", "0 to 1"]),
        ("components.scenes.strata={object_count: [0, 1]}", ["scenes.strata", "unknown key"]),
        ("evaluation.transfer=scene", ["evaluation.transfer", "scene", "photos, scenes"]),
    ],
)
def test_what_cannot_be_is_named_with_its_place(file, override, named):
    with pytest.raises(SpecError) as caught:
        load_spec(MeasureSpec, file, [override])
    message = str(caught.value)
    for part in named:
        assert part in message, message
    assert "tagged-union" not in message
    assert "function-" not in message


def test_the_digest_knows_the_data_and_not_where_they_are(file):
    spec = load_measure(file)

    def with_coco(**changes) -> str:
        coco = spec.data["coco"].model_copy(update=changes)
        return held_out_of(spec.model_copy(update={"data": {**spec.data, "coco": coco}})).digest()

    own = held_out_of(spec).digest()
    assert with_coco(root="/elsewhere", index="/runs/indexes/x") == own
    assert with_coco(max_left_out=0.5) == own
    assert with_coco(fingerprint="0123456789abcdef") != own
    assert held_out_of(load_measure(file, ["components.photos.seed=1"])).digest() != own
