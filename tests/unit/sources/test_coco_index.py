"""The index of a data set: made once, the same bytes each time, and opened by many."""

import json
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from coco_set import CocoSet, make_coco_set
from coco_truth import read_coco, slow_attributes

from mixlens.errors import DataError, ResourceError
from mixlens.sources.coco import build as module
from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.index import RECORD, TABLES, CocoIndex, open_index
from mixlens.spec import CocoSpec
from mixlens.tasks.photo import QUESTION

SPLITS = ("train", "held_out")


def build(made: CocoSet, indexes: Path, told: list | None = None, **changes: object) -> CocoSpec:
    spec = CocoSpec.model_validate(made.data | changes)
    progress = (lambda *_: None) if told is None else (lambda *step: told.append(step))
    return build_index("photos", spec, indexes, progress)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CocoSet:
    return make_coco_set(tmp_path_factory.mktemp("coco"), train=10, held_out=5, faults=False)


@pytest.fixture(scope="module")
def built(made: CocoSet, tmp_path_factory: pytest.TempPathFactory) -> CocoSpec:
    return build(made, tmp_path_factory.mktemp("indexes"))


@pytest.fixture
def index(built: CocoSpec) -> CocoIndex:
    return open_index(Path(built.index))


def test_rows_are_in_the_order_of_the_files_training_images_first(made, index):
    listed = []
    for number, split in enumerate(SPLITS):
        path = made.root / made.data[split]["annotations"]
        listed += [(number, one["id"]) for one in json.loads(path.read_text())["images"]]
    assert list(zip(index.split.tolist(), index.image_id.tolist(), strict=True)) == listed
    assert len(index) == 15
    assert index.record["counts"]["images"] == {"train": 10, "held_out": 5}


def test_a_photo_is_what_its_annotations_say(made, index):
    asked = objects = 0
    for row, image_id in enumerate(index.image_id.tolist()):
        truth = made.truth[SPLITS[index.split[row]], image_id]
        photo = index.photo(row)
        assert (photo.width, photo.height) == (truth.width, truth.height)
        assert np.allclose(photo.boxes, truth.boxes, atol=0.02)
        assert photo.area.tolist() == list(truth.areas)
        assert photo.crowd.tolist() == list(truth.crowd)
        names = [index.categories.names[place] for place in photo.category]
        assert names == list(truth.categories)
        assert photo.captions == tuple(truth.captions)
        assert photo.questions.dtype == QUESTION
        assert (photo.questions["image"] == row).all()
        assert index.file_name(row) == truth.file_name
        assert (made.root / index.path(row)).is_file()
        asked, objects = asked + len(photo.questions), objects + len(photo.area)
    assert (asked, objects) == tuple(index.record["counts"][k] for k in ("questions", "objects"))
    assert asked > 0


def test_attributes_are_those_of_a_slow_reader(made, index):
    readers = [read_coco(made.root / made.data[split]["annotations"]) for split in SPLITS]
    for row, image_id in enumerate(index.image_id.tolist()):
        expected = slow_attributes(readers[index.split[row]], image_id)
        found = index.attributes(row)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            same = value == expected[name] if isinstance(value, str) else np.isclose(
                value, expected[name], atol=1e-6)  # fmt: skip
            assert same, (name, value, expected[name])
            assert index.attribute_columns[name][row] == value


def test_a_share_of_the_only_file_is_held_out(made, tmp_path):
    spec = build(made, tmp_path, held_out=0.4)
    index = open_index(Path(spec.index))
    assert sorted(index.split.tolist()) == index.split.tolist()
    assert 0 < index.split.sum() < len(index) == 10
    for row, image_id in enumerate(index.image_id.tolist()):
        truth = made.truth["train", image_id]
        assert index.photo(row).area.tolist() == list(truth.areas)
        assert index.photo(row).captions == tuple(truth.captions)


def test_the_same_input_gives_the_same_bytes(made, built, tmp_path):
    again = build(made, tmp_path)
    assert Path(again.index).name == Path(built.index).name
    for name in [*(f"{table}.arrow" for table in TABLES), "left_out.parquet"]:
        assert (Path(again.index) / name).read_bytes() == (Path(built.index) / name).read_bytes()
    one, other = (json.loads((Path(s.index) / RECORD).read_text()) for s in (again, built))
    assert one.pop("seconds").keys() == other.pop("seconds").keys()
    assert one == other


def test_an_index_of_the_same_content_is_used_again(made, built, monkeypatch):
    def never(*_):
        raise AssertionError("it is there already")

    monkeypatch.setattr(module, "inspect", never)
    assert build(made, Path(built.index).parent) == built


