"""A turn -> the text of a conversation about an image, and where the answer stands in it."""

from collections.abc import Sequence
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from mixlens.tasks.turn import Turn

Span = tuple[int, int]


def render(turns: Sequence[Turn], template: str) -> tuple[list[str], list[Span]]:
    """The text of each turn as a conversation of its own, and the characters of its answer.

    A template with `{% generation %}` marks says itself what the model is to write. For any
    other, the answer is what the assistant's message adds to the text that asks for it.
    """
    chats = [[_asking(turn.question), _answering(turn.answer)] for turn in turns]
    if "generation %}" in template:
        texts, spans = render_jinja_template(
            conversations=chats, chat_template=template, return_assistant_tokens_mask=True
        )
        return texts, [found[0] for found in spans]
    texts = [_text(chat, template) for chat in chats]
    spans = []
    for turn, text in zip(turns, texts, strict=True):
        asked = question(turn.question, template)
        if not text.startswith(asked):
            raise ValueError("the chat template rewrites the question; no answer can be found")
        spans.append((len(asked), len(text)))
    return texts, spans


def question(text: str, template: str) -> str:
    """The text that shows an image and asks one question about it."""
    return _text([_asking(text)], template, add_generation_prompt=True)


def _asking(text: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def _answering(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def _text(chat: list[dict[str, Any]], template: str, *, add_generation_prompt: bool = False) -> str:
    rendered, _ = render_jinja_template(
        conversations=[chat], chat_template=template, add_generation_prompt=add_generation_prompt
    )
    return str(rendered[0])
