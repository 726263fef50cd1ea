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
    """Names of the components, each with whether it is drawn or taken.

    Of scenes and photographs the question is always whether trends found on scenes, whose
    complexity is exactly known, hold on photographs.
    """
    names = (spec.evaluation.component, spec.evaluation.transfer or spec.evaluation.component)
    drawn = [spec.components[name].kind == "synthetic" for name in names]
    own, other = (
        f"{name} ({'scenes' if is_drawn else 'photographs'})"
        for name, is_drawn in zip(names, drawn, strict=True)
    )
    return Sides(own, other, from_other=drawn == [False, True])
