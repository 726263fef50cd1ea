"""A random-access permutation: example -> place in the order of an epoch, in constant memory."""

import hashlib
import math
from functools import lru_cache

import numpy as np

# Four rounds hide the structure of large components; the others are for components of a few
# examples, where a round has few values to mix.
_ROUNDS = 12


def shuffled(places: np.ndarray, size: int, seed: int, component: str, epoch: int) -> np.ndarray:
    """The examples at `places` (0 ... size - 1) of an epoch: each example at exactly one place.

    A Feistel network over pairs (place // side, place % side) with side = ceil(sqrt(size)) is a
    permutation of side * side places, whatever its round function; walking on until the result is
    below `size` makes one of `size` places (J. Black and P. Rogaway, Ciphers with arbitrary finite
    domains, CT-RSA 2002). Components with few examples have few orders, so these come again.
    """
    side = math.isqrt(size - 1) + 1
    keys = _keys(seed, component, epoch)
    result = places.astype(np.int64)
    walking = np.arange(len(result))
    while len(walking):
        left, right = np.divmod(result[walking], side)
        for key in keys:
            left, right = right, (left + _mix(right, key) % side) % side
        result[walking] = left * side + right
        walking = walking[result[walking] >= size]
    return result


@lru_cache(maxsize=64)
def _keys(seed: int, component: str, epoch: int) -> tuple[int, ...]:
    digest = hashlib.shake_256(f"{seed}/{epoch}/{component}".encode()).digest(8 * _ROUNDS)
    return tuple(int(key) for key in np.frombuffer(digest, "<u8"))


def _mix(values: np.ndarray, key: int) -> np.ndarray:
    """The finaliser of SplitMix64 on value + key: non-negative int64."""
    z = values.astype(np.uint64) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(1)).astype(np.int64)
