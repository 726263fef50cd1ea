"""Look into the tokens of a vision LLM: capture hidden states, reduce them, pool the results."""

from mixlens.activations.measure import Measured, measure

__all__ = ["Measured", "measure"]
