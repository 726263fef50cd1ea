"""Random numbers that are the same in every process, on every machine, with every library."""

import hashlib

import numpy as np


def words(seed: int, index: int, purpose: str, count: int) -> np.ndarray:
    """`count` uniform 32-bit integers that depend on the arguments only.

    They are the SHAKE-128 output for the arguments, so each purpose has a stream of its own and a
    longer request continues a shorter one. To draw from [0, n) take `word * n >> 32` in 64 bits,
    whose bias is at most n / 2**32.

    Returns:
        uint32 [count].
    """
    key = f"{seed}/{index}/{purpose}".encode()
    return np.frombuffer(hashlib.shake_128(key).digest(4 * count), "<u4")


def word_list(seed: int, index: int, purpose: str, count: int) -> list[int]:
    """`words` as Python integers, which are faster one at a time and never overflow."""
    return words(seed, index, purpose, count).tolist()


def between(bounds: tuple[float, float], word: int) -> float:
    """A number drawn uniformly between two bounds with a 32-bit word."""
    low, high = bounds
    return low + (high - low) * word / 2**32