def test_what_decides_makes_another_index_and_other_files_do_not(made, built, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(made.root, copy)
    names = {Path(built.index).name}
    (copy / made.data["train"]["images"] / "notes.txt").write_text("no image")
    assert build(made, tmp_path / "a", root=str(copy)).fingerprint == built.fingerprint
    for share in (0.4, 0.5):
        names.add(Path(build(made, tmp_path / "a", root=str(copy), held_out=share).index).name)
    captions = copy / made.data["train"]["captions"]
    captions.write_text(captions.read_text() + " ")
    names.add(Path(build(made, tmp_path / "a", root=str(copy)).index).name)
    image = next((copy / made.data["train"]["images"]).glob("*.jpg"))
    image.write_bytes(image.read_bytes() + b"\xff\xd9")
    names.add(Path(build(made, tmp_path / "a", root=str(copy)).index).name)
    assert len(names) == 5


def test_an_unfinished_index_is_made_anew(made, built, tmp_path):
    folder = tmp_path / Path(built.index).name
    folder.mkdir()
    (folder / "images.arrow").write_bytes(b"half of")
    with pytest.raises(DataError, match=r"record\.json"):
        open_index(folder)
    spec = build(made, tmp_path)
    assert spec.index == str(folder)
    assert len(open_index(folder)) == 15
    assert [entry.name for entry in tmp_path.iterdir()] == [folder.name]


def test_nothing_stays_of_an_index_that_failed(made, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(module, "write_tables", fail)
    with pytest.raises(ResourceError, match=r"runs_dir.*no space"):
        build(made, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_one_that_comes_second_uses_what_the_first_made(made, tmp_path, monkeypatch):
    """Another process finishes while this one writes."""
    slow = module.write_tables
    inode = []

    def late(folder: Path, *arguments):
        monkeypatch.setattr(module, "write_tables", slow)
        other = build(made, tmp_path)
        inode.append((Path(other.index) / RECORD).stat().st_ino)
        return slow(folder, *arguments)

    monkeypatch.setattr(module, "write_tables", late)
    spec = build(made, tmp_path)
    assert (Path(spec.index) / RECORD).stat().st_ino == inode[0]
    assert len(list(tmp_path.iterdir())) == 1


def _rows(index: CocoIndex) -> list[list[float]]:
    return [index.photo(row).area.tolist() for row in range(len(index))]


def test_other_processes_open_it_by_its_folder(index):
    data = pickle.dumps(index)
    assert len(data) < 1000
    assert pickle.loads(data) is index
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(_rows, index).result() == _rows(index)


def test_progress_is_told_to_the_end_of_each_stage(made, tmp_path):
    told: list[tuple[str, int, int]] = []
    build(made, tmp_path, told)
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == [
        "read", "inspect", "decode held-out", "annotations", "masks", "questions"
    ]  # fmt: skip
    for stage in stages:
        steps = [(done, of) for name, done, of in told if name == stage]
        assert steps == sorted(steps)
        assert steps[-1][0] == steps[-1][1] > 0


def test_a_name_that_leads_to_a_neighbouring_folder_is_found(made, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(made.root, root)
    path = root / made.data["train"]["annotations"]
    document = json.loads(path.read_text())
    (root / "more").mkdir()
    moved = document["images"][0]
    source = root / made.data["train"]["images"] / moved["file_name"]
    source.rename(root / "more/moved.jpg")
    moved["file_name"] = "../more/moved.jpg"
    path.write_text(json.dumps(document))
    index = open_index(Path(build(made, tmp_path / "indexes", root=str(root)).index))
    assert index.path(0) == "more/moved.jpg"
    assert {row["outcome"] for row in index.record["left_out"]} <= {"region"}


def test_a_split_without_images_is_refused_and_told_where_they_went(made, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(made.root, root)
    shutil.rmtree(root / made.data["held_out"]["images"])
    (root / made.data["held_out"]["images"]).mkdir()
    with pytest.raises(DataError, match=r"photos\.held_out.*missing_file 5 \(image \d+") as refused:
        build(made, tmp_path / "indexes", root=str(root), max_left_out=1.0)
    (table,) = (tmp_path / "indexes").iterdir()
    assert str(table) in str(refused.value)
    assert set(pq.read_table(table)["reason"].to_pylist()) == {"missing_file"}


def test_the_limit_holds_for_an_index_that_is_there_too(made, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(made.root, root)
    next((root / made.data["train"]["images"]).iterdir()).unlink()
    build(made, tmp_path / "indexes", root=str(root), max_left_out=0.1)
    with pytest.raises(DataError, match=r"photos\.max_left_out.*0\.09.*1 of 10 images"):
        build(made, tmp_path / "indexes", root=str(root), max_left_out=0.09)
