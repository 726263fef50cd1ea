"""All tables of a sweep, from its run directory."""

import numpy as np

from mixlens.analysis.effect import effects_table
from mixlens.analysis.levels import levels_table
from mixlens.analysis.recommendation import recommendation_table
from mixlens.analysis.results import SweepResults
from mixlens.analysis.tables import (
    REDUNDANCY,
    Tables,
    accuracy_panel,
    accuracy_table,
    examples_table,
    image_metrics_table,
    layers_table,
    sweep_table,
    token_panel,
    training_table,
    weights_of,
)


def build_tables(sweep: SweepResults) -> Tables:
    """Every table; all of them use the same draws of images."""
    weights = weights_of(sweep)
    accuracy, tokens = accuracy_panel(sweep), token_panel(sweep)
    columns = tokens.columns
    profiles = columns["metric"].eq(REDUNDANCY) & columns["subject"].ne("pixels")
    compared = np.flatnonzero(columns["part"].ne("layer") | profiles).tolist()
    return Tables(
        levels=levels_table(sweep.spec.design.axis, sweep.levels),
        accuracy=accuracy_table(sweep, accuracy, weights),
        layers=layers_table(sweep, tokens, weights),
        sweep=sweep_table(sweep, (accuracy, tokens), weights),
        effects=effects_table(sweep, (accuracy, tokens.take(compared)), weights),
        recommendation=recommendation_table(sweep, accuracy, weights),
        training=training_table(sweep),
        examples=examples_table(sweep),
        image_metrics=image_metrics_table(sweep),
        attributes=sweep.attributes,
    )
