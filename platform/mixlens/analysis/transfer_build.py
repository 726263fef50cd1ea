"""All tables of transfer, from correlations here and a measurement of the same model there."""

import pandas as pd

from mixlens.analysis import correlations
from mixlens.analysis.transfer import COLUMNS, transfer_table
from mixlens.analysis.transfer_chance import SUMMARY, transfer_summary
from mixlens.spec import MeasureSpec, SweepSpec

TRANSFER_TABLES = {
    "transfer": COLUMNS,
    "transfer_summary": SUMMARY,
    "transfer_correlations": correlations.COLUMNS,
}
"""Tables of transfer, and their columns."""


def transfer_tables(
    here: pd.DataFrame,
    image_metrics: pd.DataFrame,
    attributes: pd.DataFrame,
    sides: tuple[str, str],
) -> dict[str, pd.DataFrame]:
    """The tables named in `TRANSFER_TABLES`, in that order.

    Args:
        here: correlations of the model on its own images.
        image_metrics: of the model on the other images.
        attributes: of the other images.
        sides: what its images and the other images are called.
    """
    there = correlations.correlate(image_metrics, attributes)
    table = transfer_table(here, there)
    summary = transfer_summary(table, image_metrics, attributes, sides)
    return dict(zip(TRANSFER_TABLES, (table, summary, there), strict=True))


def sides_of(spec: SweepSpec | MeasureSpec) -> tuple[str, str]:
    """What the images that models are measured on, and those of `transfer`, are called.

    The name of the component, and whether it is drawn or taken.
    """
    asked = spec.evaluation
    here, there = (
        f"{name} ({'scenes' if spec.components[name].kind == 'synthetic' else 'photographs'})"
        for name in (asked.component, asked.transfer or asked.component)
    )
    return here, there
