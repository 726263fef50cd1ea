"""Accepting questions so that their text says nothing about their answer."""

import numpy as np
from jaxtyping import Bool, Float, Int

FEW = 0.25
"""Answers that are rarer than this share of the mean count of their key are never asked for."""

BLOCK = 64
"""A key is balanced in blocks of this many rows for each of its answers."""

TURNS = 2
"""An image is asked about this many questions of a kind; balance depends little on this."""

_ROUNDS = 6


def chances(
    image: Int[np.ndarray, " rows"], *what: Int[np.ndarray, " rows"] | int
) -> Float[np.ndarray, " rows"]:
    """A uniform number in [0, 1) for each row, from its image and what is asked of it alone.

    Hashes by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), which does not depend on
    the order of rows, on the machine, or on a process.
    """
    state: np.ndarray = np.asarray(image, np.uint64)
    for part in what:
        state = _mixed(state) ^ np.asarray(part, np.int64).astype(np.uint64)
    return (_mixed(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def balanced(
    key: Int[np.ndarray, " rows"],
    answer: Int[np.ndarray, " rows"],
    image: Int[np.ndarray, " rows"],
    like: Int[np.ndarray, " rows"],
    chance: Float[np.ndarray, " rows"],
) -> Bool[np.ndarray, " rows"]:
    """Which questions are accepted: all answers are equally likely for those who read the key.

    Answers of a key that are much rarer than the others (`FEW`) are never asked for, nor is a key
    that this leaves with a single answer. Of the others the rarest is always accepted, and each
    other one with the probability that makes it as frequent.

    Frequent means frequently asked: an accepted question is asked less often where its image has
    many more. How often depends on what is accepted, so that the probabilities are found in a few
    rounds. Besides, a frequent key is balanced in blocks of images that are about as crowded, so
    that it stays balanced where crowded images are drawn more often than others.

    Args:
        key: all that the text of the question says.
        answer: not negative.
        image: row of the image.
        like: a number such as that of the objects in the image; blocks have about the same ones.
        chance: uniform in [0, 1).
    """
    accepted = np.zeros(len(key), bool)
    if not len(key):
        return accepted
    _, key = np.unique(key, return_inverse=True)
    answers = int(answer.max()) + 1
    pairs, pair, counts = np.unique(key * answers + answer, return_inverse=True, return_counts=True)
    key_of_pair = pairs // answers
    mean = np.bincount(key) / np.bincount(key_of_pair)
    kept = counts >= FEW * mean[key_of_pair]
    kept &= (np.bincount(key_of_pair, kept) > 1)[key_of_pair]
    rows = np.flatnonzero(kept[pair])
    if not len(rows):
        return accepted
    _, key = np.unique(key[rows], return_inverse=True)
    _, example, pair = np.unique(pair[rows], return_index=True, return_inverse=True)
    wanted = np.bincount(key[example])  # answers of each key
    many = np.bincount(key)
    order = np.lexsort((chance[rows], like[rows], key))
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - np.repeat(np.cumsum(many) - many, many)
    blocks = np.maximum(many // (BLOCK * wanted), 1)
    block = (np.cumsum(blocks) - blocks)[key] + rank * blocks[key] // many[key]

    cells, cell = np.unique(block * (int(pair.max()) + 1) + pair, return_inverse=True)
    block_of_cell = cells // (int(pair.max()) + 1)
    # A block in which an answer does not occur at all cannot be balanced.
    whole = np.bincount(block_of_cell, minlength=blocks.sum()) == np.repeat(wanted, blocks)
    share = np.ones(len(rows))
    for _ in range(_ROUNDS):
        here = chance[rows] < share  # what is accepted if these are the probabilities
        others = np.bincount(image[rows], here)[image[rows]] - here
        often = np.minimum(1.0, TURNS / (1.0 + others))
        total = np.bincount(cell, often)
        fewest = np.full(len(whole), np.inf)
        np.minimum.at(fewest, block_of_cell, total)
        share = (np.where(whole, fewest, 0.0)[block_of_cell] / total)[cell]
    accepted[rows] = chance[rows] < share
    return accepted


def answers_of(
    key: Int[np.ndarray, " rows"], answer: Int[np.ndarray, " rows"]
) -> Int[np.ndarray, " rows"]:
    """Of each row, the answers that occur for its key, as bits."""
    keys, key = np.unique(key, return_inverse=True)
    bits = np.zeros(len(keys), np.int64)
    np.bitwise_or.at(bits, key, 1 << answer.astype(np.int64))
    return bits[key]
