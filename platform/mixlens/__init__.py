"""Mixlens: how much high-complexity visual data a vision LLM needs, and what it buys."""

__version__ = "0.1.0"
