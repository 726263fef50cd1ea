"""A small data set in COCO format, made anew for the tests: rendered scenes, exact annotations.

`make_coco_set` writes the official layout (two splits, each with an instances and a captions
file), with or without the damage of `coco_faults`; `make_custom_set` a layout of one's own.
"""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from coco_scenes import CATEGORIES, CATEGORY_IDS, SIZES, Scene, Thing, make_scene
from PIL import Image
from pycocotools import mask as coco_mask

# PIL's names of the turns that make a file of each EXIF orientation out of an upright picture.
_TO_FILE = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
            6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
Box = tuple[float, float, float, float]
ABSENT = object()


@dataclass(frozen=True)
class Truth:
    """What is known of one usable image; geometry is that of the upright picture, in pixels."""

    split: str
    image_id: int
    file_name: str
    width: int
    height: int
    categories: tuple[str, ...]
    boxes: tuple[Box, ...]  # x0, y0, x1, y1
    areas: tuple[int, ...]
    crowd: tuple[bool, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class CocoSet:
    """A data set on disk.

    Attributes:
        root: its folder.
        data: what stands under `data.<name>` in a sweep file.
        expected: the rows of `left_out`, as (split, what, outcome, reason, image_id, id).
        truth: of each image that can be used, by split and id; objects in the order of the file.
    """

    root: Path
    data: dict[str, Any]
    expected: tuple[tuple[str, str, str, str, int, int], ...]
    truth: dict[tuple[str, int], Truth]

    def files(self) -> list[Path]:
        """Its annotation and caption files."""
        return sorted((self.root / "annotations").glob("*.json"))


@dataclass
class Split:
    """One split while it is being made; faults add to it."""

    name: str
    folder: Path
    random: np.random.Generator
    next_id: int
    images: list[Any] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    captions: list[Any] = field(default_factory=list)
    expected: list[tuple[str, str, str, str, int, int]] = field(default_factory=list)
    truth: dict[tuple[str, int], Truth] = field(default_factory=dict)

    def new_id(self) -> int:
        self.next_id += int(self.random.integers(1, 90))
        return self.next_id

    def expect(self, what: str, outcome: str, reason: str, image_id: int, id: int = -1) -> None:
        self.expected.append((self.name, what, outcome, reason, image_id, id))

    def scene(self, width: int = 160, height: int = 120) -> Scene:
        return make_scene(self.random, width, height)

    def add(
        self,
        scene: Scene,
        data: bytes | None = None,
        suffix: str = ".jpg",
        orientation: int = 1,
        declared: str = "upright",
        file_name: str | None = None,
        usable: bool = True,
    ) -> dict[str, Any]:
        """List a scene with its annotations and captions, write its file; its image record.

        `data` are the bytes of the file in place of the picture's; `declared` says in which frame
        an image with EXIF `orientation` is annotated (upright or raw).
        """
        height, width = scene.pixels.shape[:2]
        image_id = self.new_id()
        name = file_name if file_name is not None else f"{image_id:012d}{suffix}"
        if file_name is None:
            path = self.folder / name
            path.write_bytes(data if data is not None else encode(scene, suffix, orientation))
        raw = declared == "raw"
        turned = raw and orientation >= 5
        image = {
            "license": 4, "file_name": name, "width": height if turned else width,
            "height": width if turned else height, "id": image_id,
            "date_captured": "2013-11-24 03:32:32",
        }  # fmt: skip
        self.images.append(image)
        areas = []
        for thing in scene.things:
            seen = _turned(thing, orientation, width, height) if turned else thing
            areas.append(self._annotate(image, seen))
            if usable and thing.crowd is not None:
                self.expect("annotation", "region", "iscrowd", image_id, self.next_id)
        for sentence in scene.sentences:
            self.captions.append({"image_id": image_id, "id": self.new_id(), "caption": sentence})
        if usable:
            self.truth[self.name, image_id] = Truth(
                self.name, image_id, name, width, height,
                tuple(thing.category for thing in scene.things),
                tuple(thing.box() for thing in scene.things), tuple(areas),
                tuple(thing.crowd is not None for thing in scene.things), scene.sentences,
            )  # fmt: skip
        return image

    def annotate(
        self, image: dict[str, Any], box: Box, kept: int = -1, region: str = "", **fields: Any
    ) -> int:
        """One more dog in a box (x0, y0, x1, y1), with these fields in place of the sound ones.

        A field that is `ABSENT` is taken out. `kept` is the area with which the dog is used, its
        box then within the picture; -1: it is left out. `region` is the reason why it is used as a
        region. Returns its id.
        """
        x0, y0, x1, y1 = box
        record = {
            "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]], "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0, "image_id": image["id"], "bbox": [x0, y0, x1 - x0, y1 - y0],
            "category_id": CATEGORY_IDS["dog"], "id": self.new_id(),
        } | fields  # fmt: skip
        record = {key: value for key, value in record.items() if value is not ABSENT}
        self.annotations.append(record)
        if kept >= 0:
            key = (self.name, image["id"])
            truth = self.truth[key]
            right, bottom = float(truth.width), float(truth.height)
            inside = (max(x0, 0.0), max(y0, 0.0), min(x1, right), min(y1, bottom))
            self.truth[key] = replace(
                truth,
                categories=(*truth.categories, "dog"),
                boxes=(*truth.boxes, inside),
                areas=(*truth.areas, kept),
                crowd=(*truth.crowd, bool(region)),
            )
            if region:
                self.expect("annotation", "region", region, image["id"], record["id"])
        return record.get("id", -1)

    def _annotate(self, image: dict[str, Any], thing: Thing) -> int:
        mask = thing.mask(image["width"], image["height"])
        x0, y0, x1, y1 = thing.box()
        segmentation: Any = [np.round(part, 2).ravel().tolist() for part in thing.parts]
        if thing.crowd is not None:
            packed = self.random.random() < 0.5
            segmentation = compressed(mask) if packed else uncompressed(mask)
        self.annotations.append(
            {
                "segmentation": segmentation, "area": float(mask.sum()),
                "iscrowd": int(thing.crowd is not None), "image_id": image["id"],
                "bbox": [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)],
                "category_id": CATEGORY_IDS[thing.category], "id": self.new_id(),
            }
        )  # fmt: skip
        return int(mask.sum())


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths down the columns, beginning with background, as a list."""
    line = mask.ravel(order="F").astype(np.int8)
    ends = np.flatnonzero(np.diff(line)) + 1
    runs = np.diff([0, *ends, line.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if line[0] else runs}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """The same as COCO's string."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def encode(scene: Scene, suffix: str = ".jpg", orientation: int = 1, mode: str = "RGB") -> bytes:
    """The bytes of its file, turned so that EXIF `orientation` makes it upright again."""
    picture = Image.fromarray(scene.pixels)
    if orientation > 1:
        picture = picture.transpose(Image.Transpose[_TO_FILE[orientation]])
    exif = Image.Exif()
    if orientation > 1:
        exif[0x0112] = orientation
    file = io.BytesIO()
    kind = {".jpg": "JPEG", ".png": "PNG"}[suffix]
    picture.convert(mode).save(file, kind, quality=88, exif=exif)
    return file.getvalue()


