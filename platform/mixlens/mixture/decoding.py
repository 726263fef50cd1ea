"""Encoded images become arrays where they are consumed; one that cannot be used is replaced."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixlens.errors import DataError, explain
from mixlens.mixture.order import order_of
from mixlens.mixture.refused import Refuses, takes_all
from mixlens.sources import Example, open_source
from mixlens.sources.pixels import as_pixels, decode
from mixlens.spec import RunSpec

ATTEMPTS = 16
REPLACED = "replaced.parquet"  # in the folder of a run: its replacements


@dataclass(frozen=True, slots=True)
class Replacement:
    """An image that could not be used, and what came in its place.

    Attributes:
        position: in the mixture order.
        data: name of the data set.
        example_id: `component/index` of the example that was due.
        file_name: of its image.
        instead: id of the example that came, of the same component.
        detail: what is wrong with the file, and with those that were tried in vain.
    """

    position: int
    data: str
    example_id: str
    file_name: str
    instead: str
    detail: str


class Decoder:
    """Turns examples into examples whose images are uint8 arrays [height, width, 3].

    A file can be damaged or go away after it was indexed, or be of a size that the model cannot be
    given. Its example is then replaced by another of the same component, found from its index
    alone: the same for any number of workers and after any resume.
    """

    def __init__(self, run: RunSpec, refuses: Refuses = takes_all) -> None:
        """Open the order of `run`; `refuses` is the model's (`Adapter.refuses`)."""
        self._run, self._refuses = run, refuses
        self._order = order_of(run)

    def __call__(
        self, positions: Sequence[int], examples: Sequence[Example]
    ) -> tuple[list[Example], tuple[Replacement, ...]]:
        """The examples to train on, and which of them are replacements.

        Args:
            positions: of the mixture order.
            examples: those at these positions.

        Raises:
            DataError: neither an image nor any of those tried in its place can be used.
        """
        decoded, replacements = [], []
        for position, example in zip(positions, examples, strict=True):
            try:
                decoded.append(self._usable(example))
            except DataError as error:
                other, replacement = self._replace(position, error)
                decoded.append(other)
                replacements.append(replacement)
        return decoded, tuple(replacements)

    def _replace(self, position: int, error: DataError) -> tuple[Example, Replacement]:
        name, index = self._order.at(position)
        component = self._run.components[name]
        source, data = open_source(name, component, self._run.data), component.data_set
        if not source.is_replaceable:
            raise error
        assert data is not None, "what can be damaged comes from a data set"
        assert source.size is not None, "a data set is finite"
        problems = {source.file_name(index): str(error)}
        for attempt in range(ATTEMPTS):
            # Far from the first, because files that lie side by side are damaged together.
            other = (index + source.size // 2 + attempt) % source.size
            try:
                example = self._usable(source.example(other))
            except DataError as also:
                problems[source.file_name(other)] = str(also)
                continue
            return example, Replacement(
                position=position,
                data=data,
                example_id=f"{name}/{index}",
                file_name=str(source.file_name(index)),
                instead=example.example_id,
                detail="; ".join(f"{file}: {what}" for file, what in problems.items()),
            )
        raise DataError(
            explain(f"data.{data}", source.file_name(index),
                    f"{error}, and of {ATTEMPTS} images tried in its place none can be used",
                    f"See that the images are still in {self._run.data[data].root}, then "
                    "start again: training goes on from its last checkpoint.")
        )  # fmt: skip

    def _usable(self, example: Example) -> Example:
        """The example decoded, if the model can be given its image."""
        if not isinstance(example.image, bytes):
            return example
        decoded = with_pixels(example)
        height, width, _ = as_pixels(decoded.image).shape
        if problem := self._refuses(height, width):
            raise DataError(f"{width} x {height} pixels: the model cannot be given it: {problem}")
        return decoded


def with_pixels(example: Example) -> Example:
    """The example with its image decoded.

    Raises:
        DataError: it cannot be; the message says why.
    """
    if not isinstance(example.image, bytes):
        return example
    if not example.image:
        raise DataError("unreadable: the file is gone, cannot be read, or is empty")
    return replace(example, image=decode(example.image))
