"""What is known about one photograph, and about all of its data set."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int16


@dataclass(frozen=True, slots=True)
class Categories:
    """The categories of a data set, in the order of their ids in the file.

    Attributes:
        names: such as `dining table`.
        supercategories: of each category, such as `furniture`.
    """

    names: tuple[str, ...]
    supercategories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph as its annotations tell it; geometry is that of the upright picture.

    Attributes:
        width: pixels.
        height: pixels.
        category: of each object, its place in `Categories`.
        boxes: x0, y0, x1, y1 of each object, pixels, inside the picture.
        area: of each object's mask, pixels.
        crowd: whether it is a region of many objects that are not told apart.
        questions: what can be asked, from the index, of type `QUESTION`.
        captions: sentences about the whole picture.
    """

    width: int
    height: int
    category: Int16[np.ndarray, " objects"]
    boxes: Float[np.ndarray, "objects 4"]
    area: Float[np.ndarray, " objects"]
    crowd: Bool[np.ndarray, " objects"]
    questions: np.ndarray
    captions: tuple[str, ...]
