"""Photographs with questions from their annotations, as a source."""

import time
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mixlens.errors import DataError, explain
from mixlens.sources.coco.files import Files, open_files
from mixlens.sources.coco.index import CocoIndex, open_index
from mixlens.sources.coco.ledger import SPLITS
from mixlens.sources.coco.strata import in_strata
from mixlens.sources.example import Example
from mixlens.spec import HELD_OUT_START, CocoComponent, CocoSpec
from mixlens.tasks.photo import GROUPS, ask_photo

TRAIN, HELD_OUT = range(len(SPLITS))  # as in the index
_PAUSES_S = (0.2, 0.4, 0.0)  # after each attempt to read a file that failed
_ORDER_SEED = 0


class CocoSource:
    """The photographs of one component: training images from 0, held-out ones from 2**62 on.

    Images are the bytes of their files; those of a file that cannot be read are empty, and what
    decodes them deals with it.

    Attributes:
        name: name of the component.
        spec: what it contains.
        size: training images that lie in the strata and can carry a turn.
        held_out_size: held-out images of the same kind.
        is_remote: whether reading an image waits for a network.

    Raises:
        DataError: the data set has no index yet.
        SpecError: a stratum of an attribute that images do not have, or that is no number.
    """

    def __init__(self, name: str, spec: CocoComponent, data: CocoSpec) -> None:
        if not data.index:
            raise DataError(
                explain(f"data.{spec.data}", data.root, "has no index yet",
                        "Open it as a job does, by mixlens.sources.coco.build.build_index.")
            )  # fmt: skip
        self.name = name
        self.spec = spec
        self._index, self._files = _opened(data.index, data.root)
        self._rows = _rows(name, spec.model_dump_json(), data.index)
        self.size, self.held_out_size = (len(rows) for rows in self._rows)
        self.is_remote = not self._files.is_local

    def __getitem__(self, index: int) -> Example:
        split, place = divmod(index, HELD_OUT_START)
        if index < 0 or split > HELD_OUT or place >= len(self._rows[split]):
            raise DataError(
                explain(f"component {self.name}", index, "there is no example with this index",
                        f"It has {self.size} images to train on and {self.held_out_size} held out.")
            )  # fmt: skip
        row = int(self._rows[split][place])
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

    def sizes(self, held_out: bool) -> Int64[np.ndarray, "images 2"]:
        """Height and width of each image, as the index has them."""
        return self._index.sizes(self._rows[HELD_OUT if held_out else TRAIN])

    def file_name(self, index: int) -> str:
        """The name of the image's file, for people."""
        split, place = divmod(index, HELD_OUT_START)
        return self._index.file_name(int(self._rows[split][place]))

    def _read(self, path: str) -> bytes:
        for pause in _PAUSES_S:
            try:
                return self._files.read(path)
            except FileNotFoundError:
                break
            except OSError:  # an object store that is busy for a moment
                time.sleep(pause)
        return b""


@lru_cache(maxsize=8)
def _opened(index: str, root: str) -> tuple[CocoIndex, Files]:
    return open_index(Path(index)), open_files(root)


@lru_cache(maxsize=64)
def _rows(
    name: str, component: str, folder: str
) -> tuple[Int64[np.ndarray, " train"], Int64[np.ndarray, " held_out"]]:
    """Rows of the index that belong to a component: of training and of held-out images.

    Held-out ones come in a shuffled order, the same for every component, because the first so many
    of them are used and files may be sorted.
    """
    spec = CocoComponent.model_validate_json(component)
    index = open_index(Path(folder))
    asked = sum(1 << GROUPS.index(group) for group in spec.tasks)
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
