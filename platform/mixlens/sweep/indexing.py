"""Before a job starts: every data set that it uses gets its index."""

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

from mixlens.design import SweepSpec
from mixlens.errors import MixlensError, read_record
from mixlens.spec import CocoSpec, MeasureSpec
from mixlens.spec.held_out import used_data
from mixlens.sweep.progress import StageView

WithData = TypeVar("WithData", SweepSpec, MeasureSpec)


def index_data(spec: WithData) -> WithData:
    """The spec with the index of each data set that a component names, and without the others.

    Finished indexes are reused. Prints what each data set has, and how much was left out.

    Raises:
        MixlensError: a data set that is not there or cannot be used, by its name in the file.
    """
    used = used_data(spec, list(spec.components))
    if not used:
        return spec.model_copy(update={"data": {}})
    from mixlens.sources.coco.build import build_index
    from mixlens.sources.coco.exif import sentence
    from mixlens.sources.coco.index import RECORD
    from mixlens.sources.coco.notes import notes

    indexes = Path(spec.runs_dir).expanduser().absolute() / "indexes"
    data: dict[str, CocoSpec] = {}
    with StageView(sys.stdout) as view:
        for name, one in used.items():
            before = {record.parent for record in indexes.glob(f"{name}-*/{RECORD}")}
            try:
                data[name] = build_index(name, _placed(one), indexes, view.stage(f"data.{name}"))
            except MixlensError as error:
                text = str(error)  # of what was read before the name was known: `root: ...`
                place = f"data.{name}." if text.startswith("root:") else ""
                raise type(error)(place + text) from error
            index = Path(data[name].index)
            record = read_record(index / RECORD, "counts", "left_out", "exif", "files")
            view.say(f"data.{name}: {_contents(record)}")
            for split, found in record["exif"].items():
                view.say(f"data.{name}.{split}: {sentence(f'data.{name}', found)}")
            for note in notes(record):
                view.say(f"data.{name}: {note}")
            view.say(f"data.{name}: index {'used again' if index in before else 'made'}: {index}")
    return spec.model_copy(update={"data": data})


def _contents(record: Mapping[str, Any]) -> str:
    """What the record of an index says."""
    counts = record["counts"]
    images = counts["images"]
    number = Counter[str]()
    for row in record["left_out"]:
        number[row["outcome"]] += row["count"]
    return (
        f"{images['train']:,} images to train on, {images['held_out']:,} held out; left out: "
        f"{number['left_out']:,} images, annotations and captions; repaired: {number['repaired']:,}"
        + (f"; assumed: {number['assumed']:,}" if number["assumed"] else "")
        + f"; regions of many objects: {number['region']:,} of {counts['objects']:,} annotations"
    )


def _placed(data: CocoSpec) -> CocoSpec:
    """With a folder named absolutely, because workers have other working directories."""
    root = data.root
    if root.startswith("file://"):  # it may be relative too
        root = unquote(root.removeprefix("file://"))
    if "://" in root:
        return data
    return data.model_copy(update={"root": str(Path(root).expanduser().absolute())})
