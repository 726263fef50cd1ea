"""All kinds of components and of data sets, as `mixlens.spec.kinds` names them: how each is read.

What a kind needs is imported when one is used: those who only draw scenes go without the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixlens.sources.source import Contents, Progress, Source
from mixlens.spec import CocoComponent, CocoSpec, SceneComponent


@dataclass(frozen=True)
class DataSetKind:
    """How the data sets of one kind are read.

    Attributes:
        index: (name, data set, folder of all indexes, progress) -> the data set with `index` and
            `fingerprint`. It makes a folder <name>-<fingerprint> there with a record.json, written
            last, or uses the one that is there. Raises a DataError or ResourceError.
        contents: (name, data set) -> its contents, or None where its index is not there.
    """

    index: Callable[[str, Any, Path, Progress], Any]
    contents: Callable[[str, Any], Contents | None]


def _scenes(name: str, spec: SceneComponent, _: None) -> Source:
    from mixlens.sources.synthetic import SyntheticSource

    return SyntheticSource(name, spec)


def _coco(name: str, spec: CocoComponent, data: CocoSpec) -> Source:
    from mixlens.sources.coco.source import CocoSource

    return CocoSource(name, spec, data)


def _coco_index(name: str, data: CocoSpec, indexes: Path, progress: Progress) -> CocoSpec:
    from mixlens.sources.coco.build import build_index

    return build_index(name, data, indexes, progress)


def _coco_contents(name: str, data: CocoSpec) -> Contents | None:
    from mixlens.sources.coco.contents import contents

    return contents(name, data)


SOURCES: dict[str, Callable[[str, Any, Any], Source]] = {"synthetic": _scenes, "coco": _coco}
"""Kind of component -> (name, component, its data set or None) -> its source."""

DATA_SETS = {"coco": DataSetKind(_coco_index, _coco_contents)}
"""Kind of data set -> how it is read."""
