"""Token budgets that follow the image: more tokens where there is more to see."""

from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image as PillowImage

from mixlens.models.adapter import Image
from mixlens.sources import Example
from mixlens.sources.pixels import as_pixels

_SIDE = 64  # pixels; coarser than noise and texture, finer than objects


def saliency(image: Image) -> float:
    """Edge energy of an image: mean gradient magnitude of its luminance, 0 (blank) to about 1.

    Taken at 64 x 64 pixels whatever the image's size, so that neither resolution nor fine noise
    counts.
    """
    picture = PillowImage.fromarray(as_pixels(image))
    small = picture.convert("L").resize((_SIDE, _SIDE), PillowImage.Resampling.BOX)
    light = np.asarray(small, dtype=np.float64) / 255
    down, right = np.diff(light, axis=0)[:, :-1], np.diff(light, axis=1)[:-1]
    return float(np.hypot(down, right).mean())


def saliencies(examples: Iterable[Example]) -> dict[str, float]:
    """Saliency of each image by its example id."""
    return {example.example_id: saliency(example.image) for example in examples}


def budgets(saliency_of: Mapping[str, float], tokens: int, mean: int) -> dict[str, int]:
    """How many of its `tokens` each image keeps: in proportion to its saliency, `mean` on average.

    At least one and at most all; what that takes from or leaves to the others is shared out in
    proportion again. The budgets of all images add up to exactly `mean` times their number, so
    they have to be made of all images together. If all images are blank, all get the same.
    """
    if not 0 < mean < tokens:
        return dict.fromkeys(saliency_of, mean)
    names = sorted(saliency_of)
    weights = np.array([saliency_of[name] for name in names], dtype=np.float64)
    weights = weights if weights.any() else np.ones_like(weights)
    # A blank image weighs next to nothing instead of nothing, so that any total can be reached.
    weights = np.maximum(weights, 1e-9 * weights.max())
    total = mean * len(names)
    low, high = 0.0, tokens / weights.min()
    for _ in range(200):
        scale = (low + high) / 2
        above = np.clip(scale * weights, 1, tokens).sum() > total
        low, high = (low, scale) if above else (scale, high)
    shares = np.clip(low * weights, 1, tokens)
    whole = np.floor(shares).astype(int)
    rest = total - int(whole.sum())
    # What rounding down left over goes to the largest remainders (Hare and Niemeyer).
    whole[np.argsort(-(shares - whole), kind="stable")[:rest]] += 1
    return dict(zip(names, whole.tolist(), strict=True))
