"""Tasks: a scene's questions with their answers, and the scoring of responses."""

from mixlens.tasks.ask import GROUPS, ask
from mixlens.tasks.group import Group
from mixlens.tasks.prompts import prompts_digest
from mixlens.tasks.score import score
from mixlens.tasks.turn import Turn
from mixlens.tasks.vocabulary import AnswerSpace, answer_space, vocabulary

__all__ = [
    "GROUPS",
    "AnswerSpace",
    "Group",
    "Turn",
    "answer_space",
    "ask",
    "prompts_digest",
    "score",
    "vocabulary",
]
