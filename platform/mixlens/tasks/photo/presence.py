"""How often each category is drawn for a question whether it is there."""

import numpy as np
from jaxtyping import Bool, Float, Int

TOLERANCE = 0.02
"""Yes may be this much more or less likely than no (as a share) for each category."""

_ROUNDS = 200


def fit_presence(
    images: int,
    categories: int,
    there: tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]],
    visible: Bool[np.ndarray, " pairs"],
    barred: tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]],
    named: Bool[np.ndarray, " categories"],
) -> Float[np.ndarray, "2 categories"]:
    """Weights by which a category is drawn, for yes among the present, for no among the absent.

    Yes and no are equally likely in each image, and a category is drawn in proportion to its
    weight among those of the image. The weights are such that over all images yes is as likely as
    no for each category. They are found by iterative scaling: each round multiplies the weights
    of a category by what brings its two rates to their geometric mean. Categories for which that
    is impossible (those present almost everywhere) have weights of zero: they are never asked.

    Args:
        images: number of images.
        categories: number of categories.
        there: (image, category) of what is there; no pair twice.
        visible: of these pairs, those that are clearly to be seen; the others are not asked for.
        barred: (image, category) of what is not asked for whatever the answer; no pair twice.
        named: categories that can be asked for.
    """
    code = there[0] * categories + there[1]
    barred_code = barred[0] * categories + barred[1]
    yes = visible & ~np.isin(code, barred_code)
    blocked = np.unique(np.concatenate((code, barred_code)))
    yes_image, yes_category = there[0][yes], there[1][yes]
    no_image, no_category = np.divmod(blocked, categories)  # what "no" is not asked of

    def rates(weights: Float[np.ndarray, "2 categories"]) -> Float[np.ndarray, "2 categories"]:
        """Of each answer, the images in which it is drawn, if it is the answer drawn first."""
        present = np.bincount(yes_image, weights[0][yes_category], images)
        absent = weights[1].sum() - np.bincount(no_image, weights[1][no_category], images)
        possible = (present > 0) & (absent > 1e-9 * weights[1].sum())
        with np.errstate(divide="ignore"):
            by_present, by_absent = (np.where(possible, 1 / w, 0.0) for w in (present, absent))
        yeses = np.bincount(yes_category, by_present[yes_image], categories)
        noes = by_absent.sum() - np.bincount(no_category, by_absent[no_image], categories)
        return weights * np.stack((yeses, np.maximum(noes, 0.0)))

    frequency = np.bincount(yes_category, minlength=categories).astype(np.float64)
    weights = np.stack((np.ones(categories), frequency)) * (named & (frequency > 0))
    while weights.any():
        for _ in range(_ROUNDS):
            rate = rates(weights)
            both = (rate > 0).all(0)
            weights *= both
            apart = np.log(rate[0, both] / rate[1, both])
            if not len(apart) or np.abs(apart).max() < TOLERANCE / 2:
                break
            weights[0, both] *= np.exp(-apart / 2)
            weights[1, both] *= np.exp(apart / 2)
            weights /= weights.max(1, keepdims=True)
        if not len(apart) or np.abs(apart).max() < TOLERANCE:
            break
        # Leave out what is furthest from balance, and begin again with the others.
        far = np.zeros(categories, bool)
        far[both] = np.abs(apart) > np.abs(apart).max() / 2
        weights = np.stack((np.ones(categories), frequency)) * ((weights > 0).all(0) & ~far)
    return weights
