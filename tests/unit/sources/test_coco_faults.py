"""Every kind of damage has its outcome: repaired, left out and written down, or refused."""

import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from coco_faults import FAULTS, UNREADABLE
from coco_set import CocoSet, make_coco_set, make_custom_set
from PIL import Image

from mixlens.errors import DataError
from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.index import CocoIndex, open_index
from mixlens.sources.files import Files
from mixlens.spec import CocoSpec

KEYS = ("split", "what", "outcome", "reason", "image_id", "id")
TESTS = Path(__file__).parents[2]
# What is no captions file either; the others are sound ones.
NO_CAPTIONS = ("empty", "cut", "text", "pointer", "binary", "nan", "list", "number",
               "no_annotations", "annotations_null", "surrogate")  # fmt: skip


def build(made: CocoSet, indexes: Path, **fields: object) -> CocoSpec:
    data = CocoSpec.model_validate(made.data | fields)
    return build_index("photos", data, indexes, lambda stage, done, units: None)


def left_out(spec: CocoSpec) -> list[dict]:
    return pq.read_table(Path(spec.index) / "left_out.parquet").to_pylist()


def rows(spec: CocoSpec) -> Counter:
    return Counter(tuple(row[key] for key in KEYS) for row in left_out(spec))


def used(index: CocoIndex) -> list[tuple[str, int]]:
    return [
        (("train", "held_out")[s], int(i)) for s, i in zip(index.split, index.image_id, strict=True)
    ]


def digests(made: CocoSet, index: CocoIndex) -> dict[int, set[str]]:
    """SHA-256 of the files of each split."""
    found: dict[int, set[str]] = {0: set(), 1: set()}
    for row, split in enumerate(index.split):
        data = (made.root / index.path(row)).read_bytes()
        found[int(split)].add(hashlib.sha256(data).hexdigest())
    return found


@pytest.fixture(scope="module")
def damaged(coco_set, tmp_path_factory) -> CocoSpec:
    return build(coco_set, tmp_path_factory.mktemp("indexes"))


def assert_truth(made: CocoSet, index: CocoIndex) -> None:
    """The index holds exactly the images that can be used, with what is known of them."""
    assert sorted(used(index)) == sorted(made.truth)
    names = index.categories.names
    for row, key in enumerate(used(index)):
        truth, photo = made.truth[key], index.photo(row)
        assert (photo.width, photo.height) == (truth.width, truth.height)
        assert index.file_name(row) == truth.file_name
        assert tuple(names[place] for place in photo.category) == truth.categories
        assert photo.crowd.tolist() == list(truth.crowd)
        assert photo.area.tolist() == list(truth.areas)
        np.testing.assert_allclose(
            photo.boxes, np.array(truth.boxes, np.float32).reshape(-1, 4), atol=0.02
        )
        assert Counter(photo.captions) == Counter(truth.captions)


def test_what_is_left_out_and_repaired_is_written_down_and_nothing_else(coco_set, damaged):
    assert rows(damaged) == Counter(coco_set.expected)


def test_everything_else_is_used_as_it_is(coco_set, damaged):
    assert_truth(coco_set, open_index(Path(damaged.index)))


def test_the_table_names_files_and_reasons_for_people(coco_set, damaged):
    table = left_out(damaged)
    listed = json.loads((coco_set.root / "annotations/instances_train2017.json").read_text())
    sound = [i for i in listed["images"] if isinstance(i, dict) and i.get("file_name")]
    names = {i["id"]: i["file_name"] for i in sound if "id" in i}
    for row in table:
        assert row["detail"].strip(), row
        assert "\n" not in row["detail"]
        assert len(row["detail"]) < 400, row
    of_images = [r for r in table if r["what"] == "image" and r["split"] == "train"]
    told = [r for r in of_images if r["image_id"] in names]
    assert len(told) > 20
    for row in told:
        if row["reason"] not in ("duplicate_id", "malformed"):
            assert row["file_name"] == names[row["image_id"]]


