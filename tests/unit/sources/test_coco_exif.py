"""Photographs that EXIF turns: boxes lie on what they are of, or the doubt is told."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.exif import sentence
from mixlens.sources.coco.index import open_index
from mixlens.sources.coco.ledger import Ledger, LeftOut
from mixlens.sources.pixels import decode
from mixlens.spec import CocoSpec

COLOURS = {"red": (220, 20, 20), "blue": (20, 20, 220)}
# From the stored rows of pixels to what people see, as the table of the EXIF standard has it.
SEEN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}
WIDE, SQUARE = (160, 120), (120, 120)
MIDDLE = ((20, 25, 60, 55), (70, 50, 100, 90))  # inside 120 x 120: no frame is told
EDGE = ((125, 10, 155, 60), (20, 30, 70, 60))  # the first lies only in 160 x 120


class Made:
    """A data set of PNG files of coloured rectangles, which are drawn as they are stored."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "images").mkdir(parents=True)
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(
        self,
        way: int,
        size: tuple[int, int],
        boxes: tuple[tuple[int, int, int, int], ...],
        annotated: str,
        declared: str = "",
        kind: str = "box",
    ) -> int:
        """An image with rectangles, `size` and `boxes` as they lie in the frame `annotated`."""
        width, height = size
        number = len(self.images) + 1
        canvas = np.full((height, width, 3), 200, np.uint8)
        canvas[:3, :3] = number  # no two files are the same
        for (x0, y0, x1, y1), colour in zip(boxes, COLOURS.values(), strict=False):
            canvas[y0:y1, x0:x1] = colour
        if annotated == "upright":
            canvas = _reverse(way)(canvas)
        stored = canvas.shape[1], canvas.shape[0]
        seen = stored[::-1] if way >= 5 else stored
        exif = Image.Exif()
        exif[0x0112] = way
        name = f"{number}.png"
        Image.fromarray(canvas).save(self.root / "images" / name, exif=exif)
        said = {"upright": seen, "stored": stored, "": size}[declared]
        self.images.append({"id": number, "file_name": name, "width": said[0], "height": said[1]})
        for place, (x0, y0, x1, y1) in enumerate(boxes):
            record = {"id": len(self.annotations) + 1, "image_id": number,
                      "category_id": place + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}  # fmt: skip
            if kind == "outline":
                record["segmentation"] = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            if kind == "runs":
                mask = np.zeros((height, width), np.uint8, order="F")
                mask[y0:y1, x0:x1] = 1
                runs = coco.encode(mask)
                record["segmentation"] = runs | {"counts": runs["counts"].decode()}
            self.annotations.append(record)
        return number

    def plain(self, number: int = 12) -> "Made":
        """So many images that nothing turns."""
        for _ in range(number):
            self.add(1, WIDE, EDGE, "upright")
        return self

    def build(self, **fields: Any) -> CocoSpec:
        categories = [{"id": n + 1, "name": name} for n, name in enumerate(COLOURS)]
        content = {"images": self.images, "annotations": self.annotations, "categories": categories}
        (self.root / "a.json").write_text(json.dumps(content))
        train = {"annotations": "a.json", "images": "images"}
        data = {"root": str(self.root), "train": train, "held_out": 0.3, "max_left_out": 0.9}
        spec = CocoSpec.model_validate(data | fields)
        return build_index("d", spec, self.root / "indexes", lambda *_: None)

    def on_colour(self, spec: CocoSpec) -> dict[int, list[float]]:
        """Share of the pixels in each box that have the colour of its category, by image."""
        index = open_index(Path(spec.index))
        shares: dict[int, list[float]] = {}
        for row, image_id in enumerate(index.image_id.tolist()):
            pixels = decode((self.root / index.path(row)).read_bytes())
            photo = index.photo(row)
            assert pixels.shape[:2] == (photo.height, photo.width)
            own = shares.setdefault(image_id, [])
            for box, category in zip(photo.boxes, photo.category, strict=True):
                x0, y0, x1, y1 = box.astype(int).tolist()
                colour = COLOURS[index.categories.names[category]]
                own.append(float((pixels[y0:y1, x0:x1] == colour).all(2).mean()))
                assert (pixels == colour).all(2).sum() == (x1 - x0) * (y1 - y0)
        return shares


def _reverse(way: int):
    """From what people see to the stored rows: the turn that `SEEN` takes back."""
    back = {6: 8, 8: 6}.get(way, way)
    return SEEN[back]


def rows(spec: CocoSpec) -> list[LeftOut]:
    return Ledger.read(Path(spec.index) / "left_out.parquet").rows


