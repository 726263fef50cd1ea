"""Turns -> the text of a conversation, and where its answers stand in that text."""

from collections.abc import Sequence
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from mixlens.tasks.turn import Turn

Spans = list[tuple[int, int]]


def messages(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Chat messages: the image stands before the first question."""
    chat = []
    for number, turn in enumerate(turns):
        content = [{"type": "text", "text": turn.question}]
        if number == 0:
            content.insert(0, {"type": "image"})
        chat.append({"role": "user", "content": content})
        chat.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
    return chat


def render(chats: list[list[dict[str, Any]]], template: str) -> tuple[list[str], list[Spans]]:
    """The text of each chat and the character spans of its answers.

    A template with `{% generation %}` marks says itself what the model is to write. For any
    other, an answer is what an assistant message adds to the text that asks for it.
    """
    if "generation %}" in template:
        return render_jinja_template(
            conversations=chats, chat_template=template, return_assistant_tokens_mask=True
        )
    texts, spans = [], []
    for chat in chats:
        found: Spans = []
        for end in range(2, len(chat) + 1, 2):
            asked = _text(chat[: end - 1], template, add_generation_prompt=True)
            answered = _text(chat[:end], template)
            if not answered.startswith(asked):
                raise ValueError("the chat template rewrites earlier turns; answers can't be found")
            found.append((len(asked), len(answered)))
        texts.append(_text(chat, template))
        spans.append(found)
    return texts, spans


def question(text: str, template: str) -> str:
    """The text that shows an image and asks one question about it."""
    content = [{"type": "image"}, {"type": "text", "text": text}]
    return _text([{"role": "user", "content": content}], template, add_generation_prompt=True)


def _text(chat: list[dict[str, Any]], template: str, *, add_generation_prompt: bool = False) -> str:
    rendered, _ = render_jinja_template(
        conversations=[chat], chat_template=template, add_generation_prompt=add_generation_prompt
    )
    return str(rendered[0])