def test_the_data_set_holds_every_kind_of_image_and_mask(clean_coco_set):
    kinds: Counter = Counter()
    for path in sorted(clean_coco_set.root.glob("*2017/*")):
        with Image.open(path) as image:
            kinds |= Counter([image.format, image.mode, image.getexif().get(0x0112, 1)])
    assert set(kinds) == {"JPEG", "PNG", "RGB", "L", "CMYK", 1, 3, 6}
    listed = json.loads(clean_coco_set.files()[2].read_text())
    shapes = Counter(
        type(s["counts"]).__name__ if isinstance(s, dict) else len(s)
        for s in (a["segmentation"] for a in listed["annotations"])
    )
    assert set(shapes) == {"list", "str", 1, 2}  # crowds both ways; polygons of one and two parts
    assert any(not truth.categories for truth in clean_coco_set.truth.values())
    assert any(not truth.captions for truth in clean_coco_set.truth.values())


def test_sound_data_lose_nothing(clean_coco_set, tmp_path):
    spec = build(clean_coco_set, tmp_path)
    assert rows(spec) == Counter(clean_coco_set.expected)
    assert {row["outcome"] for row in left_out(spec)} == {"region"}
    assert_truth(clean_coco_set, open_index(Path(spec.index)))


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_alone_has_its_outcome(name, tmp_path):
    made = make_coco_set(tmp_path / "data/set", train=4, held_out=2, faults=[name])
    spec = build(made, tmp_path / "indexes", max_left_out=0.97)
    assert rows(spec) == Counter(made.expected)
    assert_truth(made, open_index(Path(spec.index)))
    assert made.expected  # the fault is there


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> CocoSet:
    return make_coco_set(tmp_path_factory.mktemp("tiny") / "set", 8, 4, faults=False)


UNUSABLE = [
    (name, field)
    for field in ("train.annotations", "held_out.annotations", "train.captions")
    for name in sorted(UNREADABLE)
    if field != "train.captions" or name in NO_CAPTIONS
]


@pytest.mark.parametrize(("name", "field"), UNUSABLE)
def test_a_file_that_cannot_be_used_is_refused_in_words(name, field, tiny, tmp_path):
    split, kind = field.split(".")
    path = f"annotations/{name}.json"
    (tiny.root / path).write_bytes(UNREADABLE[name])
    with pytest.raises(DataError) as refused:
        build(tiny, tmp_path, **{split: tiny.data[split] | {kind: path}})
    message = str(refused.value)
    assert field in message or path in message  # the field or, within the file, the place
    assert len(message) < 700
    assert message.endswith(".")  # the remedy
    assert not list(tmp_path.rglob("record.json"))


@pytest.mark.parametrize(
    ("field", "files"),
    [
        ("train.annotations", {"annotations": "annotations/instances_train2071.json"}),
        ("train.captions", {"captions": "annotations/captions_2017.json"}),
        ("images", {"images": "train2071"}),
    ],
)
def test_a_path_that_is_not_there_is_refused_with_what_is(field, files, tiny, tmp_path):
    with pytest.raises(DataError, match=re.escape(field)) as refused:
        build(tiny, tmp_path, train=tiny.data["train"] | files)
    assert next(iter(files.values())) in str(refused.value)
    assert "2017" in str(refused.value)


def test_a_root_that_is_not_there_is_refused(tiny, tmp_path):
    with pytest.raises(DataError, match="root"):
        build(tiny, tmp_path, root=str(tmp_path / "nowhere"))


def test_too_many_left_out_stop_the_run_and_tell_why_and_where(tmp_path):
    names = ["truncated", "missing_file", "empty_file"]
    made = make_coco_set(tmp_path / "data/set", 16, 8, faults=names)
    gone = sum(row[:3] == ("train", "image", "left_out") for row in made.expected)
    share = gone / (16 + gone)
    build(made, tmp_path / "indexes", max_left_out=share + 0.01)
    with pytest.raises(DataError) as refused:
        build(made, tmp_path / "stricter", max_left_out=share - 0.01)
    message = str(refused.value)
    assert "max_left_out" in message
    lost = [row for row in made.expected if row[0] == "train" and row[2] == "left_out"]
    for reason, count in Counter(row[3] for row in lost).items():
        assert re.search(rf"{reason} {count}\b", message), message
    first = next(row[4] for row in made.expected if row[3] == "truncated")
    assert str(first) in message
    (table,) = re.findall(r"\S*left_out\.parquet", message)
    read = pq.read_table(table).to_pylist()
    assert Counter(tuple(row[key] for key in KEYS) for row in read) == Counter(made.expected)


