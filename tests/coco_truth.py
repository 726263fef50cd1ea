"""Attributes of photographs from pycocotools' own reader of annotations, slowly, in pixels."""

import contextlib
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO


def read_coco(annotations: Path) -> COCO:
    """The reader of pycocotools, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(annotations))


def slow_attributes(coco: COCO, image_id: int, without: frozenset[int] = frozenset()) -> dict:
    """What `attributes` must say of an image that is upright; pixel by pixel.

    Args:
        coco: of the image's split.
        image_id: of the image.
        without: ids of annotations that are left out.
    """
    image = coco.imgs[image_id]
    pixels = image["width"] * image["height"]
    annotations = [a for a in coco.imgToAnns[image_id] if a["id"] not in without]
    masks = [pixels_of(coco.annToRLE(a)) for a in annotations]
    own = [place for place, a in enumerate(annotations) if not a["iscrowd"]]
    kinds = [coco.cats[a["category_id"]] for a in annotations]
    names = [kinds[place]["name"] for place in own]
    groups = [kinds[place]["supercategory"] for place in own]
    sizes = np.array([np.sqrt(masks[place].sum() / pixels) for place in own])
    crowds = [mask for mask, a in zip(masks, annotations, strict=True) if a["iscrowd"]]
    return {
        "object_count": len(own),
        "category_count": len(set(names)),
        "supercategory_count": len(set(groups)),
        "category_diversity": _entropy(names),
        "supercategory_diversity": _entropy(groups),
        "size_mean": sizes.mean() if own else 0.0,
        "size_variance": ((sizes - sizes.mean()) ** 2).mean() if own else 0.0,
        "size_spread": sizes.max() - sizes.min() if own else 0.0,
        "crowding": _crowding([annotations[place]["bbox"] for place in own]) / np.sqrt(pixels)
        if len(own) > 1
        else 1.0,
        "occlusion": np.mean([_shared(place, masks) for place in own]) if own else 0.0,
        "covered_fraction": _union(masks) / pixels,
        "crowd_fraction": _union(crowds) / pixels,
        "object_area_mean": np.mean([masks[place].sum() for place in own]) / pixels if own else 0.0,
        "dominant_category": _dominant([kind["name"] for kind in kinds], masks),
        "dominant_supercategory": _dominant([kind["supercategory"] for kind in kinds], masks),
    }


def _entropy(names: list[str]) -> float:
    shares = [n / len(names) for n in Counter(names).values()]
    return float(-sum(p * np.log(p) for p in shares)) if names else 0.0


def _crowding(boxes: list[Any]) -> float:
    """Mean distance of a box's centre to the nearest other one, pixels."""
    centres = [np.array([x + w / 2, y + h / 2]) for x, y, w, h in boxes]
    nearest = [
        min(float(np.linalg.norm(a - b)) for j, b in enumerate(centres) if j != i)
        for i, a in enumerate(centres)
    ]
    return float(np.mean(nearest))


def _shared(place: int, masks: list[np.ndarray]) -> float:
    """Share of a mask that lies in the others, summed over these; at most 1."""
    others = [mask for other, mask in enumerate(masks) if other != place]
    return min(1.0, float(sum((masks[place] & mask).sum() for mask in others) / masks[place].sum()))


def _union(masks: list[np.ndarray]) -> int:
    return int(np.any(masks, axis=0).sum()) if masks else 0


def _dominant(names: list[str], masks: list[np.ndarray]) -> str:
    areas: Counter[str] = Counter()
    for name, mask in zip(names, masks, strict=True):
        areas[name] += int(mask.sum())
    return min(areas, key=lambda name: (-areas[name], name)) if areas else "nothing"


def pixels_of(rle: dict[str, Any]) -> np.ndarray:
    """Height x width booleans of pycocotools' run lengths.

    Its own decoder does the same, with a warning about NumPy for each mask.
    """
    counts = rle["counts"]
    runs = slow_run_lengths(counts if isinstance(counts, str) else counts.decode())
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(rle["size"], order="F")


def slow_run_lengths(text: str) -> list[int] | None:
    """The runs that COCO's string stands for; None where it ends inside of a number.

    Digits of five bits, the least first, with a sixth bit if more follow; the highest bit of the
    last one is the sign; from the fourth number on, differences to the last but one.
    """
    runs: list[int] = []
    value = digits = 0
    for letter in text:
        digit = ord(letter) - 48
        if not 0 <= digit < 64:
            return None
        value |= (digit & 31) << 5 * digits
        digits += 1
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << 5 * digits
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = digits = 0
    return None if digits else runs


def text_of_run_lengths(runs: list[int], padding: int = 0) -> str:
    """COCO's string, each number with so many digits more than it needs."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        more, spare = True, padding
        while more or spare >= 0:
            digit = value & 31
            value >>= 5
            done = value == (-1 if digit & 16 else 0)
            spare -= done
            more = not done
            text += chr(48 + digit + (32 if more or spare >= 0 else 0))
    return text
