"""Names of image files: the file that each means, or why it means none and what to write."""

import json
import unicodedata
from pathlib import Path

import pytest
from coco_set import CocoSet, make_coco_set

from mixlens.errors import DataError
from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.index import open_index
from mixlens.sources.coco.ledger import Ledger
from mixlens.sources.coco.names import Spellings, matched, outside
from mixlens.spec import CocoSpec

NFC, NFD = "images/é 1.jpg", unicodedata.normalize("NFD", "images/é 1.jpg")


def test_a_path_is_matched_however_its_accents_are_written():
    assert NFC != NFD
    assert matched([NFC, "images/2.jpg"], [NFD, "images/2.jpg"]) == [NFD, "images/2.jpg"]
    assert matched([NFD], [NFC]) == [NFC]
    assert matched([NFC, NFD], [NFC, NFD]) == [NFC, NFD]
    assert matched(["images/e 1.jpg"], [NFC]) == ["images/e 1.jpg"]
    assert matched([], [NFC]) == []


def test_where_two_files_match_none_is_taken_and_both_are_told():
    both = [f"a/{unicodedata.normalize('NFD', 'é')}é.jpg", f"a/é{NFD[7:9]}.jpg"]
    wanted = "a/éé.jpg"
    assert matched([wanted], both) == [wanted]
    told = Spellings(both).missing(wanted)
    assert told.isprintable()
    assert all(ascii(one) in told for one in both)


@pytest.mark.case
@pytest.mark.parametrize(
    ("path", "listed", "words"),
    [
        ("images/a\\1.jpg", ["images/a/1.jpg"], "write / in its place"),
        ("images/C:\\data\\1.jpg", ["images/1.jpg"], "write / in its place"),
        ("images/a%3A1.jpg", ["images/a:1.jpg"], "the file is images/a:1.jpg: write that name"),
        ("images/a%20b.JPG", ["images/a%20b.jpg"], "there is images/a%20b.jpg: write capital"),
        ("images/IMG_1.JPG", ["images/img_1.jpg"], "there is images/img_1.jpg: write capital"),
        ("images/images/1.jpg", ["images/1.jpg"], "leave images out of `images`"),
        ("a/b/a/b/1.jpg", ["a/b/1.jpg"], "leave a/b out of `images`"),
        ("../media/1.jpg", ["images/1.jpg"], "there is images/1.jpg: correct `images`"),
    ],
)
def test_a_file_that_is_not_there_is_told_with_what_to_write(path, listed, words):
    told = Spellings([*listed, "images/other.jpg"]).missing(path)
    assert told.startswith(f"there is no file {path}; ")
    assert words in told


def test_where_nothing_is_alike_nothing_is_guessed():
    listed = ["a/1.jpg", "b/1.jpg", "b/100%.jpg"]
    for path in ("c/1.jpg", "c/2.jpg", "c/100%25.jpg"):
        assert Spellings(listed).missing(path) == f"there is no file {path}"


@pytest.mark.case
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/data/1.jpg", "without the / at its beginning"),
        ("https://host/1.jpg", "fetch the images"),
        ("s3://bucket/1.jpg", "fetch the images"),
        ("../../1.jpg", "set root to a folder that holds"),
    ],
)
def test_a_name_that_leads_outside_is_told_with_what_to_do(name, words):
    told = outside(name, "/home/set")
    assert told.startswith(f"{name!r} ")
    assert "/home/set" in told
    assert words in told


@pytest.fixture
def made(tmp_path: Path) -> CocoSet:
    return make_coco_set(tmp_path / "set", train=6, held_out=3, faults=False)


def renamed(made: CocoSet, name: str, on_disk: str | None = None) -> CocoSpec:
    """The data set whose first training image has another name in its file of annotations."""
    path = made.root / made.data["train"]["annotations"]
    listed = json.loads(path.read_text())
    image = listed["images"][0]
    if on_disk:
        folder = made.root / made.data["train"]["images"]
        (folder / image["file_name"]).rename(folder / on_disk)
    image["file_name"] = name
    path.write_text(json.dumps(listed))
    return CocoSpec.model_validate(made.data | {"max_left_out": 0.5})


@pytest.mark.case
@pytest.mark.parametrize(("name", "on_disk"), [(NFC[7:], NFD[7:]), (NFD[7:], NFC[7:])])
def test_a_file_is_used_however_its_accents_are_written(made, tmp_path, name, on_disk):
    spec = build_index("d", renamed(made, name, on_disk), tmp_path / "ix", lambda *_: None)
    index = open_index(Path(spec.index))
    rows = Ledger.read(Path(spec.index) / "left_out.parquet").rows
    assert {row.outcome for row in rows} == {"region"}
    assert index.file_name(0) == name
    assert (made.root / index.path(0)).read_bytes()
    assert index.path(0) == f"train2017/{on_disk}"


@pytest.mark.case
@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("a\\1.jpg", "missing_file", "write / in its place"),
        ("/data/1.jpg", "outside_root", "without the / at its beginning"),
        ("https://host/1.jpg", "outside_root", "fetch the images"),
    ],
)
def test_the_message_of_a_refused_data_set_says_what_to_write(
    made, tmp_path, name, reason, words
):  # fmt: skip
    spec = renamed(made, name).model_copy(update={"max_left_out": 0.0})
    with pytest.raises(DataError) as refused:
        build_index("d", spec, tmp_path / "ix", lambda *_: None)
    assert reason in str(refused.value)
    assert name in str(refused.value).replace("\\\\", "\\")
    assert words in str(refused.value)
