"""All tables of transfer, from two measurements of the same model."""

from dataclasses import dataclass

import pandas as pd

from mixlens.analysis import correlations
from mixlens.analysis.transfer import COLUMNS, transfer_table
from mixlens.analysis.transfer_chance import SUMMARY, transfer_summary
from mixlens.design import SweepSpec
from mixlens.spec import MeasureSpec

TRANSFER_TABLES = {
    "transfer": COLUMNS,
    "transfer_summary": (*SUMMARY, "other"),
    "transfer_correlations": correlations.COLUMNS,
}
"""Tables of transfer, and their columns."""


@dataclass(frozen=True)
class Sides:
    """What the images that a model is measured on, and those of `transfer`, are called.

    Attributes:
        own: the evaluation's own images.
        other: those of `transfer`.
        from_other: whether trends are looked for on the others, and then held against the own.
    """

    own: str
    other: str
    from_other: bool = False


def transfer_tables(
    own: pd.DataFrame,
    own_images: tuple[pd.DataFrame, pd.DataFrame],
    other_images: tuple[pd.DataFrame, pd.DataFrame],
    sides: Sides,
) -> dict[str, pd.DataFrame]:
    """The tables named in `TRANSFER_TABLES`, in that order.

    Args:
        own: correlations of the model on its own images.
        own_images: its image metrics and their attributes.
        other_images: the same of the other images.
        sides: what both are called, and on which of them trends are looked for.
    """
    other = correlations.correlate(*other_images)
    if sides.from_other:
        table = transfer_table(other, own)
        summary = transfer_summary(table, *own_images, (sides.other, sides.own))
    else:
        table = transfer_table(own, other)
        summary = transfer_summary(table, *other_images, (sides.own, sides.other))
    named = summary.assign(other=sides.other)
    return dict(zip(TRANSFER_TABLES, (table, named, other), strict=True))


def sides_of(spec: SweepSpec | MeasureSpec) -> Sides:
    """Names of the components, each with what its images are.

    Of generated images and others the question is always whether trends found on the generated
    ones, whose complexity is exactly known, hold on the others.
    """
    names = (spec.evaluation.component, spec.evaluation.transfer or spec.evaluation.component)
    components = [spec.components[name] for name in names]
    own, other = (
        f"{name} ({component.images})" for name, component in zip(names, components, strict=True)
    )
    generated = [component.is_generated for component in components]
    return Sides(own, other, from_other=generated == [False, True])
