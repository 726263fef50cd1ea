"""The words of questions and answers, and which of them a family of scenes can call for."""

import re
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import get_args

from mixlens.errors import SpecError, explain
from mixlens.spec import SceneSpec
from mixlens.spec.scene import Colour, Shape, Texture
from mixlens.tasks.prompts import prompts

GRID = 8
"""Rows and columns of the coarse coordinates: row 0 at the top, column 0 at the left."""

SHAPES: tuple[str, ...] = get_args(Shape)
COLOURS: tuple[str, ...] = get_args(Colour)
TEXTURES: tuple[str, ...] = get_args(Texture)
SIZES: tuple[str, ...] = tuple(size.name for size in SceneSpec().sizes)

# Attributes, in the order in which a name or a description speaks them.
SIZE, COLOUR, TEXTURE, SHAPE = range(4)
ATTRIBUTES = ("size", "colour", "texture", "shape")

ROWS = tuple(f"y{row}" for row in range(GRID))
COLUMNS = tuple(f"x{column}" for column in range(GRID))
NOTHING = "nothing"
YES_NO = ("yes", "no")
SAME_DIFFERENT = ("same", "different")
RELATIONS = ("left", "right", "above", "below")
LARGEST_COUNT = 200

SIZE_GAP = 1.1
"""Size words are used only where each range starts at least this far above the one below."""


def cell_words(row: int, column: int) -> str:
    """A cell of the grid as text, such as `y3 x5`."""
    return f"{ROWS[row]} {COLUMNS[column]}"


@dataclass(frozen=True, slots=True)
class AnswerSpace:
    """The words that a family of scenes can contain; what a question may name or be answered with.

    A presence question about a colour that can never occur would be answered by its text alone;
    so would the texture of an object where all objects are solid.

    Attributes:
        sizes: size words, empty where they are not drawn from ranges that lie apart.
        colours: colour words.
        textures: texture words.
        shapes: shape words.
        counts: fewest and most objects in a scene.
    """

    sizes: tuple[str, ...] = SIZES
    colours: tuple[str, ...] = COLOURS
    textures: tuple[str, ...] = TEXTURES
    shapes: tuple[str, ...] = SHAPES
    counts: tuple[int, int] = (1, 10)
    words: tuple[tuple[str, ...], ...] = field(init=False)
    count_words: tuple[str, ...] = field(init=False)
    unspoken: int = field(init=False)

    def __post_init__(self) -> None:
        words = (self.sizes, self.colours, self.textures, self.shapes)
        low, high = self.counts
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "count_words", tuple(str(n) for n in range(low, high + 1)))
        # An attribute with one value tells no two objects apart, so names leave it out.
        unspoken = sum(1 << a for a, values in enumerate(words) if len(values) < 2)
        object.__setattr__(self, "unspoken", unspoken)


def answer_space(spec: SceneSpec) -> AnswerSpace:
    """The words that scenes of this spec can contain.

    Raises:
        SpecError: a size is named by something that is no single lower-case word, or by a word
            that already means something else.
    """
    taken = vocabulary() - set(SIZES)
    for size in spec.sizes:
        if not re.fullmatch("[a-z]+", size.name) or size.name in taken:
            raise SpecError(
                explain(
                    "scene.sizes",
                    size.name,
                    "the name of a size is used as a word of questions and answers",
                    "Use one lower-case word with no other meaning in tasks/prompts.yaml.",
                )
            )
    ranges = sorted(spec.sizes, key=lambda size: size.diameter)
    apart = all(
        above.diameter[0] >= SIZE_GAP * below.diameter[1] for below, above in pairwise(ranges)
    )
    return AnswerSpace(
        sizes=tuple(size.name for size in ranges) if apart and spec.ink == "free" else (),
        colours=spec.colours,
        textures=spec.textures,
        shapes=spec.shapes,
        counts=spec.objects,
    )


@cache
def vocabulary() -> frozenset[str]:
    """Every distinct word (and separated punctuation mark) of any question or answer.

    Sizes that a sweep file names itself come on top.
    """
    prompt_words = {
        word
        for templates in prompts().values()
        for _, template in templates
        for word in re.sub(r"%\(\w+\)s", " ", template).split()
    }
    return frozenset(
        prompt_words
        | {"the", "object", ";", "|", ",", NOTHING}
        | {*SHAPES, *COLOURS, *TEXTURES, *SIZES}
        | {*ROWS, *COLUMNS, *YES_NO, *SAME_DIFFERENT, *RELATIONS}
        | {str(number) for number in range(LARGEST_COUNT + 1)}
    )
