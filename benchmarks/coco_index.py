"""The index of a data set as large as COCO train2017: python benchmarks/coco_index.py.

Writes an annotation file of the shape of instances_train2017.json (118,287 images, 860,001 objects,
polygons of 43 numbers, crowd regions in run lengths) into a temporary folder, and an image file for
each image: links to a few photographs of noise, so that listing and reading their headers costs
what it costs with files in the page cache. Then, each in a process of its own on one core: the
floor (the file read into objects by msgspec, and pycocotools alone on all of them), the index, and
its opening. The last line is one JSON object.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

IMAGES, OBJECTS_AN_IMAGE, CROWDS = 118_287, 860_001 / 118_287, 0.0122
SIZES = ((640, 480), (640, 427), (480, 640), (640, 426), (500, 375), (427, 640), (612, 612))
SHARES = (0.38, 0.22, 0.14, 0.12, 0.05, 0.05, 0.04)
FILES = 63  # photographs of noise; a file can have no more than 65,000 links
CATEGORIES, SUPERCATEGORIES = 80, 12
BATCH = 8192


def write_photographs(folder: Path, chosen: np.ndarray) -> None:
    """A file for every image, of its size; about 160 KB each."""
    random = np.random.default_rng(1)
    sources = []
    for number in range(FILES):
        width, height = SIZES[number % len(SIZES)]
        noise = random.integers(0, 256, (height, width, 3), np.uint8)
        data = io.BytesIO()
        Image.fromarray(noise).save(data, "jpeg", quality=40)
        sources.append(folder / f"source{number}.jpg")
        sources[-1].write_bytes(data.getvalue())
    for image, size in enumerate(chosen.tolist()):
        repeat = image % (FILES // len(SIZES))
        os.link(sources[size + repeat * len(SIZES)], folder / f"{image + 1:012d}.jpg")


def annotations(chosen: np.ndarray) -> Iterator[list[dict[str, Any]]]:
    """Annotations in batches, in an order that is not that of the images."""
    random = np.random.default_rng(2)
    count = round(len(chosen) * OBJECTS_AN_IMAGE)
    weights = random.gamma(1.2, size=len(chosen))
    images = random.choice(len(chosen), count, p=weights / weights.sum())
    for start in range(0, count, BATCH):
        image = images[start : start + BATCH]
        frame = np.array(SIZES)[chosen[image]].astype(float)
        polygons = random.choice([1, 2, 3, 5], len(image), p=[0.88, 0.08, 0.025, 0.015])
        owner = np.repeat(np.arange(len(image)), polygons)
        points = np.clip(random.lognormal(2.92, 0.55, len(owner)), 3, 200).astype(int)
        part = np.repeat(np.arange(len(owner)), points)
        angle = 2 * np.pi * (np.arange(len(part)) - np.repeat(points.cumsum() - points, points))
        angle /= points[part]
        side = np.clip(random.lognormal(-2.4, 0.9, len(image)), 0.012, 0.9)
        radius = (side * np.sqrt(frame.prod(1)) / 2)[owner] / np.sqrt(polygons[owner])
        centre = random.random((len(image), 2))[owner] * frame[owner]
        centre += random.normal(size=centre.shape) * radius[:, None] / 2
        reach = radius[part] * random.uniform(0.75, 1.1, len(part))
        outline = centre[part] + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        outline = np.clip(outline, 0, frame[owner][part]).round(2)
        first = np.concatenate([[0], np.flatnonzero(np.diff(owner[part])) + 1])
        low, high = np.minimum.reduceat(outline, first), np.maximum.reduceat(outline, first)
        box = np.hstack([low, np.maximum(high - low, 1)]).round(2).tolist()
        flat, ends = outline.ravel().tolist(), (2 * points.cumsum()).tolist()
        crowd = random.random(len(image)) < CROWDS
        category = random.zipf(1.4, len(image)) % CATEGORIES + 1
        shapes: list[Any] = [[] for _ in image]
        for polygon, (own, end) in enumerate(zip(owner.tolist(), ends, strict=True)):
            shapes[own].append(flat[end - 2 * int(points[polygon]) : end])
        for own in np.flatnonzero(crowd).tolist():
            width, height = SIZES[chosen[image[own]]]
            cuts = np.sort(random.choice(width * height, 300, replace=False))
            runs = np.diff(cuts, prepend=0, append=width * height).tolist()
            shapes[own] = {"counts": runs, "size": [height, width]}
        yield [
            {
                "segmentation": shapes[own],
                "area": round(box[own][2] * box[own][3] * 0.7, 4),
                "iscrowd": int(crowd[own]),
                "image_id": int(image[own]) + 1,
                "bbox": box[own],
                "category_id": int(category[own]),
                "id": start + own + 1,
            }
            for own in range(len(image))
        ]


def write_document(file: Path, chosen: np.ndarray) -> None:
    """The annotation file."""
    images = [
        {
            "license": 3,
            "file_name": f"{image + 1:012d}.jpg",
            "coco_url": f"http://images.cocodataset.org/train2017/{image + 1:012d}.jpg",
            "height": SIZES[size][1],
            "width": SIZES[size][0],
            "date_captured": "2013-11-14 11:18:45",
            "flickr_url": "http://farm9.staticflickr.com/8186/8119368305_4e622c8349_z.jpg",
            "id": image + 1,
        }
        for image, size in enumerate(chosen.tolist())
    ]
    categories = [
        {"supercategory": f"kind {place % SUPERCATEGORIES}", "id": place + 1, "name": f"c{place}"}
        for place in range(CATEGORIES)
    ]
    encode = msgspec.json.encode
    with file.open("wb") as out:
        out.write(b'{"images":' + encode(images) + b',"categories":' + encode(categories))
        out.write(b',"annotations":[')
        for number, batch in enumerate(annotations(chosen)):
            out.write((b"," if number else b"") + encode(batch)[1:-1])
        out.write(b"]}")


def floor(folder: Path) -> dict[str, float]:
    """The least that anything must do: parse the file, and let pycocotools measure the masks."""
    from pycocotools import mask as coco

    class Annotation(msgspec.Struct, gc=False):
        image_id: int
        segmentation: msgspec.Raw

    class Listed(msgspec.Struct, gc=False):
        id: int
        width: int
        height: int

    class Document(msgspec.Struct):
        images: list[Listed]
        annotations: list[Annotation]

    started = time.perf_counter()
    document = msgspec.json.decode((folder / "annotations.json").read_bytes(), type=Document)
    of_image: dict[int, list[msgspec.Raw]] = {}
    for one in document.annotations:
        of_image.setdefault(one.image_id, []).append(one.segmentation)
    parsed = time.perf_counter()
    for image in document.images:
        masks = []
        for raw in of_image.get(image.id, []):
            shape = msgspec.json.decode(raw)
            rle = coco.frPyObjects(shape, image.height, image.width)
            masks.append(rle if isinstance(rle, dict) else coco.merge(rle))
        if masks:
            coco.iou(masks, masks, [1] * len(masks))
            coco.area(coco.merge(masks))
    done = time.perf_counter()
    return {"read": parsed - started, "pycocotools": done - parsed, "all": done - started}


def index(folder: Path) -> dict[str, float]:
    """Build the index; seconds of each stage."""
    from mixlens.sources.coco.build import build_index
    from mixlens.spec import CocoSpec

    train = {"annotations": "annotations.json", "images": "images"}
    spec = CocoSpec.model_validate({"root": str(folder), "train": train, "max_left_out": 0.05})
    started = time.perf_counter()
    made = build_index("photos", spec, folder / "indexes", lambda *_: None)
    seconds = time.perf_counter() - started
    record = json.loads((Path(made.index) / "record.json").read_text())
    started = time.perf_counter()
    build_index("photos", spec, folder / "indexes", lambda *_: None)
    again = time.perf_counter() - started
    size = sum(file.stat().st_size for file in Path(made.index).iterdir())
    held_out = record["counts"]["images"]["held_out"]
    totals = {"all": seconds, "again": again, "megabytes": size / 2**20, "held_out": held_out}
    return {**record["seconds"], **totals}


def opening(folder: Path) -> dict[str, float]:
    """Open the index, and look at images here and there."""
    from mixlens.sources.coco.index import open_index

    (made,) = (folder / "indexes").iterdir()
    started = time.perf_counter()
    opened = open_index(made)
    seconds = time.perf_counter() - started
    places = np.random.default_rng(3).permutation(len(opened))[:20_000].tolist()
    started = time.perf_counter()
    for row in places:
        opened.photo(row)
        opened.attributes(row)
    return {"open": seconds, "row_us": (time.perf_counter() - started) / len(places) * 1e6}


STAGES = {"floor": floor, "index": index, "opening": opening}


def apart(stage: str, folder: Path) -> dict[str, float]:
    """Run a stage in a process of its own, on one core."""
    command = [sys.executable, __file__, "--stage", stage, "--folder", str(folder)]
    if sys.platform == "linux":
        command = ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0))), *command]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        found = STAGES[options.stage](options.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({**found, "peak_gib": peak}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chosen = np.random.default_rng(0).choice(len(SIZES), options.images, p=SHARES)
        (folder / "images").mkdir()
        write_photographs(folder / "images", chosen)
        write_document(folder / "annotations.json", chosen)
        size = (folder / "annotations.json").stat().st_size / 1e6
        least, built, opened = (apart(stage, folder) for stage in STAGES)
    decoding = built["decode held-out"]
    result = {
        "annotation file: megabytes": size,
        "floor, msgspec and pycocotools alone: seconds": least["all"],
        "of which pycocotools": least["pycocotools"],
        "index without decoding: seconds (goal: below 60)": built["all"] - decoding,
        "of which listing and reading the ends of images": built["list"] + built["inspect"],
        "index without decoding / floor": (built["all"] - decoding) / least["all"],
        "decoding held-out photographs: seconds": decoding,
        "held-out photographs": built["held_out"],
        "peak memory: GiB (goal: below 4)": built["peak_gib"],
        "when it is there already: seconds": built["again"],
        "index: megabytes": built["megabytes"],
        "opening: seconds (goal: below 1)": opened["open"],
        "a photograph and its attributes: microseconds": opened["row_us"],
    }
    totals = ("all", "again", "megabytes", "held_out", "peak_gib")
    stages = {f"stage {key}": value for key, value in built.items() if key not in totals}
    for stage, value in {**stages, **result}.items():
        print(f"{stage:52s} {value:10.4g}")
    print(json.dumps({key: round(value, 4) for key, value in {**stages, **result}.items()}))


if __name__ == "__main__":
    main()
