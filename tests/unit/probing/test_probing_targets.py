"""Attributes as columns, and the folds."""

import numpy as np
import pandas as pd
import torch

from mixlens.probing.targets import fold_of_images, read_targets


def test_every_image_is_in_one_fold_and_folds_are_even() -> None:
    fold = fold_of_images(23, folds=5, seed=1)
    assert sorted(fold.bincount().tolist()) == [4, 4, 5, 5, 5]
    assert torch.equal(fold, fold_of_images(23, folds=5, seed=1))
    assert not torch.equal(fold, fold_of_images(23, folds=5, seed=2))


def test_numbers_come_first_and_classes_are_columns() -> None:
    attributes = pd.DataFrame(
        {"colour": ["red", "blue", "red"], "count": [1, 2, 3], "lit": [True, False, True]}
    )
    (targets,) = read_targets(attributes, ["colour", "count", "lit"])
    assert [part.name for part in targets.parts] == ["count", "colour", "lit"]
    assert [part.classes for part in targets.parts] == [(), ("blue", "red"), ("False", "True")]
    assert [part.score for part in targets.parts] == ["r2", "accuracy", "accuracy"]
    assert targets.numbers == 1
    assert targets.values.tolist() == [[1, 0, 1, 0, 1], [2, 1, 0, 1, 0], [3, 0, 1, 0, 1]]
    assert targets.member.T.tolist() == [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]]


def test_attributes_that_some_images_lack_stand_apart() -> None:
    attributes = pd.DataFrame(
        {
            "count": [1.0, 2.0, 3.0],
            "depth": [0.5, np.inf, 0.25],
            "word": ["a", None, "b"],
            "other": ["c", "d", None],
        }
    )
    groups = read_targets(attributes, list(attributes.columns))
    assert [[part.name for part in group.parts] for group in groups] == [
        ["count"], ["depth", "word"], ["other"],
    ]  # fmt: skip
    assert groups[1].has.tolist() == [True, False, True]
    assert groups[1].values.tolist() == [[0.5, 1, 0], [0, 0, 0], [0.25, 0, 1]]


def test_shuffles_exchange_whole_rows_between_images_that_have_them() -> None:
    images = 40
    number = np.arange(images, dtype=float)
    number[::4] = np.nan
    word = np.array([f"w{int(one) % 3}" for one in np.nan_to_num(number)], dtype=object)
    word[::4] = None
    (targets,) = read_targets(pd.DataFrame({"number": number, "word": word}), ["number", "word"])
    mixed = targets.shuffled(5)
    has = targets.has
    assert torch.equal(mixed[~has], targets.values[~has])
    assert sorted(mixed[has].tolist()) == sorted(targets.values[has].tolist())
    assert (mixed[has, 0] != targets.values[has, 0]).double().mean() > 0.8
    assert torch.equal(mixed, targets.shuffled(5))
    assert not torch.equal(mixed, targets.shuffled(6))
