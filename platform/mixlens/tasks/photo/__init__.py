"""Questions about photographs, from their annotations."""

from mixlens.tasks.photo.ask import PHOTO_KINDS, ask_photo
from mixlens.tasks.photo.coverage import Coverage, complete_everywhere
from mixlens.tasks.photo.find import Questions, find_questions
from mixlens.tasks.photo.photo import Categories, Photo
from mixlens.tasks.photo.rows import PHOTO_GROUPS, QUESTION

__all__ = [
    "PHOTO_GROUPS",
    "PHOTO_KINDS",
    "QUESTION",
    "Categories",
    "Coverage",
    "Photo",
    "Questions",
    "ask_photo",
    "complete_everywhere",
    "find_questions",
]
