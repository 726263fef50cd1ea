"""Null images: the same examples with nothing to see in them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mixlens.sources.example import Example
from mixlens.sources.pixels import as_pixels

Kind = Literal["blank", "noise"]


def null_images(examples: Sequence[Example], kind: Kind, seed: int = 0) -> list[Example]:
    """Examples whose images are replaced by others of the same size without content.

    * blank: every pixel has the image's mean colour. All patches of an image are equal, and images
      still differ; one white for all would leave nothing of any token once its position's mean is
      subtracted, and so no redundancy score.
    * noise: every value of every pixel is uniform from 0 to 255, independently. The patches have
      nothing in common.

    Ids, turns and attributes stay those of the image that was replaced, so that results pair with
    it: an answer can be right, and an attribute correlate, by chance only (blank: by the mean
    colour only).

    Args:
        examples: with images of any sizes, encoded or not.
        kind: of null.
        seed: of the noise; an image's noise depends on it and on its id, not on the others.
    """
    return [replace(example, image=_null_of(example, kind, seed)) for example in examples]


def _null_of(example: Example, kind: Kind, seed: int) -> NDArray[np.uint8]:
    image = as_pixels(example.image)
    if kind == "blank":
        colour = image.reshape(-1, 3).mean(0).round().astype(np.uint8)
        return np.full_like(image, colour)
    generator = np.random.default_rng([seed, crc32(example.example_id.encode())])
    return generator.integers(0, 256, image.shape, dtype=np.uint8)
