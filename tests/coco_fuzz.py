"""Random damage to annotation files; run as a program, so that a crash of C code is seen.

    python tests/coco_fuzz.py FOLDER FIRST LAST

builds an index for each seed from FIRST to LAST and prints one line of JSON each: `error` (the
class and text of what was raised, empty if nothing was), `lost` (records of which the index says
nothing) and `refused` (whether the data set was refused).
"""

import copy
import json
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
from coco_set import CocoSet, make_coco_set

from mixlens.errors import MixlensError
from mixlens.sources.coco.build import build_index
from mixlens.sources.coco.index import open_index
from mixlens.spec import CocoSpec

GARBAGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, -(2**31), 2**31, 2**53 + 1, 2**63, 2**64, -(2**200), 0.5, -0.0,
    1e-300, 1e308, -1e308, "", "x", "1", "../../etc/passwd", "/dev/zero", "a\0b", "\u202e\u4f60",
    "nan", "x" * 5000, [], {}, [[]], [None], [[], []], [1, 2, 3], [[1, 2, 3]], [[5] * 6],
    [[1e308] * 8], [0, 0, 10, 10], [-5, -5, 1e9, 1e9], [1e308, 1e308, 1e308, 1e308], {"size": None},
    {"size": [120, 160], "counts": "0000"}, {"size": [120, 160], "counts": [-1, 19201]},
    {"size": [2**31 - 1, 2**31 - 1], "counts": "oooo0"}, {"id": 1}, [[[[[[[[[[1]]]]]]]]]],
)  # fmt: skip


def mutated(chance: Random, document: dict[str, list[Any]], lists: list[str]) -> dict:
    """A copy with one to twelve changes to records of these lists, or to what lies inside them."""
    document = copy.deepcopy(document)
    for _ in range(chance.randint(1, 12)):
        records = document[chance.choice(lists)]
        place = chance.randrange(len(records))
        record = records[place]
        what = chance.random()
        if what < 0.04 or not isinstance(record, dict) or not record:
            records[place] = copy.deepcopy(chance.choice(GARBAGE))
        elif what < 0.1:
            records.insert(chance.randrange(len(records)), copy.deepcopy(record))
        elif what < 0.16:
            del record[chance.choice(list(record))]
        elif what < 0.22:
            other = chance.choice(records)
            if isinstance(other, dict) and other:
                name = chance.choice(list(other))
                record[name] = copy.deepcopy(other[name])
        else:
            _garble(chance, record)
    return document


def _garble(chance: Random, inside: Any) -> None:
    """Overwrite a field, or something below it, or a letter of a text."""
    key = chance.choice(list(inside)) if isinstance(inside, dict) else chance.randrange(len(inside))
    value = inside[key]
    if isinstance(value, list | dict) and value and chance.random() < 0.6:
        _garble(chance, value)
    elif isinstance(value, str) and value and chance.random() < 0.5:
        place = chance.randrange(len(value))
        inside[key] = value[:place] + chr(chance.randrange(32, 127)) + value[place + 1 :]
    elif isinstance(value, int | float) and chance.random() < 0.4:
        inside[key] = value * chance.choice((-1, 10, 0.5, 1e6)) + chance.choice((0, 1, -1))
    else:
        inside[key] = copy.deepcopy(chance.choice(GARBAGE))


def lost(made: CocoSet, spec: CocoSpec) -> dict[str, int]:
    """Records that are neither used, nor in the table, nor go with an image that is."""
    index = open_index(Path(spec.index))
    rows = pq.read_table(Path(spec.index) / "left_out.parquet").to_pylist()
    gone = Counter(
        (r["split"], r["what"])
        for r in rows
        if r["outcome"] == "left_out" or r["reason"] == "same_file"
    )
    missing = {}
    for place, (split, year) in enumerate((("train", "train2017"), ("held_out", "val2017"))):
        listed = json.loads((made.root / f"annotations/instances_{year}.json").read_text())
        captions = json.loads((made.root / f"annotations/captions_{year}.json").read_text())
        own = [row for row, of in enumerate(index.split) if of == place]
        kept = {int(index.image_id[row]) for row in own}
        photos = [index.photo(row) for row in own]
        left = {r["image_id"] for r in rows if (r["split"], r["what"]) == (split, "image")} - kept
        objects = sum(len(photo.category) for photo in photos)
        sentences = sum(len(photo.captions) for photo in photos)
        found = {
            "images": (listed["images"], "image", len(own)),
            "annotations": (listed["annotations"], "annotation", objects),
            "captions": (captions["annotations"], "caption", sentences),
        }
        for name, (records, what, used) in found.items():
            told = Counter(
                r["image_id"] for r in rows
                if (r["split"], r["what"]) == (split, what) and r["outcome"] == "left_out"
            )  # fmt: skip
            with_image = 0
            if what != "image":
                of = Counter(
                    r["image_id"] for r in records
                    if isinstance(r, dict) and type(r.get("image_id")) is int
                )  # fmt: skip
                with_image = sum(of[i] - told[i] for i in left if i != -1)
            difference = len(records) - used - gone[split, what] - with_image
            if difference:
                missing[f"{split} {name}"] = difference
    return missing


def main(folder: Path, first: int, last: int) -> None:
    made = make_coco_set(folder / "set", train=6, held_out=4, seed=3, faults=False)
    sound = {path: json.loads(path.read_text()) for path in made.files()}
    for seed in range(first, last):
        chance = Random(seed)
        for path, document in sound.items():
            lists = [name for name in ("images", "annotations") if document.get(name)]
            lists = ["annotations"] if path.name.startswith("captions") else lists + lists[1:]
            if "categories" in document and chance.random() < 0.03:
                lists = ["categories"]
            path.write_text(json.dumps(mutated(chance, document, lists)))
        data = CocoSpec.model_validate(made.data | {"max_left_out": 0.99})
        result: dict[str, Any] = {"seed": seed, "error": "", "lost": {}, "refused": False}
        try:
            spec = build_index("fuzz", data, folder / f"indexes{seed}", lambda *_: None)
            result["lost"] = lost(made, spec)
        except MixlensError as error:
            result |= {"refused": True, "message": str(error)}
        except Exception as error:
            result["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
