"""Sources: index -> Example, one row contract for generated scenes and photographs."""

from typing import Protocol

from mixlens.sources.example import Example, from_row, to_row
from mixlens.sources.synthetic import SyntheticSource
from mixlens.spec import ComponentSpec

__all__ = ["Example", "Source", "SyntheticSource", "from_row", "open_source", "to_row"]


class Source(Protocol):
    """Random access to examples; indices start at 0."""

    @property
    def size(self) -> int | None:
        """Number of examples, or None if it never ends."""

    def __getitem__(self, index: int) -> Example:
        """The example with this index."""


def open_source(name: str, spec: ComponentSpec) -> Source:
    """The source of a component, checked before the first example is made.

    Args:
        name: name of the component; example ids are `name/index`.
        spec: what it contains.

    Raises:
        SpecError: the spec cannot be satisfied.
    """
    return SyntheticSource(name, spec)
