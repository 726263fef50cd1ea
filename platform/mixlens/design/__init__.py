"""Which mixtures a sweep tries: designs, their levels, and the trials made of them."""

from mixlens.design.layout import Layout
from mixlens.design.ledger import asked_trials, held_trials, read_run, sweep_trials
from mixlens.design.level import BASE, Axis, Level, Trial
from mixlens.design.measure_file import load_measure
from mixlens.design.proposer import Proposer
from mixlens.design.sweep import SweepSpec
from mixlens.design.union import Design

__all__ = [
    "BASE",
    "Axis",
    "Design",
    "Layout",
    "Level",
    "Proposer",
    "SweepSpec",
    "Trial",
    "asked_trials",
    "held_trials",
    "load_measure",
    "read_run",
    "sweep_trials",
]
