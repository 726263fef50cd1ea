"""Photographs of a size that a model cannot be given, known before any is read.

Processors of native resolution, for example, take no picture more than 200 times as wide as high.
Such a photograph is never held out, and in training another one comes in its place.
"""

from collections.abc import Callable

import numpy as np

from mixlens.sources import Source
from mixlens.spec import HELD_OUT_START

Refuses = Callable[[int, int], str | None]
"""Height and width of a picture -> why a model cannot be given it, if so (`Adapter.refuses`)."""


def takes_all(height: int, width: int) -> str | None:
    """What a model says that takes pictures of all sizes."""
    return None


def refused(source: Source, refuses: Refuses, held_out: bool = False) -> dict[int, str]:
    """The index of each image of a component that a model cannot be given, with its file and why.

    Args:
        source: the component.
        refuses: asked once a size.
        held_out: whether of the held-out images; else of those to train on.
    """
    sizes = source.sizes(held_out)
    if sizes is None:
        return {}
    different, which = np.unique(sizes, axis=0, return_inverse=True)
    problems = [refuses(height, width) for height, width in different.tolist()]
    bad = np.array([problem is not None for problem in problems], bool)
    found = {}
    for place in np.flatnonzero(bad[which.reshape(-1)]).tolist():
        height, width = sizes[place].tolist()
        index = place + held_out * HELD_OUT_START
        problem = problems[int(which.reshape(-1)[place])]
        found[index] = f"{source.file_name(index)} ({width} x {height}: {problem})"
    return found


def held_out_taken(source: Source, refuses: Refuses, n: int) -> list[int]:
    """The indices of the first `n` held-out examples whose images a model can be given."""
    gone = refused(source, refuses, held_out=True)
    end = HELD_OUT_START + n + len(gone)
    return [index for index in range(HELD_OUT_START, end) if index not in gone][:n]
