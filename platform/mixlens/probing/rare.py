"""Categories without their rare classes: of dozens of kinds of things, few fill many images.

A class that has fewer images than there are folds cannot be learned of in every fold. Its images
are then neither learned from nor judged; all others are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from mixlens.probing.targets import FOLDS, Target, Targets, fate

WITHOUT = "without "
"""What the note of such a probe begins with."""


@dataclass(frozen=True)
class Fewer:
    """A category without its rare classes.

    Attributes:
        positions: where the same classes stay.
        targets: the category alone, which images of the rare classes lack.
        notes: which images were left out, a text a position.
    """

    positions: list[int]
    targets: Targets
    notes: list[str]


def without_rare(
    targets: Targets, present: Bool[Tensor, "positions images"], folds: int = FOLDS
) -> Iterator[Fewer]:
    """The categories that can be probed without their rare classes only, and where.

    What is rare depends on the position, since not all images have all of them.

    Args:
        targets: of which some may be such categories.
        present: which images have both the position and the attributes.
        folds: how many images a class must have.
    """
    for part in targets.parts[targets.numbers :]:
        counts = (present.double() @ targets.values[:, part.columns]).int().tolist()
        alike: dict[tuple[bool, ...], list[int]] = {}
        for position, count in enumerate(counts):
            if fate(count, folds) is None:
                alike.setdefault(tuple(one >= folds for one in count), []).append(position)
        for kept, positions in alike.items():
            notes = [_left_out(part, counts[position], folds) for position in positions]
            yield Fewer(positions, _only(targets, part, kept), notes)


def _only(targets: Targets, part: Target, kept: tuple[bool, ...]) -> Targets:
    """One category, on the images of some of its classes."""
    names = tuple(name for name, keep in zip(part.classes, kept, strict=True) if keep)
    columns = torch.tensor(kept, device=targets.values.device)
    values = targets.values[:, part.columns][:, columns]
    target = Target(part.name, names, slice(0, len(names)))
    return Targets((target,), values, targets.has & (values.sum(-1) > 0))


def _left_out(part: Target, counts: list[int], folds: int) -> str:
    rare = {name: n for name, n in zip(part.classes, counts, strict=True) if 0 < n < folds}
    names = sorted(rare, key=lambda name: (-rare[name], name))
    listed = ", ".join(f"{name} {rare[name]}" for name in names)
    images, classes = sum(rare.values()), len(rare)
    return (
        f"{WITHOUT}{images} image{'s' * (images > 1)} of {classes} "
        f"class{'es' * (classes > 1)} with fewer than {folds}: {listed}"
    )
