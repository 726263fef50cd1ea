"""Look at one model on one set of held-out images, part by part: a measurement."""

from mixlens.measurement.load import Measured, load
from mixlens.measurement.measure import measure
from mixlens.measurement.measurement import (
    Measurement,
    Subject,
    base_of,
    controls_of,
    is_finished,
    model_of,
    other_of,
    trial_of,
)
from mixlens.measurement.request import Asked

__all__ = [
    "Asked",
    "Measured",
    "Measurement",
    "Subject",
    "base_of",
    "controls_of",
    "is_finished",
    "load",
    "measure",
    "model_of",
    "other_of",
    "trial_of",
]
