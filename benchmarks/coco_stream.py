"""How fast photographs become examples with questions: `python benchmarks/coco_stream.py`.

Images a second of one core, from the files of 640 x 480 JPEGs: reading them and making their turns
and attributes from the index, and that with decoding, beside a plain Pillow decode of the same
files in the same run. The photographs are generated (fields with the spectrum of natural images and
hard edges, as large as files of COCO); those of MIXLENS_COCO_ROOT follow if it is set. The last
line is one JSON object.
"""

import gc
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mixlens.sources import open_source
from mixlens.sources.coco.build import build_index
from mixlens.sources.pixels import as_pixels
from mixlens.spec import CocoComponent, CocoFiles, CocoSpec

IMAGES = 200
WIDTH, HEIGHT = 640, 480
OBJECTS = 7.3  # an image on average, as in train2017
ROUNDS = 5  # over all images; the best counts: other work on the machine can only slow one down
TASKS = {"coarse": 2, "attribute": 1, "relational": 1, "scene_graph": 1, "count": 1, "locate": 1}


def photograph(random: np.random.Generator) -> Image.Image:
    """Amplitudes fall with frequency, as in photographs, and there are edges and some noise."""
    down, right = np.meshgrid(np.fft.fftfreq(HEIGHT), np.fft.rfftfreq(WIDTH), indexing="ij")
    fall = 1 / np.maximum(np.hypot(down, right), 1 / WIDTH) ** 1.1
    waves = np.fft.rfft2(random.standard_normal((3, HEIGHT, WIDTH))) * fall
    field = np.fft.irfft2(waves, s=(HEIGHT, WIDTH))
    field = 0.6 * field[:1] + 0.4 * field  # channels of photographs go together
    field = 128 + 52 * field / field.std() + 5 * random.standard_normal(field.shape)
    return Image.fromarray(field.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def make_set(root: Path) -> CocoSpec:
    """A data set in COCO format: photographs with polygons, some of them drawn as edges."""
    random = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, IMAGES + 1):
        picture = photograph(random)
        pen = ImageDraw.Draw(picture)
        for _ in range(random.poisson(OBJECTS)):
            side = 480 * np.exp(random.normal(-1.6, 0.8))
            size = np.clip(side * np.exp(random.normal(0, 0.3, 2)), 8, (600, 440))
            left, top = random.uniform(0, 1, 2) * ((WIDTH, HEIGHT) - size)
            angles = np.sort(random.uniform(0, 2 * np.pi, 24))
            points = np.stack([np.cos(angles), np.sin(angles)], 1) / 2 + 0.5
            points = points * size + (left, top)
            pen.line([tuple(point) for point in points], fill=tuple(random.integers(0, 255, 3)))
            low, high = points.min(0), points.max(0)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(80 * random.random() ** 2) + 1,
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "segmentation": [points.ravel().round(2).tolist()],
                    "area": float(np.prod(high - low) * 0.7),
                    "iscrowd": 0,
                }
            )
        picture.save(root / "images" / f"{number:012d}.jpg", quality=92)
        images.append(
            {"id": number, "file_name": f"{number:012d}.jpg", "width": WIDTH, "height": HEIGHT}
        )
    categories = [
        {"id": n, "name": f"thing {n}", "supercategory": f"kind {n % 12}"} for n in range(1, 81)
    ]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (root / "instances.json").write_text(json.dumps(whole))
    return CocoSpec(root=str(root), train=CocoFiles(annotations="instances.json", images="images"))


def given_set(root: Path) -> CocoSpec:
    """The smallest instances file of a folder that is laid out as COCO is, and its images."""
    found = (root / "annotations").glob("instances_*.json")
    instances = min(found, key=lambda file: file.stat().st_size)
    split = instances.stem.removeprefix("instances_")
    images = next(name for name in (split, "images", "") if (root / name).is_dir())
    return CocoSpec(
        root=str(root),
        train=CocoFiles(annotations=f"annotations/{instances.name}", images=images),
    )


def rates(cases: dict[str, Callable[[int], object]], count: int) -> dict[str, float]:
    """Images a second of the process's own time, in turns: the best round of each."""
    best = dict.fromkeys(cases, 0.0)
    for _ in range(ROUNDS):
        for name, make in cases.items():
            start = time.process_time()
            for index in range(count):
                make(index)
            best[name] = max(best[name], count / (time.process_time() - start))
    return best


def measure(data: CocoSpec, indexes: Path) -> dict[str, float]:
    data = build_index("photographs", data, indexes, lambda *_: None)
    component = CocoComponent(kind="coco", data="photographs", tasks=TASKS)
    source = open_source("photographs", component, {"photographs": data})
    count = min(source.size or 0, IMAGES)
    folder = Path(data.root) / data.train.images
    files = [folder / source.file_name(index) for index in range(count)]
    found = rates(
        {
            "plain Pillow decode": lambda index: np.asarray(
                Image.open(io.BytesIO(files[index].read_bytes())).convert("RGB")
            ),
            "decoding alone": lambda index: as_pixels(files[index].read_bytes()),
            "turns and attributes alone": lambda index: source.example(index),
            "examples with pixels": lambda index: as_pixels(source.example(index).image),
        },
        count,
    )
    plain = found["plain Pillow decode"]
    return {
        "images": count,
        "KB a file": sum(file.stat().st_size for file in files) / count / 1000,
        "turns an image": sum(len(source.example(index).turns) for index in range(count)) / count,
        **{f"{name}: images/s": rate for name, rate in found.items()},
        "decoding / plain decode, time": plain / found["decoding alone"],
        "examples with pixels / plain decode, time": plain / found["examples with pixels"],
    }


def main() -> None:
    gc.freeze()
    result = {}
    with tempfile.TemporaryDirectory() as scratch:
        result["generated"] = measure(make_set(Path(scratch) / "set"), Path(scratch) / "indexes")
        if root := os.environ.get("MIXLENS_COCO_ROOT"):
            result["real"] = measure(given_set(Path(root)), Path(scratch) / "indexes")
    for kind, found in result.items():
        for name, value in found.items():
            print(f"{kind + ', ' + name:55s} {value:10.2f}")
    print(json.dumps({k: {n: round(v, 2) for n, v in f.items()} for k, f in result.items()}))


if __name__ == "__main__":
    main()
