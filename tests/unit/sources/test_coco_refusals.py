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
from mixlens.sources.coco.ledger import Ledger
from mixlens.spec import CocoSpec


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> CocoSet:
    return make_coco_set(tmp_path_factory.mktemp("coco"), train=10, held_out=5, faults=False)


def refusal(data: dict[str, Any], indexes: Path) -> str:
    with pytest.raises(DataError) as refused:
        build_index("birds", CocoSpec.model_validate(data), indexes, lambda *_: None)
    return str(refused.value)


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
    assert Ledger.read(Path(built.index) / "left_out.parquet").rows == []


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
