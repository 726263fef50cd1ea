"""What questions need to know about one scene, and what its turns have already given away."""

from collections.abc import Callable, Sequence

from mixlens.scenes import Scene
from mixlens.tasks.vocabulary import GRID, AnswerSpace

Draw = Callable[[], float]
"""A uniform number in [0, 1), the only source of chance."""

Draft = tuple[dict[str, str], str, tuple[str, ...]]
"""Fields of the phrasing, answer, choices."""

DIRECTION_MARGIN = 0.08
"""Centres lie left of, right of, above or below each other from this fraction of the side."""

SIZE_RATIO = 1.2
"""Larger, smaller and largest need this ratio of diameters."""

NEAREST_RATIO = 1.25
"""The nearest object is nearer than the next by this factor."""

MIN_VISIBLE = 0.25
"""An object of which less can be seen is not asked about; nor is anything it could change."""

FEW_WORDS = 6
"""Of fewer words than this, one that is there or not says too much about the others."""

ATTEMPTS = 8
"""Random objects or pairs that are tried before a question type is given up for a scene."""


class Facts:
    """A scene as parallel lists over its objects (back to front), and a memory of its turns.

    Attributes:
        space: the words the scene could contain.
        count: number of objects.
        x, y, diameter: fractions of the side.
        columns: per attribute, in the order of `ATTRIBUTES`, the words of the objects.
        seen: indices of objects of which enough can be seen to be asked about.
        all_seen: whether these are all objects.
        spoken: per object, the attributes (bits) by which a turn has named it.
        secret: per object, the attributes (bits) that a turn asks for.
        mentioned: words that a presence or count question is about, or the answer to what the
            largest object is.
        affirmed: those that a presence or count question was answered to be there.
        asked: keys of facts already asked for, whatever the phrasing.
    """

    __slots__ = (
        "_cells",
        "_having",
        "_raster",
        "affirmed",
        "all_seen",
        "asked",
        "columns",
        "count",
        "diameter",
        "mentioned",
        "secret",
        "seen",
        "space",
        "spoken",
        "x",
        "y",
    )

    def __init__(self, scene: Scene, space: AnswerSpace) -> None:
        scale = 1.0 / scene.image.shape[0]
        # The fields of a `SceneObject`, each as a column over the objects.
        shape, colour, texture, size, x, y, diameter, *_, visible = zip(*scene.objects, strict=True)
        self.space = space
        self.count = len(shape)
        self.x = [value * scale for value in x]
        self.y = [value * scale for value in y]
        self.diameter = [value * scale for value in diameter]
        self.columns: tuple[Sequence[str], ...] = (size, colour, texture, shape)
        self.seen = [i for i, share in enumerate(visible) if share >= MIN_VISIBLE]
        self.all_seen = len(self.seen) == self.count
        self.spoken = [0] * self.count
        self.secret = [0] * self.count
        self.mentioned: set[str] = set()
        self.affirmed: set[str] = set()
        self.asked: set[tuple] = set()
        self._having: list[tuple[Sequence[str], dict[str, int]]] | None = None
        self._cells: list[tuple[int, int]] | None = None
        self._raster: list[int] | None = None

    def alike(self, i: int) -> list[int]:
        """Per attribute, the objects (bits) that have the same word as object `i`."""
        if self._having is None:
            self._having = [(words, _having(words)) for words in self.columns]
        return [having[words[i]] for words, having in self._having]

    def cells(self) -> list[tuple[int, int]]:
        """Per object, (row, column) of the grid cell that holds its centre."""
        if self._cells is None:
            last = GRID - 1
            self._cells = [
                (min(int(y * GRID), last), min(int(x * GRID), last))
                for x, y in zip(self.x, self.y, strict=True)
            ]
        return self._cells

    def raster(self) -> list[int]:
        """Objects by row, then column, then x, then y."""
        if self._raster is None:
            cells = self.cells()
            self._raster = sorted(range(self.count), key=lambda i: (cells[i], self.x[i], self.y[i]))
        return self._raster

    def keep_secret(self, i: int, attribute: int) -> bool:
        """Reserve an attribute of an object for a question; false if a turn gives it away."""
        bit = 1 << attribute
        if (self.spoken[i] | self.secret[i]) & bit:
            return False
        self.secret[i] |= bit
        return True

    def given_away(self, attribute: int, word: str) -> bool:
        """Whether presence and count questions have told, or nearly told, that `word` is there."""
        words = self.space.words[attribute]
        return word in self.affirmed or (
            len(words) < FEW_WORDS and not self.mentioned.isdisjoint(words)
        )

    def ask_once(self, *key: object) -> bool:
        """False if this fact has been asked for before."""
        if key in self.asked:
            return False
        self.asked.add(key)
        return True


def _having(words: Sequence[str]) -> dict[str, int]:
    """Word -> the objects (bits) that have it."""
    having: dict[str, int] = {}
    bit = 1
    for word in words:
        having[word] = having.get(word, 0) | bit
        bit += bit
    return having


def two_of(things: list[int], draw: Draw) -> tuple[int, int]:
    """Two different ones."""
    many = len(things)
    first = int(draw() * many)
    second = (first + 1 + int(draw() * (many - 1))) % many
    return things[first], things[second]