def test_too_many_annotations_left_out_stop_the_run_too(tmp_path):
    made = make_coco_set(tmp_path / "data/set", 8, 4, faults=["bad_mask"])
    with pytest.raises(DataError, match="max_left_out") as refused:
        build(made, tmp_path / "indexes", max_left_out=0.02)
    assert "bad_mask" in str(refused.value)
    assert "annotation" in str(refused.value)


def test_what_is_no_damage_does_not_count_as_left_out(tmp_path):
    names = ["held_out_in_train", "unlisted_image"]
    made = make_coco_set(tmp_path / "data/set", 8, 4, faults=names)
    spec = build(made, tmp_path / "indexes", max_left_out=0.0)
    assert rows(spec) == Counter(made.expected)


def test_the_index_is_the_same_bytes_whatever_the_order_of_threads(
    coco_set, damaged, tmp_path, monkeypatch
):
    chance, ends = random.Random(4), Files.ends

    def slowly(self, path, head, tail):
        time.sleep(chance.random() * 0.004)
        return ends(self, path, head, tail)

    monkeypatch.setattr(Files, "ends", slowly)
    again = build(coco_set, tmp_path)
    assert again.fingerprint == damaged.fingerprint
    names = {path.name for path in Path(again.index).iterdir()}
    assert {"images.arrow", "objects.arrow", "left_out.parquet", "record.json"} <= names
    for name in names - {"record.json"}:
        first, second = (Path(spec.index, name).read_bytes() for spec in (damaged, again))
        assert first == second, name


def test_the_same_data_elsewhere_have_the_same_index(tiny, tmp_path):
    here = build(tiny, tmp_path / "indexes")
    shutil.copytree(tiny.root, tmp_path / "moved")
    there = build(tiny, tmp_path / "others", root=str(tmp_path / "moved"))
    assert there.fingerprint == here.fingerprint
    assert Path(there.index, "images.arrow").read_bytes() == (
        Path(here.index, "images.arrow").read_bytes()
    )


