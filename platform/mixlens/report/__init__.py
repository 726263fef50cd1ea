"""The report: figures and one self-contained page, from a run directory alone."""

from mixlens.report.html import write_report

__all__ = ["write_report"]