def _turned(thing: Thing, orientation: int, width: int, height: int) -> Thing:
    """The thing in the frame of the file, whose orientation (5 to 8) makes it upright."""
    if thing.crowd is not None:
        picture = Image.fromarray(thing.crowd.astype(np.uint8))
        raw = np.asarray(picture.transpose(Image.Transpose[_TO_FILE[orientation]]))
        return Thing(thing.category, crowd=raw.astype(bool))
    place = {5: lambda x, y: (y, x), 6: lambda x, y: (y, width - x),
             7: lambda x, y: (height - y, width - x), 8: lambda x, y: (height - y, x)}  # fmt: skip
    parts = tuple(np.round(np.stack(place[orientation](*p.T), 1), 2) for p in thing.parts)
    return Thing(thing.category, parts)


def _fill(split: Split, count: int) -> None:
    """Sound images: mostly JPEG, some PNG, grey, CMYK or turned by EXIF; some with nothing."""
    modes, orientations = {2: "L", 3: "CMYK"}, {4: 6, 5: 3}
    for place in range(count):
        width, height = SIZES[place % len(SIZES)]
        scene = make_scene(split.random, width, height, empty=place % 17 == 16)
        suffix = ".png" if place % 7 == 1 else ".jpg"
        mode, orientation = modes.get(place, "RGB"), orientations.get(place, 1)
        split.add(scene, encode(scene, suffix, orientation, mode), suffix)


