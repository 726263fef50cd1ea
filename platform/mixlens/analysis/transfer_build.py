"""All tables of transfer, from correlations here and a measurement of the same model there."""

import pandas as pd

from mixlens.analysis.correlations import correlate
from mixlens.analysis.transfer import transfer_table
from mixlens.analysis.transfer_chance import transfer_summary
from mixlens.spec import ComponentSpec

TRANSFER_TABLES = ("transfer", "transfer_summary", "transfer_correlations")


def transfer_tables(
    correlations: pd.DataFrame,
    image_metrics: pd.DataFrame,
    attributes: pd.DataFrame,
    sides: tuple[str, str],
) -> dict[str, pd.DataFrame]:
    """The tables named in `TRANSFER_TABLES`, in that order.

    Args:
        correlations: of the model on its own images.
        image_metrics: of the model on the other images.
        attributes: of the other images.
        sides: what its images and the other images are called.
    """
    there = correlate(image_metrics, attributes)
    table = transfer_table(correlations, there)
    summary = transfer_summary(table, image_metrics, attributes, sides)
    return dict(zip(TRANSFER_TABLES, (table, summary, there), strict=True))


def side_name(name: str, component: ComponentSpec) -> str:
    """What the images of a component are called: its name, and whether it is drawn or taken."""
    return f"{name} ({'scenes' if component.kind == 'synthetic' else 'photographs'})"
