"""Ask a model every held-out question and score what it says."""

from mixlens.evaluation.answers import ANSWERS, answer
from mixlens.evaluation.generate import generate

__all__ = ["ANSWERS", "answer", "generate"]
