"""Photographs with questions from their annotations, as a source."""

import time
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mixlens.errors import DataError, explain
from mixlens.sources.coco.attributes import NAMES, NUMBERS
from mixlens.sources.coco.index import CocoIndex, open_index
from mixlens.sources.coco.ledger import SPLITS
from mixlens.sources.coco.strata import check_stratum, in_strata
from mixlens.sources.example import Attributes, Example
from mixlens.sources.files import Files, open_files
from mixlens.spec import HELD_OUT_START, CocoComponent, CocoSpec
from mixlens.tasks.photo import PHOTO_GROUPS, ask_photo

TRAIN, HELD_OUT = range(len(SPLITS))  # as in the index
_PAUSES_S = (0.2, 0.4, 0.0)  # after each attempt to read a file that failed
_ORDER_SEED = 0


class CocoSource:
    """The photographs of one component: training images from 0, held-out ones from 2**62 on.

    Images are the bytes of their files; those of a file that cannot be read are empty, and what
    decodes them deals with it.

    Its index is opened when it is first needed.

    Attributes:
        name: name of the component.
        spec: what it contains.
        is_replaceable: True: files can be damaged, or go away.

    Raises:
        SpecError: a stratum of an attribute that images do not have, or that is no number.
    """

    is_replaceable = True

    def __init__(self, name: str, spec: CocoComponent, data: CocoSpec) -> None:
        for attribute in spec.strata:
            check_stratum(f"components.{name}.strata", attribute)
        self.name = name
        self.spec = spec
        self._data = data

    @property
    def size(self) -> int:
        """Training images that lie in the strata and can carry a turn."""
        return len(self._rows[TRAIN])

    @property
    def held_out_size(self) -> int:
        """Held-out images of the same kind."""
        return len(self._rows[HELD_OUT])

    @property
    def is_remote(self) -> bool:
        """Whether reading an image waits for a network."""
        return not self._files.is_local

    def example(self, index: int) -> Example:
        """The image with this index as bytes, and the turns about it."""
        row = self._row(index)
        return Example(
            example_id=f"{self.name}/{index}",
            component=self.name,
            image=self._read(self._index.path(row)),
            # By the row, so that an image is asked the same in whichever stratum it is.
            turns=ask_photo(
                self._index.photo(row),
                self._index.categories,
                self._index.possible,
                self.spec.tasks,
                self.spec.seed,
                row,
            ),
            attributes=self._index.attributes(row),
        )

    def attributes(self, index: int) -> Attributes:
        """What the annotations of an image say of it as a whole."""
        return self._index.attributes(self._row(index))

    def attribute_names(self) -> list[str]:
        """Those of every photograph; the index is not needed."""
        return sorted([*NAMES, *NUMBERS])

    def sizes(self, held_out: bool) -> Int64[np.ndarray, "images 2"]:
        """Height and width of each image, as the index has them."""
        return self._index.sizes(self._rows[HELD_OUT if held_out else TRAIN])

    def file_name(self, index: int) -> str:
        """The name of the image's file, for people."""
        return self._index.file_name(self._row(index))

    def describe(self) -> str:
        """The data set and the strata."""
        strata = [
            f"{attribute.replace('_', ' ')} between quantiles {low:g} and {high:g}"
            for attribute, (low, high) in self.spec.strata.items()
        ]
        return f"photographs of {self.spec.data}" + (f" with {' and '.join(strata)}" * bool(strata))

    def caveats(self) -> list[str]:
        """On what attributes of photographs rest."""
        return [
            "Attributes of photographs follow their annotations: what nobody annotated is no "
            "object, objects in crowd regions are not counted, and since masks do not say who is "
            "in front, occlusion is an estimate."
        ]

    @cached_property
    def _index(self) -> CocoIndex:
        if not self._data.index:
            raise DataError(
                explain(f"data.{self.spec.data}", self._data.root, "has no index yet",
                        "Open it as a job does, by mixlens.sources.index_data_set.")
            )  # fmt: skip
        return open_index(Path(self._data.index))

    @cached_property
    def _files(self) -> Files:
        return _open_files(self._data.root)

    @cached_property
    def _rows(self) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " held_out"]]:
        return _rows_of(self.name, self.spec.model_dump_json(), self._index)

    def _row(self, index: int) -> int:
        """The row of the index that an example is in."""
        split, place = divmod(index, HELD_OUT_START)
        if index < 0 or split > HELD_OUT or place >= len(self._rows[split]):
            raise DataError(
                explain(f"component {self.name}", index, "there is no example with this index",
                        f"It has {self.size} images to train on and {self.held_out_size} held out.")
            )  # fmt: skip
        return int(self._rows[split][place])

    def _read(self, path: str) -> bytes:
        for pause in _PAUSES_S:
            try:
                return self._files.read(path)
            except FileNotFoundError:
                break
            except OSError:  # an object store that is busy for a moment
                time.sleep(pause)
        return b""


_open_files = lru_cache(maxsize=8)(open_files)


@lru_cache(maxsize=64)
def _rows_of(
    name: str, component: str, index: CocoIndex
) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " held_out"]]:
    """Rows of the index that belong to a component: of training and of held-out images.

    Held-out ones come in a shuffled order, the same for every component, because the first so many
    of them are used and files may be sorted.
    """
    spec = CocoComponent.model_validate_json(component)
    asked = sum(1 << PHOTO_GROUPS.index(group) for group in spec.tasks)
    can_carry = (index.carries & asked) != 0
    rows = []
    for split in (TRAIN, HELD_OUT):
        of_split = index.split == split
        own = of_split & can_carry
        for attribute, bounds in spec.strata.items():
            own &= in_strata(f"components.{name}.strata", index, attribute, bounds, of_split)
        rows.append(np.flatnonzero(own))
    train, held_out = rows
    order = np.random.default_rng(_ORDER_SEED).permutation(len(index.split))
    return train, held_out[np.argsort(order[held_out])]
