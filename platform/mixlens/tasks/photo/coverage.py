"""Of which categories each photograph shows no more objects than its annotations say.

Absence decides most questions: "no", a count, a name that one object alone has, the largest one, a
list of everything. Where annotations were lost, or were never meant to be exhaustive, none of these
may be asked; every kind of question reads that here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True, slots=True)
class Coverage:
    """The categories that images are annotated for completely.

    Attributes:
        categories: how many there are.
        whole: whether an image is for all of them.
        image: of the other images, row by row, once for each category that it is complete for.
        category: that category, in rising order within an image.
    """

    categories: int
    whole: Bool[np.ndarray, " images"]
    image: Int[np.ndarray, " pairs"]
    category: Int[np.ndarray, " pairs"]

    def complete(
        self, image: Int[np.ndarray, " some"], category: Int[np.ndarray, " some"]
    ) -> Bool[np.ndarray, " some"]:
        """Whether all objects of a category in an image are known, of each pair; -1: never."""
        found: np.ndarray = self.whole[image] & (category >= 0)
        asked = np.flatnonzero(~self.whole[image] & (category >= 0))
        if len(asked):
            own = self.image * self.categories + self.category
            found[asked] = np.isin(image[asked] * self.categories + category[asked], own)
        return found

    def of_names(self, first: Sequence[int]) -> "Coverage":
        """The same of names: complete where it is for all categories of one name.

        Args:
            first: of each category the first one with its name; -1 without any.
        """
        name_of = np.array(first, np.int64)
        named = name_of[self.category] >= 0
        code = self.image[named] * self.categories + name_of[self.category[named]]
        pairs, number = np.unique(code, return_counts=True)
        image, name = np.divmod(pairs, self.categories)
        all_of_name = number == np.bincount(name_of[name_of >= 0], minlength=self.categories)[name]
        return Coverage(self.categories, self.whole, image[all_of_name], name[all_of_name])


def complete_everywhere(images: int, categories: int) -> Coverage:
    """That of images whose annotations lack nothing."""
    none = np.zeros(0, np.int64)
    return Coverage(categories, np.ones(images, bool), none, none)
