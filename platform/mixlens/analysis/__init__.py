"""From a run directory to tidy tables with intervals, and the answer in sentences."""

from mixlens.analysis.answer import answer_sentences
from mixlens.analysis.build import build_tables
from mixlens.analysis.provenance import Provenance, collect_provenance, read_provenance
from mixlens.analysis.results import RunResults, SweepResults, load_run, load_sweep
from mixlens.analysis.tables import Tables

__all__ = [
    "Provenance",
    "RunResults",
    "SweepResults",
    "Tables",
    "answer_sentences",
    "build_tables",
    "collect_provenance",
    "load_run",
    "load_sweep",
    "read_provenance",
]
