"""Masks made to harm what reads them; run as a program, so that a crash of C code is seen.

    python tests/coco_hostile.py FOLDER SEED COUNT

puts COUNT annotations with damaged run lengths and polygons on one image, builds the index, and
prints one line of JSON: `wrong` (those whose outcome or area is not what a slow reader says),
`used` (how many were sound after all), `left` (an area too many) and `equal` (covered fraction and
occlusion of another image, with three equal masks that have empty runs).
"""

import json
import re
import sys
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from coco_set import CocoSet, compressed, make_coco_set, uncompressed
from coco_truth import slow_run_lengths, text_of_run_lengths

from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.index import open_index
from mixlens.spec import CocoSpec

WIDTH, HEIGHT = 160, 120
PIXELS = WIDTH * HEIGHT
EMPTY_RUNS = [4800, 2400, 0, 2400, 0, 0, 2400, 2400, 4800, 0]  # 3 of 8 pixels
LONG = re.compile("[P-o]{6}")
NUMBERS = (0.0, -0.0, 1e-320, 0.5, 20.0, 159.999, 160.0, -1e3, 1e4, 2.0**31, -(2.0**31), 2.0**32,
           2.0**53, 2.0**63, 1e18, -1e18, 1e300)  # fmt: skip


def hostile(chance: Random) -> Any:
    """Run lengths or polygons, most of them damaged."""
    kind = chance.randrange(6)
    if kind == 0:  # letters of a sound text changed
        text = list(compressed(_mask(chance))["counts"])
        for _ in range(chance.randint(0, 3)):
            letter = chr(chance.randrange(40, 118))
            place = chance.randrange(len(text) + 1)
            text[place : place + chance.randint(0, 2)] = [letter] * chance.randint(0, 2)
        return {"size": [HEIGHT, WIDTH], "counts": "".join(text)}
    if kind == 1:  # any letters
        letters = [chr(chance.randrange(48, 112)) for _ in range(chance.randint(1, 30))]
        return {"size": [HEIGHT, WIDTH], "counts": "".join(letters)}
    if kind == 2:  # sound sums of odd runs, in more digits than they need
        runs = _runs(chance)
        return {"size": [HEIGHT, WIDTH], "counts": text_of_run_lengths(runs, chance.randint(0, 9))}
    if kind == 3:
        return {"size": [HEIGHT, WIDTH], "counts": _runs(chance)}
    if kind == 4:
        runs = uncompressed(_mask(chance))["counts"]
        runs[chance.randrange(len(runs))] += chance.choice((-1, 1, 2**31, 2**32, -(2**32)))
        return {"size": [HEIGHT, WIDTH], "counts": runs}
    corners = chance.randint(1, 12)
    points = [chance.uniform(-20, 180) for _ in range(2 * corners)]
    for _ in range(chance.randint(0, 3)):
        points[chance.randrange(len(points))] = chance.choice(NUMBERS)
    return [points[: len(points) - (chance.random() < 0.1)]] * chance.randint(1, 3)


def _mask(chance: Random) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for _ in range(chance.randint(1, 4)):
        x, y = chance.randrange(WIDTH), chance.randrange(HEIGHT)
        mask[y : y + chance.randint(1, 50), x : x + chance.randint(1, 50)] = True
    return mask


def _runs(chance: Random) -> list[int]:
    """Runs that fill the picture, with empty ones, and sometimes a negative one between."""
    cuts = sorted(chance.randrange(PIXELS + 1) for _ in range(chance.randint(0, 9)))
    runs = [end - start for start, end in zip([0, *cuts], [*cuts, PIXELS], strict=True)]
    for _ in range(chance.randint(0, 2)):
        place, by = chance.randrange(len(runs)), chance.choice((0, 0, 7, 2**31, 2**40))
        runs[place : place + 1] = [runs[place] + by, -by] if by else [0, 0, runs[place]]
    return runs


def slow_area(segmentation: Any) -> int | None:
    """Pixels of a mask of run lengths; None if it is damaged."""
    counts = segmentation["counts"]
    runs = slow_run_lengths(counts) if isinstance(counts, str) else counts
    if not runs or min(runs) < 0 or sum(runs) != PIXELS:
        return None
    return sum(runs[1::2])


def main(folder: Path, seed: int, count: int) -> None:
    made = make_coco_set(folder / "set", train=4, held_out=1, seed=seed, faults=False)
    segmentations = _put(made, Random(seed), count)
    data = CocoSpec.model_validate(made.data | {"max_left_out": 1.0})
    spec = build_index("hostile", data, folder / "indexes", lambda *_: None)
    index = open_index(Path(spec.index))
    photo = index.photo(0)
    of_equal = index.attributes(3)
    told = pq.read_table(Path(spec.index) / "left_out.parquet").to_pylist()
    gone = {r["id"]: r["reason"] for r in told if r["outcome"] == "left_out"}
    areas = iter(photo.area.tolist())
    wrong = []
    for number, segmentation in enumerate(segmentations):
        area = None if number in gone else next(areas)
        if isinstance(segmentation, dict):
            slow = slow_area(segmentation)
            # Numbers of seven digits or more need not be read: no picture has so many pixels.
            long = isinstance(segmentation["counts"], str) and LONG.search(segmentation["counts"])
            right = area == slow or (slow == 0 and gone.get(number) == "zero_area")
            right |= bool(long) and gone.get(number) == "bad_mask"
        else:
            right = number in gone or 0 < area <= PIXELS
        if not right:
            wrong.append([number, segmentation, area, gone.get(number)])
    equal = [of_equal["covered_fraction"], of_equal["occlusion"]]
    used = len(photo.area)
    print(json.dumps({"wrong": wrong, "used": used, "left": next(areas, None), "equal": equal}))


def _put(made: CocoSet, chance: Random, count: int) -> list[Any]:
    """The image's annotations in the file are these alone; their ids are 0, 1, 2 ..."""
    path = made.root / "annotations/instances_train2017.json"
    document = json.loads(path.read_text())
    segmentations = [hostile(chance) for _ in range(count)]
    ids = [image["id"] for image in document["images"]]
    owned = [(ids[0], segmentation) for segmentation in segmentations]
    owned += [(ids[3], {"size": [HEIGHT, WIDTH], "counts": EMPTY_RUNS})] * 3
    document["annotations"] = [
        {"id": number, "image_id": owner, "category_id": 18, "iscrowd": 0,
         "bbox": [0, 0, WIDTH, HEIGHT], "area": 1, "segmentation": segmentation}
        for number, (owner, segmentation) in enumerate(owned)
    ]  # fmt: skip
    path.write_text(json.dumps(document))
    return segmentations


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
