"""Sources: index -> Example, one row contract for every kind of component."""

from collections.abc import Mapping
from pathlib import Path

from mixlens.sources.example import Example, from_row, to_row
from mixlens.sources.kinds import DATA_SETS, SOURCES
from mixlens.sources.source import RECORD, Contents, Progress, Source
from mixlens.spec import ComponentSpec, DataSet

__all__ = [
    "RECORD",
    "Contents",
    "Example",
    "Progress",
    "Source",
    "contents_of",
    "from_row",
    "index_data_set",
    "open_source",
    "to_row",
]


def open_source(
    name: str, spec: ComponentSpec, data: Mapping[str, DataSet] | None = None
) -> Source:
    """The source of a component, checked before the first example is made.

    Args:
        name: name of the component; example ids are `name/index`.
        spec: what it contains.
        data: the data sets that components name, each with its index.

    Raises:
        SpecError: no image can be as the spec says.
    """
    own = None if spec.data_set is None else (data or {})[spec.data_set]
    return SOURCES[spec.kind](name, spec, own)


def index_data_set(name: str, data: DataSet, indexes: Path, progress: Progress) -> DataSet:
    """The data set with its index, which is made if there is none of the same content.

    Args:
        name: of the data set, under `data` in the sweep file.
        data: where its files are.
        indexes: the folder of all indexes.
        progress: see `Progress`.

    Raises:
        DataError: the data set is not there, or cannot be used.
        ResourceError: the index cannot be written.
    """
    return DATA_SETS[data.kind].index(name, data, indexes, progress)


def contents_of(name: str, data: DataSet) -> Contents | None:
    """What a data set holds, or None where its index is not there."""
    return DATA_SETS[data.kind].contents(name, data)