def reasons(spec: CocoSpec) -> Counter[tuple[str, str]]:
    return Counter((row.outcome, row.reason) for row in rows(spec))


def exif_of(spec: CocoSpec) -> dict[str, Any]:
    return open_index(Path(spec.index)).record["exif"]["train"]


@pytest.mark.parametrize("way", SEEN)
def test_the_way_back_is_the_way_back(way):
    picture = np.arange(6).reshape(2, 3)
    assert np.array_equal(SEEN[way](_reverse(way)(picture)), picture)


@pytest.mark.case
@pytest.mark.parametrize("size", [WIDE, SQUARE], ids=["wide", "square"])
@pytest.mark.parametrize("annotated", ["upright", "stored"])
@pytest.mark.parametrize("way", range(2, 9))
def test_boxes_lie_on_their_objects_in_every_turn_and_frame(tmp_path, way, annotated, size):
    """One image of the file tells; the one of this turn follows, whose boxes tell nothing."""
    made = Made(tmp_path / "set").plain()
    made.add(6, WIDE, EDGE, annotated)
    made.add(way, size, MIDDLE, annotated)
    spec = made.build()
    shares = made.on_colour(spec)
    assert len(shares) == 14
    assert all(share == 1 for own in shares.values() for share in own)
    assert all(len(own) == 2 for own in shares.values())
    assert exif_of(spec)["frame"] == annotated
    assert exif_of(spec)["by"] == "boxes"
    expected = {("repaired", "turned"): 2} if annotated == "stored" else {}
    found = reasons(spec)
    del found["repaired", "box_as_mask"]
    assert found == expected


@pytest.mark.case
@pytest.mark.parametrize("kind", ["box", "outline", "runs"])
@pytest.mark.parametrize("annotated", ["upright", "stored"])
@pytest.mark.parametrize("declared", ["upright", "stored"])
def test_boxes_tell_more_than_declared_sizes(tmp_path, declared, annotated, kind):
    """A tool that draws upright and declares the size of the file, and every other pair."""
    made = Made(tmp_path / "set").plain()
    boxes = MIDDLE if kind == "runs" else EDGE  # run lengths have a frame wherever they lie
    for way in (5, 6, 7, 8):
        made.add(way, WIDE, boxes, annotated, declared, kind)
    silent = [made.add(6, WIDE, MIDDLE, annotated, declared), made.add(3, WIDE, EDGE, annotated)]
    spec = made.build()
    shares = made.on_colour(spec)
    assert len(shares) == 18
    assert all(share == 1 for own in shares.values() for share in own)
    assert len(shares[silent[0]]) == len(shares[silent[1]]) == 2
    found = exif_of(spec)
    assert (found["frame"], found["by"], found["left_out"]) == (annotated, "boxes", [])
    assert found[annotated] + found["silent"] == 6
    if annotated == "upright" and declared == "stored":
        assert reasons(spec)["assumed", "size_as_stored"] == 5
        assert not reasons(spec)["repaired", "turned"]
    assert found["otherwise"] == (0 if declared == annotated else 5)
    doubt = "5 declare a size that does not fit this" in sentence("data.d", found)
    assert doubt == (declared != annotated)
    assert f"annotations are taken as the {'upright' if annotated == 'upright' else 'file'}" in (
        sentence("data.d", found)
    )


@pytest.mark.case
def test_where_nothing_tells_the_guess_is_told_and_a_setting_decides(tmp_path):
    made = Made(tmp_path / "set").plain()
    for way in (2, 3, 4):
        made.add(way, WIDE, EDGE, "stored")
    made.add(8, SQUARE, MIDDLE, "stored")
    made.add(8, SQUARE, (), "stored")  # nothing hangs on it
    spec = made.build()
    found = exif_of(spec)
    assert (found["frame"], found["by"], found["silent"]) == ("upright", "guess", 4)
    assert reasons(spec)["assumed", "exif_guess"] == 4
    told = sentence("data.d", found)
    assert told.startswith("EXIF turns 4 images and nothing tells")
    assert "set data.d.exif to upright or stored" in told
    stored = made.build(exif="stored")
    assert stored.fingerprint != spec.fingerprint
    assert all(share == 1 for own in made.on_colour(stored).values() for share in own)
    assert (exif_of(stored)["frame"], exif_of(stored)["by"]) == ("stored", "setting")
    assert not reasons(stored)["assumed", "exif_guess"]
    upright = made.build(exif="upright")
    assert reasons(upright).keys() == {("repaired", "box_as_mask")}
    assert min(min(own) for own in made.on_colour(upright).values() if own) < 0.5


