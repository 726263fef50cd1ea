"""MLflow: one run for a sweep, a child for the base and for every trial, never twice."""

from mixlens.tracking.results import log_provenance, log_run, log_sweep
from mixlens.tracking.tracker import TrackedRun, Tracker, default_uri, open_tracker

__all__ = [
    "TrackedRun",
    "Tracker",
    "default_uri",
    "log_provenance",
    "log_run",
    "log_sweep",
    "open_tracker",
]
