"""Random numbers that are the same in every process, on every machine, with every library."""

import hashlib

import numpy as np

WORD = 2**32


def words(seed: int, index: int, purpose: str, count: int) -> np.ndarray:
    """`count` uniform 32-bit integers (int64) that depend on the arguments only.

    They are the SHAKE-128 output for the arguments, so each purpose has a stream of its own and a
    longer request continues a shorter one.
    """
    key = f"{seed}/{index}/{purpose}".encode()
    return np.frombuffer(hashlib.shake_128(key).digest(4 * count), "<u4").astype(np.int64)


def below(raw: np.ndarray, bound: int) -> np.ndarray:
    """Map 32-bit words to integers in [0, bound); the bias is at most bound / 2**32."""
    return (raw * bound) >> 32
