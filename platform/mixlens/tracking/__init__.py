"""MLflow as a mirror of run directories: one run for a sweep, a child for base and trials."""

from mixlens.tracking.server import default_uri
from mixlens.tracking.writer import Writer, open_writer

__all__ = ["Writer", "default_uri", "open_writer"]