def _interleaved(records: list[Any]) -> list[Any]:
    """First the first of each image, then the second of each ...: images do not stand together."""
    seen: dict[int, int] = {}
    turns = []
    for record in records:
        seen[record["image_id"]] = seen.get(record["image_id"], -1) + 1
        turns.append(seen[record["image_id"]])
    return [record for _, record in sorted(zip(turns, records, strict=True), key=lambda t: t[0])]


def _write(path: Path, split: Split, records: str) -> None:
    content = {
        "info": {"description": "made for tests", "year": 2017},
        "licenses": [{"id": 4, "name": "none"}],
        "images": split.images,
        "annotations": getattr(split, records),
    }
    if records == "annotations":
        content["categories"] = [
            {"supercategory": kind, "id": number, "name": name} for number, name, kind in CATEGORIES
        ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def make_coco_set(
    root: Path,
    train: int = 96,
    held_out: int = 48,
    seed: int = 0,
    faults: bool | Iterable[str] = True,
) -> CocoSet:
    """Write the official layout: train2017, val2017 and annotations/*_{train,val}2017.json.

    Args:
        root: an absent or empty folder.
        train: sound images of the training split; damaged ones come on top.
        held_out: likewise of the held-out split.
        seed: the same seed makes the same bytes.
        faults: all faults, none, or those of these names (`coco_faults.FAULTS`).
    """
    from coco_faults import FAULTS

    names = (FAULTS if faults else ()) if isinstance(faults, bool) else tuple(faults)
    splits = []
    years = {"train": "train2017", "held_out": "val2017"}
    for place, (name, count) in enumerate((("train", train), ("held_out", held_out))):
        folder = root / years[name]
        folder.mkdir(parents=True)
        random = np.random.default_rng([seed, place])
        split = Split(name, folder, random, 1_000_000 * place + 9)
        _fill(split, count)
        split.annotations = _interleaved(split.annotations)
        split.captions = _interleaved(split.captions)
        splits.append(split)
    for name in names:
        FAULTS[name](*splits)
    for split in splits:
        _write(root / f"annotations/instances_{years[split.name]}.json", split, "annotations")
        _write(root / f"annotations/captions_{years[split.name]}.json", split, "captions")
    data: dict[str, Any] = {"root": str(root)}
    for split in splits:
        year = years[split.name]
        data[split.name] = {
            "annotations": f"annotations/instances_{year}.json", "images": year,
            "captions": f"annotations/captions_{year}.json",
        }  # fmt: skip
    if names:
        data["max_left_out"] = 0.8
    return _finished(root, data, splits)


def make_custom_set(root: Path, images: int = 48, seed: int = 0) -> CocoSet:
    """Write one file of annotations, images in folders beside it, and a share that is held out."""
    folder = root / "pictures/a"
    folder.mkdir(parents=True)
    split = Split("train", folder, np.random.default_rng([seed, 2]), 0)
    _fill(split, images)
    for image in split.images:
        image["file_name"] = f"pictures/a/{image['file_name']}"
    _write(root / "labels.json", split, "annotations")
    data = {"root": str(root), "train": {"annotations": "labels.json"}, "held_out": 0.25}
    return _finished(root, data, [split])


def _finished(root: Path, data: dict[str, Any], splits: list[Split]) -> CocoSet:
    expected = tuple(row for split in splits for row in split.expected)
    return CocoSet(root, data, expected, {k: v for s in splits for k, v in s.truth.items()})
