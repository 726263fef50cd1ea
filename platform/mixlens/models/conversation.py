"""A turn -> the text of a conversation, and where the answer stands in it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from mixlens.tasks.turn import Turn

_QUESTION, _ANSWER = "\ue000", "\ue001"  # in no text: Unicode leaves them to private use


@dataclass(frozen=True)
class Chat:
    """How a model is spoken to.

    Attributes:
        template: the Jinja template of a conversation.
        variables: what templates may name besides the messages: `bos_token` and the like.
        special: what ends an answer is the first of these behind it.
        eos: text of the token that ends an answer where the template writes none.
        plain_answers: whether answers have to be text by itself, not one of several contents.
    """

    template: str
    variables: dict[str, Any]
    special: re.Pattern[str]
    eos: str
    plain_answers: bool = False

    @classmethod
    def of(cls, template: str, tokenizer: Any) -> "Chat":
        """The manner of a model, by its chat template and tokenizer."""
        added = tokenizer.added_tokens_decoder.values()
        ends = {tokenizer.eos_token, *(token.content for token in added if token.special)}
        # Longest first: one may be the beginning of another.
        special = re.compile("|".join(map(re.escape, sorted(ends, key=len, reverse=True))))
        chat = cls(template, tokenizer.special_tokens_map, special, tokenizer.eos_token)
        # A template that knows no contents in answers writes them out as they are.
        probe = chat._text([_asking("a", True), chat._answering("b")])
        return replace(chat, plain_answers="'type'" in probe)

    def question(self, text: str, with_image: bool = True) -> str:
        """The text that shows an image, if there is one, and asks one question."""
        pattern = self._patterns[with_image]
        if pattern is not None and text == text.strip():
            return pattern[0].replace(_QUESTION, text)
        return self._text([_asking(text, with_image)], add_generation_prompt=True)

    def _whole(self, asked: str, answer: str, with_image: bool) -> str:
        """The text of a question and its answer, as the template writes it."""
        pattern = self._patterns[with_image]
        if pattern is not None and all(text == text.strip() for text in (asked, answer)):
            return pattern[1].replace(_QUESTION, asked).replace(_ANSWER, answer)
        return self._text([_asking(asked, with_image), self._answering(answer)])

    @cached_property
    def _patterns(self) -> dict[bool, tuple[str, str] | None]:
        """With an image and without: the texts of a question, and of it with its answer.

        None where the template does more than put question and answer into a text. To render a
        template takes as long as to tokenise what it gives, and a batch has hundreds of turns.
        """
        return {with_image: self._pattern(with_image) for with_image in (True, False)}

    def _pattern(self, with_image: bool) -> tuple[str, str] | None:
        def both(asked: str, answer: str) -> tuple[str, str]:
            asking = [_asking(asked, with_image)]
            return (
                self._text(asking, add_generation_prompt=True),
                self._text([*asking, self._answering(answer)]),
            )

        pattern = both(_QUESTION, _ANSWER)
        asked, answer = "Is it so?", "No, 2."
        filled = tuple(p.replace(_QUESTION, asked).replace(_ANSWER, answer) for p in pattern)
        return pattern if both(asked, answer) == filled else None

    def render(self, turns: Sequence[Turn], with_image: bool = True) -> tuple[list[str], list[int]]:
        """The text of each turn as a conversation of its own, and where what is learned begins.

        That are the answer and what ends it; nothing stands behind. The answer begins where the
        text that asks for it ends.
        """
        texts, starts = [], []
        for turn in turns:
            asked = self.question(turn.question, with_image)
            text = self._whole(turn.question, turn.answer, with_image)
            # Some templates show a finished answer otherwise than one that they ask for: other
            # spaces before it, or without the thoughts that they ask for. Learned is what is asked.
            text = text if text.startswith(asked) else asked + turn.answer
            texts.append(self._ended(text, len(asked)))
            starts.append(len(asked))
        return texts, starts

    def _answering(self, text: str) -> dict[str, Any]:
        content = text if self.plain_answers else [{"type": "text", "text": text}]
        return {"role": "assistant", "content": content}

    def _ended(self, text: str, start: int) -> str:
        end = self.special.search(text, start)
        return text[: end.end()] if end else text.rstrip() + self.eos

    def _text(self, chat: list[dict[str, Any]], *, add_generation_prompt: bool = False) -> str:
        rendered, _ = render_jinja_template(
            conversations=[chat],
            chat_template=self.template,
            add_generation_prompt=add_generation_prompt,
            **self.variables,
        )
        return str(rendered[0])


def _asking(text: str, with_image: bool) -> dict[str, Any]:
    shown = [{"type": "image"}] if with_image else []
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}