def test_images_that_change_make_another_index(tiny, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(tiny.root, root)
    before = build(tiny, tmp_path / "indexes", root=str(root), max_left_out=0.5)
    path = next(iter(sorted((root / "train2017").iterdir())))
    path.write_bytes(path.read_bytes()[:-300])
    after = build(tiny, tmp_path / "indexes", root=str(root), max_left_out=0.5)
    assert after.fingerprint != before.fingerprint
    reasons = [row["reason"] for row in left_out(after) if row["outcome"] != "region"]
    assert reasons == ["truncated"]


def test_an_index_that_is_there_is_used_again(tiny, tmp_path, monkeypatch):
    first = build(tiny, tmp_path)
    record = Path(first.index, "record.json")
    written = record.stat().st_mtime_ns

    def never(*_):
        raise AssertionError("an image was opened again")

    monkeypatch.setattr(Files, "ends", never)
    assert build(tiny, tmp_path) == first
    assert record.stat().st_mtime_ns == written


def test_training_and_held_out_images_never_share_a_file(coco_set, damaged):
    found = digests(coco_set, open_index(Path(damaged.index)))
    assert found[0]
    assert found[1]
    assert not found[0] & found[1]


def test_copies_in_one_list_fall_on_one_side_of_a_split_by_share(tmp_path):
    made = make_custom_set(tmp_path / "set", images=40)
    labels = made.root / "labels.json"
    listed = json.loads(labels.read_text())
    for image in list(listed["images"]):
        name = f"pictures/{image['id']}_again.jpg"
        shutil.copy(made.root / image["file_name"], made.root / name)
        listed["images"].append(image | {"id": image["id"] + 10**6, "file_name": name})
    labels.write_text(json.dumps(listed))
    index = open_index(Path(build(made, tmp_path / "indexes").index))
    found = digests(made, index)
    assert found[1]
    assert not found[0] & found[1]
    assert len(index.split) == 80
    sides = dict(zip(index.image_id.tolist(), index.split.tolist(), strict=True))
    assert all(sides[i] == sides[i - 10**6] for i in sides if i > 10**6)


def test_a_split_by_share_stays_when_images_come_and_go(tmp_path):
    made = make_custom_set(tmp_path / "set", images=60)
    labels = made.root / "labels.json"
    listed = json.loads(labels.read_text())
    whole = open_index(Path(build(made, tmp_path / "indexes").index))
    assert_custom_truth(made, whole)
    random.Random(1).shuffle(listed["images"])
    labels.write_text(json.dumps(listed | {"images": listed["images"][:30]}))
    half = open_index(Path(build(made, tmp_path / "indexes").index))
    sides = dict(used_ids(whole))
    assert len(half.split) == 30
    assert all(sides[image_id] == side for image_id, side in used_ids(half))
    assert 4 <= (whole.split == 1).sum() <= 27  # 15 of 60 on average; 4 sd below and above


def used_ids(index: CocoIndex) -> list[tuple[int, int]]:
    return list(zip(index.image_id.tolist(), index.split.tolist(), strict=True))


def assert_custom_truth(made: CocoSet, index: CocoIndex) -> None:
    assert {i for i, _ in used_ids(index)} == {i for _, i in made.truth}
    for row, image_id in enumerate(index.image_id.tolist()):
        truth = made.truth["train", image_id]
        assert len(index.photo(row).category) == len(truth.categories)
        assert (made.root / index.path(row)).is_file()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"segmentation": {"size": [120, 160], "counts": "CAFE"}}, "bad_mask"),
        ({"iscrowd": "CAFE"}, "malformed"),
        ({"bbox": [1, 2, 3, "CAFE"]}, "malformed"),
    ],
)
def test_bytes_that_are_no_text_leave_one_record_out(fields, reason, tiny, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(tiny.root, root)
    path = root / "annotations/instances_train2017.json"
    listed = json.loads(path.read_text())
    listed["annotations"][0] |= fields
    path.write_bytes(json.dumps(listed).encode().replace(b"CAFE", b"caf\xe9"))
    table = left_out(build(tiny, tmp_path / "indexes", root=str(root), max_left_out=0.5))
    assert [row["reason"] for row in table if row["outcome"] != "region"] == [reason]


def test_no_record_is_taken_for_one_of_an_image_without_id(tiny, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(tiny.root, root)
    path = root / "annotations/instances_train2017.json"
    listed = json.loads(path.read_text())
    listed["images"] += [{"file_name": "a.jpg"}, {"id": False}]
    for image_id in (-1, 0):
        listed["annotations"].append(listed["annotations"][0] | {"id": 5, "image_id": image_id})
    path.write_text(json.dumps(listed))
    table = left_out(build(tiny, tmp_path / "indexes", root=str(root), max_left_out=0.5))
    table = [row for row in table if row["outcome"] != "region"]
    found = Counter((row["what"], row["reason"], row["image_id"]) for row in table)
    assert found == {("image", "malformed", -1): 2, ("annotation", "unlisted_image", -1): 1,
                     ("annotation", "unlisted_image", 0): 1}  # fmt: skip


def run_program(name: str, *arguments: object) -> list[dict]:
    """The lines of JSON that a program beside the tests prints; it must not have crashed."""
    done = subprocess.run(
        [sys.executable, str(TESTS / name), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_masks_made_to_harm_are_left_out_or_measured_as_they_are(tmp_path):
    (result,) = run_program("coco_hostile.py", tmp_path, 5, 1800)
    assert not result["wrong"], result["wrong"][:3]
    assert result["left"] is None
    assert result["equal"] == [0.375, 1.0]
    assert 255 < result["used"] < 1500  # both kinds were tried, many on one image


def test_random_damage_is_told_or_refused_and_never_crashes(tmp_path):
    results = run_program("coco_fuzz.py", tmp_path, 0, 120)
    assert len(results) == 120
    assert not [r for r in results if r["error"]]
    assert not [r for r in results if r["lost"]]
    refusals = [r["message"] for r in results if r["refused"]]
    assert len(refusals) < 90  # otherwise little was tried
    assert all(len(message) < 900 for message in refusals)
