"""Records of a COCO file: each is read on its own, and what is wrong with it is written down."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from mixlens.errors import DataError
from mixlens.sources.coco.annotations import Found, Listed, Rows, read_annotations, read_captions
from mixlens.sources.coco.documents import (
    Vocabulary,
    merge_records,
    parse_document,
    read_categories,
    read_images,
)
from mixlens.sources.coco.exif import find_direction
from mixlens.sources.coco.inspect import Header
from mixlens.sources.coco.ledger import Ledger
from mixlens.sources.coco.pictures import sound_pictures, upright_boxes, without_held_out
from mixlens.tasks.photo import Categories

SOUND: dict[str, Any] = {"id": 1, "image_id": 10, "category_id": 3, "bbox": [4, 5, 6, 7]}
# Rows 0 and 1 are of this file; image 12 was left out.
ROWS = Rows(["train", "held_out"], [10, 11], np.array([[40, 30], [20, 50]]))
LISTED = Listed({10: 0, 11: 1, 12: -1}, "train", ROWS)
# Category 8 is stuff, such as sky; 9 marks where nothing was annotated.
NAMES = ("dog", "cup", "sky", "ignored regions")
PLACES = {3: 0, 7: 1, 8: 2, 9: 3}
VOCABULARY = Vocabulary(Categories(NAMES, NAMES), PLACES, frozenset({2}), frozenset({3}))


def raws(records: list[Any]) -> list[msgspec.Raw]:
    return [msgspec.Raw(r if isinstance(r, bytes) else json.dumps(r).encode()) for r in records]


def annotations(*records: Any):
    ledger = Ledger()
    found = read(ledger, *records)
    told = [(row.reason, row.image_id, row.id) for row in ledger.rows]
    return found.objects, found.examined, told, ledger


def read(ledger: Ledger, *records: Any) -> Found:
    return read_annotations(raws(list(records)), LISTED, VOCABULARY, "data.x.train", ledger)


def test_boxes_become_corners_and_objects_are_ordered_by_image():
    records = [
        SOUND | {"id": 1, "image_id": 11, "category_id": 7, "iscrowd": 1},
        SOUND | {"id": 2, "segmentation": [[1, 2, 3, 4, 5, 6]]},
        SOUND | {"id": 3, "image_id": 11, "iscrowd": True, "bbox": [0, 0, 20, 50]},
        SOUND | {"id": 4, "bbox": [1.5, 2, 3, 4]},
    ]
    objects, examined, told, _ = annotations(*records)
    assert objects.id.tolist() == [2, 4, 1, 3]
    assert objects.row.tolist() == [0, 0, 1, 1]
    assert objects.category.tolist() == [0, 0, 1, 0]
    assert objects.crowd.tolist() == [False, False, True, True]
    corners = [[4, 5, 10, 12], [1.5, 2, 4.5, 6], [4, 5, 10, 12], [0, 0, 20, 50]]
    assert objects.boxes.tolist() == corners
    assert not objects.clipped.any()
    assert bytes(objects.segmentation[0]) == b"[[1, 2, 3, 4, 5, 6]]"
    assert bytes(objects.segmentation[1]) == b"null"
    assert (told, examined) == ([], 4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": None}, "malformed"),
        ({"bbox": [1, 2, 3]}, "malformed"),
        ({"bbox": [1, 2, 3, "4"]}, "malformed"),
        ({"category_id": "3"}, "malformed"),
        ({"iscrowd": 2}, "malformed"),
        ({"id": 2**70}, "malformed"),
        ({"category_id": 4}, "unknown_category"),
        ({"image_id": 99}, "unlisted_image"),
        ({"bbox": [4, 5, 0, 7]}, "zero_area"),
        ({"bbox": [4, 5, 6, -7]}, "zero_area"),
        ({"bbox": [40, 5, 6, 7]}, "outside_frame"),
        ({"bbox": [-9, 5, 8, 7]}, "outside_frame"),
    ],
)
def test_a_fault_leaves_one_annotation_out_and_keeps_the_others(change, reason):
    fault = SOUND | {"id": 5} | change
    objects, _, told, ledger = annotations(SOUND, fault, SOUND | {"id": 6})
    assert objects.id.tolist() == [1, 6]
    id = -1 if fault["id"] > 2**63 else 5
    assert told == [(reason, fault["image_id"], id)]
    (row,) = ledger.rows
    assert (row.split, row.what, row.outcome) == ("train", "annotation", "left_out")
    assert row.detail


def test_missing_fields_and_damaged_text_are_malformed():
    for field in SOUND.keys() - {"image_id"}:
        record = {key: value for key, value in SOUND.items() if key != field}
        _, _, told, _ = annotations(record)
        assert told == [("malformed", 10, record.get("id", -1))]
    _, _, told, _ = annotations(b'{"id": 4, "image_id": 11, "note": "\xff"}')
    assert told == [("malformed", 11, 4)]


def test_the_first_of_two_ids_counts_and_a_bad_first_one_does_not():
    _, _, told, _ = annotations(SOUND, SOUND | {"bbox": [1, 1, 2, 2]})
    assert told == [("duplicate_id", 10, 1)]
    objects, _, told, _ = annotations(SOUND | {"category_id": 5}, SOUND | {"bbox": [1, 1, 2, 2]})
    assert objects.boxes.tolist() == [[1, 1, 3, 3]]
    assert told == [("unknown_category", 10, 1)]


def test_annotations_of_left_out_images_go_with_them_and_splits_follow_images():
    of_left_out = SOUND | {"id": 2, "image_id": 12}
    of_unlisted = SOUND | {"id": 3, "image_id": 99}
    of_held_out = SOUND | {"id": 4, "image_id": 11, "category_id": 1}
    _, examined, told, ledger = annotations(SOUND, of_left_out, of_unlisted, of_held_out)
    assert examined == 2
    assert told == [("unlisted_image", 99, 3), ("unknown_category", 11, 4)]
    assert [row.split for row in ledger.rows] == ["train", "held_out"]


def test_boxes_are_clipped_and_rounding_is_no_clipping():
    far, near = [-3, -2, 50, 10], [0, 0, 40.04, 30.04]
    objects, _, told, _ = annotations(SOUND | {"bbox": far}, SOUND | {"id": 2, "bbox": near})
    assert objects.boxes.tolist() == [[0, 0, 40, 8], [0, 0, 40, 30]]
    assert objects.clipped.tolist() == [True, False]
    assert told == []  # written down when it is known whether the object has a mask


def test_captions_are_joined_by_image_on_one_line_each():
    ledger = Ledger()
    found = read_captions(
        raws(
            [
                {"image_id": 11, "id": 1, "caption": " A dog\n on  grass. "},
                {"image_id": 10, "id": 2, "caption": "One."},
                {"image_id": 11, "caption": "Two."},
                {"image_id": 11, "id": 4, "caption": " \n"},
                {"image_id": 99, "id": 5, "caption": "x"},
                {"image_id": 10, "id": 6},
                {"image_id": 12, "id": 7, "caption": "of an image that was left out"},
            ]
        ),
        LISTED,
        ledger,
    )
    assert found == {1: ["A dog on grass.", "Two."], 0: ["One."]}
    told = [(row.what, row.split, row.reason, row.id) for row in ledger.rows]
    assert told == [
        ("caption", "held_out", "empty", 4),
        ("caption", "train", "unlisted_image", 5),
        ("caption", "train", "malformed", 6),
    ]


def document(**lists: Any) -> bytes:
    return json.dumps({"images": [], "annotations": [], "categories": []} | lists).encode()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "truncated"),
        (document()[:-5], "truncated"),
        (b"version https://git-lfs", "malformed"),
        (b"[]", "array"),
        (b'{"images": [], "annotations": []}', "categories"),
        (document(images={}), "images"),
        (b'{"images":' + b"[" * 100_000, "recursion"),
    ],
)
def test_a_file_that_is_not_in_coco_format_is_refused(data, problem):
    with pytest.raises(DataError, match=f"(?s)data.x.train.*a.json.*{problem}.*JSON"):
        parse_document(data, "data.x.train", "a.json")


def test_a_file_may_begin_with_the_mark_of_utf_8():
    marked = parse_document(b"\xef\xbb\xbf" + document(images=[{"id": 1}]), "f", "a.json")
    assert len(marked.images) == 1


def categories(*lists: list[Any]):
    files = {f"file {n}": parse_document(document(categories=own), "f", "p") for n, own in
             enumerate(lists)}  # fmt: skip
    return read_categories(files)


def test_categories_of_all_files_are_ordered_by_id():
    dog = {"id": 9, "name": "dog", "supercategory": "animal"}
    found = categories([dog, {"id": 2, "name": "cup"}], [dog, {"id": 5, "name": "car"}])
    assert found.categories.names == ("cup", "car", "dog")
    assert found.categories.supercategories == ("cup", "car", "animal")
    assert found.places == {2: 0, 5: 1, 9: 2}
    assert not found.stuff | found.blind


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[]], "0"),
        ([[{"id": 1}]], r"file 0: categories\[0\].*malformed"),
        ([[{"id": 1, "name": "a"}, {"id": 1, "name": "a"}]], r"categories\[1\].*two categories"),
        ([[{"id": 1, "name": "a"}], [{"id": 1, "name": "b"}]], r"file 1.*two categories"),
    ],
)
def test_categories_that_cannot_be_understood_are_refused(lists, message):
    with pytest.raises(DataError, match=message):
        categories(*lists)


def images(records: list[Any], ledger: Ledger, unread: Counter | None = None):
    unread = Counter() if unread is None else unread
    return read_images(raws(records), "held_out", "data.x.held_out", ledger, unread)


GOOD = {"id": 1, "file_name": "a.jpg", "width": 4, "height": 3}


def test_images_that_are_malformed_are_left_out():
    ledger = Ledger()
    bad = [GOOD | {"id": 2, "width": 0}, GOOD | {"id": "x"}, GOOD | {"id": "3"}, {"id": 4}, 7]
    records = [GOOD, *bad, GOOD | {"id": 5}]
    assert [image.id for image in images(records, ledger)] == [1, 5]
    assert [(row.split, row.reason, row.image_id, row.file_name) for row in ledger.rows] == [
        ("held_out", "malformed", 2, "a.jpg"),
        ("held_out", "malformed", -1, "a.jpg"),
        ("held_out", "malformed", 3, "a.jpg"),
        ("held_out", "malformed", 4, ""),
        ("held_out", "malformed", -1, ""),
    ]


@pytest.mark.case
@pytest.mark.parametrize(
    "other", [{"file_name": "b.jpg"}, {"width": 5}, {"file_name": "b.jpg", "width": 0}]
)
def test_two_images_of_one_id_are_refused(other):
    with pytest.raises(
        DataError, match=r"data\.x.* got '2 ids': two images have one id.*: 1 is 'a\.jpg"
    ):
        images([GOOD, GOOD | other, GOOD | other | {"file_name": "c.jpg"}], Ledger())


def merged(records: list[Any], malformed: tuple[str, ...] = ()):
    ledger = Ledger()
    own = images(records, ledger)
    paths = [one.file_name for one in own]
    kept, left, instead = merge_records(own, paths, malformed, "train", "data.x.train", ledger)
    assert left == [one.file_name for one in kept]
    return kept, instead, [(row.outcome, row.reason, row.image_id) for row in ledger.rows]


@pytest.mark.case
def test_records_of_one_file_become_one_with_all_their_annotations():
    two = GOOD | {"id": 2, "file_name": "b.jpg"}
    kept, instead, told = merged([GOOD, GOOD | {"id": 7}, two, GOOD, GOOD | {"id": 8}])
    assert [(one.id, one.file_name) for one in kept] == [(1, "a.jpg"), (2, "b.jpg")]
    assert instead == {7: 1, 8: 1}
    assert told == [("repaired", "same_file", image_id) for image_id in (7, 1, 8)]


def test_records_of_one_file_put_together_what_they_say_of_absence():
    first = GOOD | {"neg_category_ids": [3]}
    second = GOOD | {"id": 2, "neg_category_ids": [5], "not_exhaustive_category_ids": [6]}
    (one,), _, _ = merged([first, second, GOOD | {"id": 3}])
    assert one.neg_category_ids == (3, 5)
    assert one.not_exhaustive_category_ids == (6,)
    assert one.is_federated
    (one,), _, _ = merged([GOOD, GOOD | {"id": 3}])
    assert not one.is_federated


@pytest.mark.case
def test_records_of_one_file_that_disagree_are_refused():
    wider = GOOD | {"width": 9}
    with pytest.raises(
        DataError, match=r"got '2 records': .*'a\.jpg' \(4 x 3\) and 'a\.jpg' \(9 x 3\)"
    ):
        merged([GOOD, wider | {"id": 2}, wider | {"id": 3}])
    with pytest.raises(DataError, match=r"got '1 records': .*'a\.jpg', once malformed"):
        merged([GOOD], malformed=("a.jpg", "other.jpg"))


def image(id: int, width: int, height: int) -> Any:
    return {"id": id, "file_name": f"{id}.jpg", "width": width, "height": height}


def pictures(
    sizes: list[tuple[int, int]],
    headers: list[Header],
    share: float | None = None,
    annotations: Sequence[Any] = (),
):
    ledger = Ledger()
    listed = images([image(n, *size) for n, size in enumerate(sizes)], ledger)
    paths = [record.file_name for record in listed]
    direction = find_direction(listed, headers, {}, raws(annotations), "automatic")
    found = sound_pictures(listed, paths, headers, "train", share, direction, ledger)
    return found, [(row.reason, row.image_id) for row in ledger.rows]


def test_a_frame_is_upright_or_stored_or_unknown():
    upright = Header(30, 40, orientation=6, fingerprint="1" * 32)
    square = Header(30, 30, orientation=6, fingerprint="2" * 32)
    flat = Header(30, 40, fingerprint="3" * 32)
    broken = Header(problem="truncated")
    sizes = [(40, 30), (40, 30), (30, 30), (40, 30), (31, 40), (30, 40)]
    headers = [upright, upright, square, flat, upright, broken]
    boxes = [{"image_id": n, "bbox": box} for n, box in enumerate([[1, 1, 35, 9], [1, 1, 9, 9]])]
    found, told = pictures(sizes, headers, annotations=boxes)
    frames = [(one.record.id, one.frame, one.sides) for one in found]
    assert frames == [(0, "stored", (40, 30)), (1, "stored", (40, 30)), (2, "stored", (30, 30))]
    assert told == [("turned", 0), ("turned", 1), ("wrong_size", 3), ("wrong_size", 4),
                    ("truncated", 5)]  # fmt: skip
    boxes[0]["bbox"] = [1, 1, 9, 35]
    found, told = pictures(sizes, headers, annotations=boxes)
    frames = [(one.record.id, one.frame, one.sides) for one in found]
    assert frames == [(0, "upright", (30, 40)), (1, "upright", (30, 40)), (2, "upright", (30, 30))]
    assert told[:2] == [("size_as_stored", 0), ("size_as_stored", 1)]


def test_a_share_is_held_out_by_content():
    random = np.random.default_rng(0)
    headers = [Header(4, 3, fingerprint=random.bytes(16).hex()) for _ in range(4000)]
    found, told = pictures([(4, 3)] * 4000, headers, 0.2)
    again, _ = pictures([(4, 3)] * 4000, headers[::-1], 0.2)
    sides = {one.header.fingerprint: one.split for one in found}
    assert sides == {one.header.fingerprint: one.split for one in again}
    assert told == []
    held_out = sum(side == "held_out" for side in sides.values())
    assert abs(held_out - 800) < 5 * np.sqrt(4000 * 0.2 * 0.8)


def test_held_out_files_are_not_trained_on_by_whatever_name():
    headers = [Header(4, 3, fingerprint=mark * 32) for mark in "abc"]
    found, _ = pictures([(4, 3)] * 3, headers)
    ledger = Ledger()
    listed = [("0.jpg", Header(problem="missing_file")), ("copy.jpg", headers[2]),
              ("empty.jpg", Header(problem="empty_file"))]  # fmt: skip
    assert [one.record.id for one in without_held_out(found, listed, ledger)] == [1]
    assert [(row.reason, row.image_id, row.split) for row in ledger.rows] == [
        ("held_out", 0, "train"),
        ("held_out", 2, "train"),
    ]


@pytest.mark.parametrize("way", range(1, 9))
def test_boxes_are_turned_as_pillow_turns_pictures(way):
    from io import BytesIO

    from PIL import Image, ImageOps

    raw = np.zeros((20, 32), np.uint8)
    raw[3:9, 5:16] = 255
    exif = Image.Exif()
    exif[0x0112] = way
    data = BytesIO()
    Image.fromarray(raw).save(data, "png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(data)))
    ys, xs = np.nonzero(upright)
    expected = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    found = upright_boxes(np.array([[5.0, 3, 16, 9]]), np.array([[32, 20]]), np.array([way]))
    assert found.tolist() == [expected]
