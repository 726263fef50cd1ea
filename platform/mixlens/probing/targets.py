"""What probes predict: attributes of the images as columns, and the split of the images.

Numbers (counts among them) are one column each; a category is one column a class, 1 where the image
is of the class. Images are the unit of every split: all tokens of one stand on one side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mixlens.errors import DataError, SpecError, explain

FOLDS = 5
MIN_IMAGES = 20
"""Fewer images than this say nothing about a probe: four in each fold."""
NOT_ESTIMABLE = "not estimable: "
"""What a note begins with where there is no number."""


@dataclass(frozen=True)
class Target:
    """One attribute: its columns, and its classes in the order of the columns (a number: none)."""

    name: str
    classes: tuple[str, ...]
    columns: slice

    @property
    def score(self) -> str:
        """How a probe of it is judged."""
        return "accuracy" if self.classes else "r2"


@dataclass(frozen=True)
class Targets:
    """Attributes that the same images have, numbers before categories.

    Attributes:
        parts: the attributes.
        values: their columns; 0 where an image lacks them.
        has: which images have them.
    """

    parts: tuple[Target, ...]
    values: Float[Tensor, "images columns"]
    has: Bool[Tensor, "images"]

    @property
    def numbers(self) -> int:
        """How many are numbers: so many columns come first, one each."""
        return sum(not part.classes for part in self.parts)

    @property
    def member(self) -> Float[Tensor, "columns attributes"]:
        """1 where a column is of an attribute: `x @ member` adds the columns of each."""
        member = torch.zeros(self.values.shape[1], len(self.parts), dtype=torch.float64)
        for place, part in enumerate(self.parts):
            member[part.columns, place] = 1
        return member.to(self.values.device)

    def shuffled(self, seed: int) -> Float[Tensor, "images columns"]:
        """The columns with the images that have them exchanged at random, whole rows together."""
        owners = self.has.nonzero()[:, 0]
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(owners), generator=generator).to(owners.device)
        values = self.values.clone()
        values[owners] = self.values[owners[order]]
        return values

    def notes(
        self, present: Bool[Tensor, "positions images"], folds: int = FOLDS
    ) -> list[list[str | None]]:
        """Why each attribute cannot be probed at each position; "" where it can.

        None where it can only without its rare classes: see `mixlens.probing.rare`.
        """
        counts = (present.double() @ self.values).tolist()
        return [
            [
                _note(part, images, count[part.columns], spread[place], folds)
                for place, part in enumerate(self.parts)
            ]
            for images, count, spread in zip(
                present.sum(-1).tolist(), counts, self._spreads(present), strict=True
            )
        ]

    def _spreads(self, present: Tensor) -> list[list[float]]:
        """[positions, attributes] largest less smallest of each number, 0 for categories."""
        rows = present[..., None]
        numbers = self.values[:, : self.numbers]
        top = torch.where(rows, numbers, -torch.inf).amax(1)
        bottom = torch.where(rows, numbers, torch.inf).amin(1)
        blank = len(self.parts) - self.numbers
        return torch.nn.functional.pad(top - bottom, (0, blank)).tolist()


def select(attributes: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """The names asked for, or all.

    Raises:
        SpecError: a name that no image has.
    """
    known = [str(name) for name in attributes.columns]
    for name in names:
        if name not in known:
            raise SpecError(
                explain(
                    "probes.attributes", name, "no image has this attribute",
                    f"Known: {', '.join(known)}.",
                )
            )  # fmt: skip
    return list(names) or known


def read_targets(
    attributes: pd.DataFrame, names: Sequence[str], device: torch.device | None = None
) -> list[Targets]:
    """The attributes named, those together that the same images have.

    Numbers are numbers; text and yes or no are categories. A blank or infinite value is one that
    the image does not have.

    Args:
        attributes: one row an image, one column an attribute.
        names: which columns.
        device: where the tensors go.
    """
    groups: dict[bytes, list[str]] = {}
    for name in names:
        groups.setdefault(_has(attributes[name]).tobytes(), []).append(name)
    return [_together(attributes, some, device) for some in groups.values()]


def fold_of_images(images: int, folds: int = FOLDS, seed: int = 0) -> Int[Tensor, "images"]:
    """The fold in which each image is held out, drawn at random; folds differ by one at most."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    fold = torch.empty(images, dtype=torch.long)
    fold[order] = torch.arange(images) % folds
    return fold


def check_rows(attributes: pd.DataFrame, images: int) -> None:
    """Refuse attributes of another number of images.

    Raises:
        DataError: the attributes are not one row an image.
    """
    if len(attributes) != images:
        raise DataError(
            explain(
                "attributes", f"{len(attributes)} rows", f"there are tokens of {images} images",
                "Give one row an image, in the same order.",
            )
        )  # fmt: skip


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _has(column: pd.Series) -> np.ndarray:
    if _is_number(column):
        return np.isfinite(column.to_numpy(dtype=float, na_value=np.nan))
    return column.notna().to_numpy(copy=True)


def _together(attributes: pd.DataFrame, names: list[str], device: torch.device | None) -> Targets:
    names = sorted(names, key=lambda name: not _is_number(attributes[name]))
    has = _has(attributes[names[0]])
    parts, columns = [], []
    start = 0
    for name in names:
        column = attributes[name]
        classes: tuple[str, ...] = ()
        if _is_number(column):
            block = column.to_numpy(dtype=float, na_value=np.nan)[:, None]
        else:
            words = column.astype(str).to_numpy()
            # An attribute that no image has still is a category, of one class.
            classes = tuple(sorted(set(words[has]))) or ("",)
            block = (words[:, None] == np.array(classes)).astype(float)
        columns.append(np.where(has[:, None], block, 0.0))
        parts.append(Target(name, classes, slice(start, start + block.shape[1])))
        start += block.shape[1]
    values = torch.from_numpy(np.concatenate(columns, axis=1)).to(device)
    return Targets(tuple(parts), values, torch.from_numpy(has).to(device))


def _note(part: Target, images: int, counts: list[float], spread: float, folds: int) -> str | None:
    if images < MIN_IMAGES:
        return f"{NOT_ESTIMABLE}{images} images, {MIN_IMAGES} are needed"
    if not part.classes:
        return "" if spread > 0 else f"{NOT_ESTIMABLE}the same for all images"
    why = fate(list(map(int, counts)), folds)
    if not why:
        return why
    shown = {name: int(count) for name, count in zip(part.classes, counts, strict=True) if count}
    rarest = min(shown, key=lambda name: shown[name])
    return why.format(count=shown[rarest], rarest=rarest)


def fate(counts: list[int], folds: int) -> str | None:
    """Nothing if all classes have enough images, None if some do, or why they are too few."""
    there = [count for count in counts if count]
    common = [count for count in there if count >= folds]
    if len(there) < 2:
        return f"{NOT_ESTIMABLE}the same for all images"
    if len(common) == len(there):
        return ""
    if len(common) < 2:
        return f"{NOT_ESTIMABLE}only {{count}} images are {{rarest}}, {folds} are needed"
    if sum(common) < MIN_IMAGES:
        return (
            f"{NOT_ESTIMABLE}{sum(common)} images of classes with {folds} or more, {MIN_IMAGES} "
            "are needed"
        )
    return None
