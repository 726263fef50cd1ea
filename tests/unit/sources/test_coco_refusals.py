"""Data sets that are refused: messages name the field, what is wrong, and what would be right."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from coco_set import CocoSet, make_coco_set, make_custom_set

from mixlens.errors import DataError, ResourceError
from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.index import TABLES
from mixlens.sources.coco.ledger import Ledger, LeftOut
from mixlens.spec import CocoSpec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CocoSet:
    return make_coco_set(tmp_path_factory.mktemp("coco"), train=10, held_out=5, faults=False)


def refusal(data: dict[str, Any], indexes: Path) -> str:
    with pytest.raises(DataError) as refused:
        build_index("birds", CocoSpec.model_validate(data), indexes, lambda *_: None)
    return str(refused.value)


def faults(index: Path) -> list[LeftOut]:
    """What was left out or repaired; crowd regions are no faults."""
    return [row for row in Ledger.read(index / "left_out.parquet").rows if row.outcome != "region"]


def rewritten(made: CocoSet, folder: Path, change: Any) -> dict[str, Any]:
    """The data set with a changed copy of its annotations to train on."""
    content = json.loads((made.root / made.data["train"]["annotations"]).read_text())
    change(content)
    path = folder / "changed.json"
    path.write_text(json.dumps(content))
    return made.data | {"train": made.data["train"] | {"annotations": str(path)}}


def test_a_folder_of_images_that_is_not_there_is_named_by_its_field(made, tmp_path):
    for split in ("train", "held_out"):
        data = made.data | {split: made.data[split] | {"images": "train2071"}}
        message = refusal(data, tmp_path)
        assert message.startswith(f"data.birds.{split}.images: got 'train2071': there is no such")
        assert "train2017, val2017" in message


def test_where_every_image_is_damaged_the_first_one_tells_how(made, tmp_path):
    def without_width(content: Any) -> None:
        for image in content["images"]:
            del image["width"]

    message = refusal(rewritten(made, tmp_path, without_width), tmp_path)
    assert re.search(r"malformed 10 .*the first: images\[0\]: .*width", message)


def test_a_file_that_lists_no_image_is_not_said_to_have_lost_some(made, tmp_path):
    message = refusal(rewritten(made, tmp_path, lambda file: file["images"].clear()), tmp_path)
    assert "it lists no image" in message
    assert "left" not in message


def test_a_share_so_small_that_it_holds_nothing_is_told_as_such(tmp_path):
    custom = make_custom_set(tmp_path / "set", images=6)
    message = refusal(custom.data | {"held_out": 1e-9}, tmp_path)
    assert message.startswith(
        "data.birds.held_out: got 1e-09: of the 6 images of labels.json, none"
    )


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_captions_of_other_images_are_refused_and_not_only_left_out(split, made, tmp_path):
    other = {"train": "val2017", "held_out": "train2017"}[split]
    captions = f"annotations/captions_{other}.json"
    data = made.data | {split: made.data[split] | {"captions": captions}}
    message = refusal(data, tmp_path)
    assert message.startswith(f"data.birds.{split}.captions: got {captions!r}: no caption")
    assert "unlisted_image" in message
    assert message == refusal(data, tmp_path)  # also by the index that is there now


def test_annotations_in_place_of_captions_are_refused(made, tmp_path):
    instances = made.data["train"]["annotations"]
    data = made.data | {"train": made.data["train"] | {"captions": instances}}
    assert re.search(r"train\.captions: .*malformed.*the first: .*caption", refusal(data, tmp_path))


def test_an_id_of_two_categories_is_told_with_both(made, tmp_path):
    def renamed(content: Any) -> None:
        content["categories"][0]["name"] = "unicorn"

    message = refusal(rewritten(made, tmp_path, renamed), tmp_path)
    assert re.search(r"'unicorn' \(\w+\) and '\w+' \(\w+\)", message)


def test_what_was_refused_is_looked_at_again_though_no_size_changed(made, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(made.root, root)
    image = next((root / "train2017").glob("*.jpg"))
    sound = image.read_bytes()
    image.write_bytes(b"\0" * len(sound))
    data = made.data | {"root": str(root), "max_left_out": 0.0}
    assert "undecodable 1" in refusal(data, tmp_path / "indexes")
    image.write_bytes(sound)
    spec = CocoSpec.model_validate(data)
    built = build_index("birds", spec, tmp_path / "indexes", lambda *_: None)
    rows = Ledger.read(Path(built.index) / "left_out.parquet").rows
    assert {row.outcome for row in rows} == {"region"}


def test_a_folder_that_cannot_hold_an_index_is_told_as_such(made, tmp_path):
    (tmp_path / "indexes").write_text("a file")
    with pytest.raises(ResourceError, match=rf"runs_dir: got '{tmp_path}': the index .* cannot be"):
        build_index(
            "birds", CocoSpec.model_validate(made.data), tmp_path / "indexes", lambda *_: None
        )


@pytest.mark.parametrize("name", ["record.json", "images.arrow", "questions.arrow"])
def test_a_damaged_index_says_what_to_do(name, made, tmp_path):
    spec = CocoSpec.model_validate(made.data)
    folder = Path(build_index("birds", spec, tmp_path, lambda *_: None).index)
    (folder / name).write_bytes((folder / name).read_bytes()[:200])
    assert re.match(rf"index: got '{folder}': .*damaged.*Delete", refusal(made.data, tmp_path))
    shutil.rmtree(folder)
    assert build_index("birds", spec, tmp_path, lambda *_: None).index == str(folder)


def with_text(made: CocoSet, folder: Path, change: Any) -> dict[str, Any]:
    """The data set with changed text of its annotations to train on."""
    text = (made.root / made.data["train"]["annotations"]).read_text()
    path = folder / "changed.json"
    path.write_text(change(text))
    return made.data | {"train": made.data["train"] | {"annotations": str(path)}}


@pytest.mark.case
def test_nan_where_nothing_is_read_changes_nothing(made, tmp_path):
    nan, name = float("nan"), 'NaN, "Infinity": -Infinity'

    def change(content: Any) -> None:
        for place, one in enumerate(content["annotations"]):
            one["area"] = one["score"] = (nan, float("inf"), -float("inf"))[place % 3]
        for image in content["images"]:
            image["date_captured"] = name
        content["info"] = {"description": name, "version": nan}
        content["categories"][0]["supercategory"] = None
        content["categories"][1]["name"] = name

    plain, odd = tmp_path / "plain", tmp_path / "odd"
    plain.mkdir()
    odd.mkdir()
    files = [rewritten(made, odd, change)]

    def without(content: Any) -> None:
        change(content)
        for one in content["annotations"]:
            del one["area"], one["score"]
        content["info"] = {}

    files.append(rewritten(made, plain, without))
    both = []
    for number, data in enumerate(files):
        # The ids of categories are those of the held-out file as well.
        data = data | {"held_out": 0.3}
        spec = CocoSpec.model_validate(data)
        folder = Path(build_index("birds", spec, tmp_path / str(number), lambda *_: None).index)
        assert faults(folder) == []
        both.append([(folder / f"{name}.arrow").read_bytes() for name in TABLES])
        record = json.loads((folder / "record.json").read_text())
        assert name in record["categories"]
    assert both[0] == both[1]
    assert "NaN" in Path(files[0]["train"]["annotations"]).read_text()


@pytest.mark.case
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e999])
@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_a_box_with_a_number_that_is_none_is_left_out_and_told(made, tmp_path, value, place):
    def change(content: Any) -> None:
        content["annotations"][0]["bbox"][place] = value

    data = rewritten(made, tmp_path, change) | {"max_left_out": 1.0}
    spec = CocoSpec.model_validate(data)
    folder = Path(build_index("birds", spec, tmp_path / "indexes", lambda *_: None).index)
    (row,) = faults(folder)
    assert (row.what, row.outcome, row.reason) == ("annotation", "left_out", "malformed")
    assert f"$.bbox[{place}]" in row.detail
    assert ("NaN counts as null" if value != value else "out of range") in row.detail


@pytest.mark.case
def test_an_outline_with_nan_is_left_out_and_one_that_is_nan_is_missing(made, tmp_path):
    def change(content: Any) -> None:
        content["annotations"][0]["segmentation"] = [[1, 1, 9, 1, 9, float("nan")]]
        content["annotations"][1]["segmentation"] = float("nan")

    data = rewritten(made, tmp_path, change) | {"max_left_out": 1.0}
    spec = CocoSpec.model_validate(data)
    folder = Path(build_index("birds", spec, tmp_path / "indexes", lambda *_: None).index)
    rows = faults(folder)
    assert {row.reason for row in rows} == {"bad_mask", "box_as_mask"}
    assert "NaN counts as null" in next(row.detail for row in rows if row.reason == "bad_mask")


@pytest.mark.case
def test_a_file_that_is_no_json_is_told_where_and_not_that_it_lacks_lists(made, tmp_path):
    cut = with_text(made, tmp_path, lambda text: text[:-200])
    message = refusal(cut, tmp_path / "indexes")
    assert "is no JSON (Input data was truncated). It has to be JSON, whole" in message
    for nan in ("1", "NaN"):
        changed = with_text(
            made, tmp_path, lambda text, nan=nan: f'{{"score": {nan},\n "x": oops,{text[1:]}'
        )
        message = refusal(changed, tmp_path / "indexes")
        assert "lists" not in message
        assert f"at byte {18 + len(nan)}, line 2: " in message
        assert "oops" in message
    # Lists are spoken of where they are what is wrong.
    changed = with_text(made, tmp_path, lambda text: text.replace('"images"', '"score": NaN, "i"'))
    assert "lists of images, annotations and categories" in refusal(changed, tmp_path / "indexes")
