"""Before a job starts: every data set that it uses gets its index."""

import sys
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from mixlens.design import SweepSpec
from mixlens.errors import MixlensError
from mixlens.sources import RECORD, contents_of, index_data_set
from mixlens.spec import DataSet, MeasureSpec
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
    indexes = Path(spec.runs_dir).expanduser().absolute() / "indexes"
    data: dict[str, DataSet] = {}
    with StageView(sys.stdout) as view:
        for name, one in used.items():
            before = {record.parent for record in indexes.glob(f"{name}-*/{RECORD}")}
            try:
                data[name] = index_data_set(name, _placed(one), indexes, view.stage(f"data.{name}"))
            except MixlensError as error:
                text = str(error)  # of what was read before the name was known: `root: ...`
                place = f"data.{name}." if text.startswith("root:") else ""
                raise type(error)(place + text) from error
            index, contents = Path(data[name].index), contents_of(name, data[name])
            for line in contents.told if contents else ():
                view.say(line)
            view.say(f"data.{name}: index {'used again' if index in before else 'made'}: {index}")
    return spec.model_copy(update={"data": data})


def _placed(data: DataSet) -> DataSet:
    """With a folder named absolutely, because workers have other working directories."""
    root = data.root
    if root.startswith("file://"):  # it may be relative too
        root = unquote(root.removeprefix("file://"))
    if "://" in root:
        return data
    return data.model_copy(update={"root": str(Path(root).expanduser().absolute())})
