"""Sources: index -> Example, one row contract for generated scenes and photographs."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from mixlens.sources.example import Example, from_row, to_row
from mixlens.sources.synthetic import SyntheticSource
from mixlens.spec import CocoSpec, ComponentSpec

__all__ = ["Example", "Source", "SyntheticSource", "from_row", "open_source", "to_row"]


class Source(Protocol):
    """Random access to examples: those to train on from 0, held-out ones from HELD_OUT_START on."""

    is_remote: bool

    @property
    def size(self) -> int | None:
        """Number of examples to train on, or None if it never ends."""

    @property
    def held_out_size(self) -> int | None:
        """Number of held-out examples, or None if they never end."""

    def __getitem__(self, index: int) -> Example:
        """The example with this index."""

    def sizes(self, held_out: bool) -> Int64[np.ndarray, "images 2"] | None:
        """Height and width of each image that is read from a file, or None if they are generated.

        Args:
            held_out: whether of the held-out images; else of those to train on.
        """

    def file_name(self, index: int) -> str | None:
        """The name of the file that its image comes from, or None if it is generated."""


def open_source(
    name: str, spec: ComponentSpec, data: Mapping[str, CocoSpec] | None = None
) -> Source:
    """The source of a component, checked before the first example is made.

    Args:
        name: name of the component; example ids are `name/index`.
        spec: what it contains.
        data: the data sets that components name, each with its index.

    Raises:
        SpecError: no scene can be as the spec says, or its strata are of no attribute.
    """
    if spec.kind == "synthetic":
        return SyntheticSource(name, spec)
    from mixlens.sources.coco.source import CocoSource  # those who only draw scenes go without

    return CocoSource(name, spec, (data or {})[spec.data])