@pytest.mark.case
def test_images_that_contradict_most_others_or_themselves_are_left_out_and_counted(tmp_path):
    made = Made(tmp_path / "set").plain()
    most = [made.add(way, WIDE, EDGE, "upright", "stored") for way in (5, 6, 7)]
    other = made.add(6, WIDE, EDGE, "stored")
    silent = made.add(3, WIDE, EDGE, "upright")
    # A rectangle as people see the picture beside one as it is stored.
    mixed = made.add(6, WIDE, EDGE, "stored")
    made.annotations[-1]["bbox"] = [10, 125, 30, 30]
    spec = made.build()
    found = exif_of(spec)
    counts = {name: found[name] for name in ("upright", "stored", "both", "silent")}
    assert counts == {"upright": 3, "stored": 1, "both": 1, "silent": 1}
    assert found["left_out"] == [other, mixed]
    shares = made.on_colour(spec)
    assert set(most) | {silent} <= shares.keys()
    assert not {other, mixed} & shares.keys()
    assert all(share == 1 for own in shares.values() for share in own)
    gone = {row.image_id: row for row in rows(spec) if row.outcome == "left_out"}
    assert {row.reason for row in gone.values()} == {"exif_contradiction"}
    assert "by 3 images against 1" in gone[other].detail
    assert "some annotations lie as the upright picture, 120 x 160, others" in gone[mixed].detail
    assert [row.image_id for row in rows(spec) if row.reason == "exif_guess"] == [silent]
    told = sentence("data.d", found)
    assert f"2 that contradict this or themselves are left out (image {other}, {mixed})" in told
    assert "1 that tell nothing hang on it: look at some and set data.d.exif" in told
    # They are damage, so that a file of many is refused.
    assert open_index(Path(spec.index)).record["damage"]["train"]["images"][0] == 2


@pytest.mark.case
def test_sizes_alone_tell_as_long_as_no_box_of_such_a_size_tells_otherwise(tmp_path):
    made = Made(tmp_path / "sizes").plain()
    one, other = made.add(6, WIDE, MIDDLE, "stored"), made.add(8, WIDE, MIDDLE, "stored")
    mirrored = made.add(2, WIDE, EDGE, "stored")
    spec = made.build()
    assert (exif_of(spec)["frame"], exif_of(spec)["by"]) == ("stored", "sizes")
    shares = made.on_colour(spec)
    assert shares[one] == shares[other] == shares[mirrored] == [1, 1]
    # Tools that draw upright declare such sizes too: nothing is said to be repaired.
    assert reasons(spec)["assumed", "turned_unsure"] == 3
    assert "by their declared size alone; if that is wrong, set data.d.exif" in sentence(
        "data.d", exif_of(spec)
    )
    upright = Made(tmp_path / "upright").plain()
    upright.add(6, WIDE, MIDDLE, "upright")
    upright.add(3, WIDE, MIDDLE, "upright")
    spec = upright.build()
    assert exif_of(spec)["by"] == "sizes"
    assert reasons(spec).keys() == {("repaired", "box_as_mask")}
    assert all(share == 1 for own in upright.on_colour(spec).values() for share in own)


def test_a_box_a_little_beyond_the_edge_tells_nothing(tmp_path):
    made = Made(tmp_path / "set").plain()
    made.add(6, WIDE, MIDDLE, "upright", "stored")
    made.annotations[-1]["bbox"][3] = 71.4  # ends at 121.4 of 160, or of 120
    made.add(6, WIDE, EDGE, "upright", "stored")
    for sloppy in (-30, -0.5):
        made.add(6, WIDE, EDGE, "upright", "stored")
        made.annotations[-2]["bbox"] = [sloppy, 10, 190, 20]  # outside both frames
    assert exif_of(made.build())["upright"] == 1


def test_files_without_turned_images_say_nothing_of_it(tmp_path):
    made = Made(tmp_path / "set").plain(20)
    record = open_index(Path(made.build().index)).record
    assert record["exif"] == {}


@pytest.mark.case
def test_boxes_under_the_second_record_of_a_file_tell_too(tmp_path: Path) -> None:
    made = Made(tmp_path).plain()
    turned = [made.add(6, WIDE, EDGE, "upright", "stored") for _ in range(4)]
    for number in turned:
        record = made.images[number - 1]
        telling = next(one for one in made.annotations if one["image_id"] == number)
        telling["image_id"] = 1000 + number
        made.images.append(record | {"id": telling["image_id"]})
    shares = made.on_colour(made.build())
    assert set(turned) <= shares.keys()
    assert all(share > 0.95 for number in turned for share in shares[number])
