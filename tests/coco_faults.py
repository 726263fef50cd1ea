"""Everything that can be wrong with a data set in COCO format, one function a fault.

Each takes the two splits while they are made (`coco_set.Split`), adds the damage to them, and
writes down the rows of `left_out` that it must lead to.
"""

import json
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from coco_set import ABSENT, Split, encode
from PIL import Image

Fault = Callable[[Split, Split], None]
FAULTS: dict[str, Fault] = {}

LFS = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"4d7a21" * 10
    + b"beef\nsize 24301\n"
)
ANNEX = b"/annex/objects/SHA256E-s24301--" + b"4d7a21" * 10 + b"beef.jpg\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"


def _fault(function: Fault) -> Fault:
    FAULTS[function.__name__] = function
    return function


def png(width: int, height: int, packed: bytes) -> bytes:
    """A grey PNG whose header declares this size, whatever its pixels are packed in."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed)
        + chunk(b"IEND", b"")
    )  # fmt: skip


def _bad_file(split: Split, reason: str, data: bytes, suffix: str = ".jpg") -> None:
    image = split.add(split.scene(), data=data, suffix=suffix, usable=False)
    split.expect("image", "left_out", reason, image["id"])


@_fault
def truncated(train: Split, held_out: Split) -> None:
    whole = encode(train.scene())
    _bad_file(train, "truncated", whole[: len(whole) // 2])
    _bad_file(train, "truncated", encode(train.scene())[:-2])
    whole = encode(train.scene(), ".png")
    _bad_file(train, "truncated", whole[: 2 * len(whole) // 3], ".png")
    _bad_file(held_out, "truncated", encode(held_out.scene())[:-400])


@_fault
def undecodable(train: Split, held_out: Split) -> None:
    _bad_file(train, "undecodable", train.random.bytes(5000))
    _bad_file(held_out, "undecodable", held_out.random.bytes(300), ".png")
    _bad_file(train, "undecodable", b"\xff\xd8\xff\xe0" + bytes(4000) + b"\xff\xd9")


@_fault
def damaged_inside(train: Split, held_out: Split) -> None:
    """Both ends are as they should be: only decoding tells, which is done of held-out images."""
    for split in (train, held_out):
        data = png(160, 120, split.random.bytes(3000))
        image = split.add(split.scene(), data=data, suffix=".png", usable=split is train)
    held_out.expect("image", "left_out", "undecodable", image["id"])


@_fault
def pointer_file(train: Split, held_out: Split) -> None:
    for data in (LFS, ANNEX, PAGE):
        _bad_file(train, "pointer_file", data)


@_fault
def empty_file(train: Split, held_out: Split) -> None:
    _bad_file(train, "empty_file", b"")
    _bad_file(held_out, "empty_file", b"", ".png")


@_fault
def missing_file(train: Split, held_out: Split) -> None:
    names = ("not_there.jpg", "no/such/folder.jpg", "folder.jpg", "a" * 300 + ".jpg",
             "nul\0.jpg")  # fmt: skip
    (train.folder / "folder.jpg").mkdir()
    for name in names:
        image = train.add(train.scene(), file_name=name, usable=False)
        train.expect("image", "left_out", "missing_file", image["id"])


@_fault
def too_many_pixels(train: Split, held_out: Split) -> None:
    _bad_file(train, "too_many_pixels", png(50_000, 50_000, zlib.compress(bytes(1000))), ".png")


@_fault
def wrong_size(train: Split, held_out: Split) -> None:
    for width, height in ((161, 120), (320, 240), (120, 160)):  # the last: turned without EXIF
        image = train.add(train.scene(), usable=False)
        image |= {"width": width, "height": height}
        train.expect("image", "left_out", "wrong_size", image["id"])


@_fault
def exif_contradiction(train: Split, held_out: Split) -> None:
    for orientation in (5, 6, 7, 8):
        train.add(train.scene(), orientation=orientation, declared="upright")
    for orientation in (6, 8):
        scene = train.scene()
        image = train.add(scene, orientation=orientation, declared="raw", usable=False)
        train.expect("image", "left_out", "exif_contradiction", image["id"])
    # What EXIF does not tell of is not sure any more.
    for orientation in (3, 2):
        train.add(train.scene(), orientation=orientation)
    for image in train.images:
        jpeg = image.get("file_name", "").endswith(".jpg")
        if jpeg and (train.name, image.get("id")) in train.truth:
            with Image.open(train.folder / image["file_name"]) as file:
                if file.getexif().get(0x0112) in (2, 3):
                    train.expect("image", "assumed", "exif_guess", image["id"])


@_fault
def outside_root(train: Split, held_out: Split) -> None:
    other = train.folder.parent.parent / "outside.jpg"
    other.write_bytes(encode(train.scene()))
    climbing = "../" * 40 + str(other.resolve()).lstrip("/")
    for name in (str(other.resolve()), "../../outside.jpg", climbing, "a/../../../outside.jpg"):
        image = train.add(train.scene(), file_name=name, usable=False)
        train.expect("image", "left_out", "outside_root", image["id"])


@_fault
def duplicate_image(train: Split, held_out: Split) -> None:
    first = train.add(train.scene())
    train.images.append(dict(first))
    train.expect("image", "repaired", "same_file", first["id"])


@_fault
def one_record_a_box(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    for annotation in [a for a in train.annotations if a.get("image_id") == image["id"]][1:]:
        train.images.append(image | {"id": train.new_id()})
        annotation["image_id"] = train.images[-1]["id"]
        train.expect("image", "repaired", "same_file", annotation["image_id"])


@_fault
def malformed_image(train: Split, held_out: Split) -> None:
    wrong = (
        {"file_name": ABSENT}, {"file_name": 7}, {"file_name": ""},
        {"file_name": None}, {"width": ABSENT},
        {"height": ABSENT}, {"width": 0}, {"height": -120}, {"width": "160"}, {"width": 160.5},
        {"height": None}, {"width": 10**12},
    )  # fmt: skip
    for fields in wrong:
        image = train.add(train.scene(), usable=False)
        _change(train.images, fields)
        train.expect("image", "left_out", "malformed", image["id"])
    for fields in ({"id": ABSENT}, {"id": "text"}, {"id": None}, {"id": 2**70}, {"id": 1.5}):
        image = train.add(train.scene(), usable=False)
        train.annotations = [a for a in train.annotations if a.get("image_id") != image["id"]]
        train.captions = [c for c in train.captions if c.get("image_id") != image["id"]]
        _change(train.images, fields)
        train.expect("image", "left_out", "malformed", -1)
    for record in (None, 5, "text", [], {}):
        train.images.append(record)
        train.expect("image", "left_out", "malformed", -1)


def _change(records: list[Any], fields: dict[str, Any]) -> None:
    """Overwrite fields of the last record."""
    changed = records[-1] | fields
    records[-1] = {key: value for key, value in changed.items() if value is not ABSENT}


@_fault
def held_out_in_train(train: Split, held_out: Split) -> None:
    scene = held_out.scene()
    shared = held_out.add(scene)
    data = (held_out.folder / shared["file_name"]).read_bytes()
    for name in (f"../{held_out.folder.name}/{shared['file_name']}", "copy_of_another.jpg"):
        if name.startswith("copy"):
            (train.folder / name).write_bytes(data)
        image = train.add(scene, file_name=name, usable=False)
        train.expect("image", "left_out", "held_out", image["id"])


@_fault
def malformed_annotation(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    wrong = (
        {"bbox": ABSENT}, {"bbox": None}, {"bbox": [4, 5, 6]}, {"bbox": [4, 5, 6, "x"]},
        {"bbox": "4 5 6 7"}, {"category_id": ABSENT},
        {"category_id": None}, {"category_id": "dog"},
        {"iscrowd": "no"}, {"id": "a"}, {"id": ABSENT},
    )  # fmt: skip
    for fields in wrong:
        number = train.annotate(image, (20, 20, 50, 60), **fields)
        known = number if isinstance(number, int) else -1
        train.expect("annotation", "left_out", "malformed", image["id"], known)
    number = train.annotate(image, (20, 20, 50, 60), image_id=str(image["id"]))
    train.expect("annotation", "left_out", "malformed", image["id"], number)


@_fault
def unknown_category(train: Split, held_out: Split) -> None:
    image = held_out.add(held_out.scene())
    for category in (999, 0, -1, 2):
        number = held_out.annotate(image, (20, 20, 50, 60), category_id=category)
        held_out.expect("annotation", "left_out", "unknown_category", image["id"], number)


@_fault
def unlisted_image(train: Split, held_out: Split) -> None:
    for image_id in (777_777_777, -5, 0):
        number = train.annotate({"id": image_id}, (20, 20, 50, 60))
        train.expect("annotation", "left_out", "unlisted_image", image_id, number)
    train.captions.append({"image_id": 777_777_777, "id": 5, "caption": "Nothing to see."})
    train.expect("caption", "left_out", "unlisted_image", 777_777_777, 5)


@_fault
def zero_area(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    for bbox in ([20, 20, 0, 40], [20, 20, 30, 0], [20, 20, -30, 40], [20, 20, 0, 0]):
        number = train.annotate(image, (20, 20, 50, 60), bbox=bbox)
        train.expect("annotation", "left_out", "zero_area", image["id"], number)
    empty = {"size": [120, 160], "counts": [120 * 160]}
    for segmentation in ([[30, 30, 30, 30, 30, 30]], empty):
        number = train.annotate(image, (20, 20, 50, 60), segmentation=segmentation)
        train.expect("annotation", "left_out", "zero_area", image["id"], number)


@_fault
def outside_frame(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    for box in ((200, 20, 240, 60), (-50, 20, -10, 60), (20, 120, 50, 150), (20, -40, 50, 0),
                (1e9, 1e9, 2e9, 2e9)):  # fmt: skip
        number = train.annotate(image, box)
        train.expect("annotation", "left_out", "outside_frame", image["id"], number)


@_fault
def clipped(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    for box, area in (((140, 20, 200, 60), 20 * 40), ((-10, -10, 30, 40), 30 * 40),
                      ((-5, -5, 165, 125), 160 * 120)):  # fmt: skip
        number = train.annotate(image, box, kept=area)
        train.expect("annotation", "repaired", "clipped", image["id"], number)
    inside = [[0, 20, 30, 20, 30, 60, 0, 60]]  # of the box alone some is outside
    number = train.annotate(image, (-9, 20, 30, 60), kept=30 * 40, segmentation=inside)
    train.expect("annotation", "repaired", "clipped", image["id"], number)
    beyond = [[20, 20, 50, 20, 50, 170, 20, 170]]  # and here of the polygon
    number = train.annotate(image, (20, 20, 50, 120), kept=30 * 100, segmentation=beyond)
    train.expect("annotation", "repaired", "clipped", image["id"], number)


@_fault
def box_as_mask(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    for segmentation in (ABSENT, None, [], [[]]):
        number = train.annotate(image, (20, 20, 50, 60), kept=30 * 40, segmentation=segmentation)
        train.expect("annotation", "repaired", "box_as_mask", image["id"], number)


@_fault
def polygon_part(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    for part in ([], SQUARE[:2], SQUARE[:4]):
        number = train.annotate(image, (20, 20, 50, 60), kept=30 * 40, segmentation=[SQUARE, part])
        train.expect("annotation", "repaired", "polygon_part", image["id"], number)


@_fault
def regions(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    for field, value, reason in (
        ("iscrowd", 1, "iscrowd"), ("iscrowd", True, "iscrowd"), ("ignore", 1, "ignore"),
        ("ignore", True, "ignore"), ("isgroupof", 1, "group_of"), ("IsGroupOf", "1", "group_of"),
        ("is_group_of", True, "group_of"),
    ):  # fmt: skip
        train.annotate(image, (20, 20, 50, 60), kept=30 * 40, region=reason, **{field: value})
    for field, value in (("ignore", 0), ("ignore", False), ("ignore", None), ("isgroupof", "0")):
        train.annotate(image, (20, 20, 50, 60), kept=30 * 40, **{field: value})


@_fault
def duplicate_annotation(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    number = train.annotate(image, (20, 20, 50, 60), kept=30 * 40)
    train.annotate(image, (20, 20, 50, 60), id=number)
    train.annotate(image, (70, 20, 90, 60), id=number)
    for _ in range(2):
        train.expect("annotation", "left_out", "duplicate_id", image["id"], number)


@_fault
def bad_mask(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    for segmentation in BAD_MASKS:
        number = train.annotate(image, (20, 20, 50, 60), segmentation=segmentation)
        train.expect("annotation", "left_out", "bad_mask", image["id"], number)


SQUARE = [20.0, 20.0, 50.0, 20.0, 50.0, 60.0, 20.0, 60.0]
# What could harm the process that reads it is in coco_hostile.
BAD_MASKS: tuple[Any, ...] = (
    [SQUARE[:-1]],  # an odd number of coordinates
    [SQUARE, SQUARE[:-1]],
    [SQUARE[:2], SQUARE[:4]],
    [SQUARE[:4]],  # two corners
    [[20, 20, None, 20, 50, 60]],
    [["20", "20", "50", "20", "50", "60"]],
    [20, 20, 50, 20, 50, 60],  # a polygon that is not in a list
    "text",
    7,
    {},
    {"size": [120, 160]},
    {"counts": [9600, 9600]},
    {"size": [120, 160], "counts": [100, 200]},  # fewer pixels than the picture has
    {"size": [120, 160], "counts": [19000, 10_000]},  # and more
    {"size": [120, 160], "counts": [100, -100, 19200]},
    {"size": [120, 160], "counts": [0.5, 19199.5]},
    {"size": [120, 160], "counts": [2**33, 19200]},
    {"size": [120, 160], "counts": ["a", "b"]},
    {"size": [160, 120], "counts": [9600, 9600]},  # of a picture that is turned
    {"size": [120], "counts": [9600, 9600]},
    {"size": [0, 0], "counts": []},
    {"size": [-120, -160], "counts": [9600, 9600]},
    {"size": [2**31, 2**31], "counts": [9600, 9600]},
    {"size": [120, 160], "counts": ""},
    {"size": [120, 160], "counts": "hello, this is no mask"},
    {"size": [120, 160], "counts": "\u00e9\u4f60"},
    {"size": [120, 160], "counts": "oooooooooooooooo"},  # a number that never ends
    {"size": [120, 160], "counts": "PPPP" * 5000},
    {"size": [120, 160], "counts": None},
)


@_fault
def caption(train: Split, held_out: Split) -> None:
    image = train.add(train.scene())
    for text, reason in (("", "empty"), (" \n\t", "empty"), (None, "malformed"),
                         (12, "malformed"), (["A dog."], "malformed")):  # fmt: skip
        number = train.new_id()
        train.captions.append({"image_id": image["id"], "id": number, "caption": text})
        train.expect("caption", "left_out", reason, image["id"], number)
    train.captions += [{"id": 3, "caption": "Of no image."}, None]
    train.expect("caption", "left_out", "malformed", -1, 3)
    train.expect("caption", "left_out", "malformed", -1)


UNREADABLE: dict[str, bytes] = {
    "empty": b"",
    "cut": json.dumps({"images": [{"id": 1}], "annotations": []}).encode()[:-20],
    "text": b"There is no data set here.",
    "pointer": LFS,
    "binary": np.random.default_rng(5).bytes(400),
    "latin": '{"images": [], "annotations": [], "categories": [{"name": "caf\xe9"}]}'.encode(
        "latin-1"
    ),
    "nan": b'{"images": [{"id": 1, "width": NaN}], "annotations": [], "categories": []}',
    "surrogate": b'{"images": [{"file_name": "\\ud800"}], "annotations": [], "categories": []}',
    "list": b"[]",
    "number": b"12",
    "no_images": b'{"annotations": [], "categories": []}',
    "no_annotations": b'{"images": [], "categories": []}',
    "no_categories": b'{"images": [], "annotations": []}',
    "images_no_list": b'{"images": {}, "annotations": [], "categories": []}',
    "annotations_null": b'{"images": [], "annotations": null, "categories": []}',
    "nothing": b'{"images": [], "annotations": [], "categories": []}',
    "deep": b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
