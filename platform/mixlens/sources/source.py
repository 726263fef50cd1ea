"""What every source of examples gives, whichever kind of component and data set is behind it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from mixlens.sources.example import Attributes, Example

RECORD = "record.json"  # in the folder of an index, written last

Progress = Callable[[str, int, int], None]
"""Is told a stage, how many things of it are done, and of how many."""


class Source(Protocol):
    """The examples of one component: those to train on from index 0, held-out ones from 2**62 on.

    Opening a source reads nothing: it refuses what the component alone tells to be impossible.
    What needs the index of a data set raises a DataError where there is none.

    Attributes:
        is_remote: whether reading an image waits for a network.
        is_replaceable: whether an image may turn out to be damaged when it is decoded, so that
            training takes another one of the component in its place.
    """

    @property
    def is_remote(self) -> bool: ...

    @property
    def is_replaceable(self) -> bool: ...

    @property
    def size(self) -> int | None:
        """Number of examples to train on, or None if it never ends."""

    @property
    def held_out_size(self) -> int | None:
        """Number of held-out examples, or None if they never end."""

    def example(self, index: int) -> Example:
        """The example with this index: the same one every time.

        Raises:
            DataError: there is no such example.
        """

    def attributes(self, index: int) -> Attributes:
        """What is known of the image of an example; no file of an image is read for it."""

    def attribute_names(self) -> list[str]:
        """The names of what is known of every image, sorted."""

    def sizes(self, held_out: bool) -> Int64[np.ndarray, "images 2"] | None:
        """Height and width of each image that is read from a file, or None if they are generated.

        Args:
            held_out: whether of the held-out images; else of those to train on.
        """

    def file_name(self, index: int) -> str | None:
        """The name of the file that its image comes from, or None if it is generated."""

    def describe(self) -> str:
        """Which images these are, in words that end no sentence."""

    def caveats(self) -> list[str]:
        """Sentences on what numbers about these images do not say."""


@dataclass(frozen=True)
class Contents:
    """What a data set holds, as its index says.

    Attributes:
        images: how many can be used, by split: `train` and `held_out`.
        told: lines of a job's output: what there is, what was left out, how files were read.
        notes: sentences for a page on how its files were understood; none of an ordinary data set.
        left_out: a Parquet file, a row for everything that was left out, repaired, assumed or
            taken for a region: split, what, outcome, reason (text), image_id, id (int64; -1 if
            unknown), file_name, detail (text).
    """

    images: Mapping[str, int]
    told: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: Path
