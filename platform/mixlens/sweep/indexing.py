"""Before a job starts: every data set that it uses gets its index."""

import sys
from pathlib import Path
from typing import TypeVar

from mixlens.errors import MixlensError
from mixlens.spec import CocoSpec, MeasureSpec, SweepSpec
from mixlens.spec.held_out import used_data
from mixlens.sweep.progress import StageView

WithData = TypeVar("WithData", SweepSpec, MeasureSpec)


def index_data(spec: WithData) -> WithData:
    """The spec with the index of each data set that a component names, and without the others.

    Finished indexes are reused.

    Raises:
        MixlensError: a data set that is not there or cannot be used, by its name in the file.
    """
    used = used_data(spec, list(spec.components))
    if not used:
        return spec.model_copy(update={"data": {}})
    from mixlens.sources.coco.build import build_index

    indexes = Path(spec.runs_dir).expanduser().absolute() / "indexes"
    data: dict[str, CocoSpec] = {}
    with StageView(sys.stdout) as view:
        for name, one in used.items():
            try:
                data[name] = build_index(name, _placed(one), indexes, view.stage(f"data.{name}"))
            except MixlensError as error:
                text = str(error)  # of what was read before the name was known: `root: ...`
                place = "" if text.startswith("data.") else f"data.{name}."
                raise type(error)(place + text) from error
    return spec.model_copy(update={"data": data})


def _placed(data: CocoSpec) -> CocoSpec:
    """With a folder named absolutely, because workers have other working directories."""
    if "://" in data.root:
        return data
    return data.model_copy(update={"root": str(Path(data.root).expanduser().absolute())})
