"""MLflow: one run for a sweep, a child for the base and for every trial, never twice."""

from mixlens.tracking.model import log_model
from mixlens.tracking.results import headline, log_provenance, log_run, log_sweep
from mixlens.tracking.tracker import TrackedRun, Tracker, default_uri, open_tracker

__all__ = [
    "TrackedRun",
    "Tracker",
    "default_uri",
    "headline",
    "log_model",
    "log_provenance",
    "log_run",
    "log_sweep",
    "open_tracker",
]
