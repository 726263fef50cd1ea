"""A question -> the text of a conversation that asks it, and the text of its answer."""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

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
        eos = tokenizer.eos_token or ""
        ends = {eos, *(token.content for token in added if token.special)} - {""}
        # Longest first: one may be the beginning of another.
        special = re.compile("|".join(map(re.escape, sorted(ends, key=len, reverse=True))) or "$^")
        chat = cls(template, tokenizer.special_tokens_map, special, eos)
        # A template that knows no contents in answers writes them out as they are.
        probe = chat._text([_asking("a", True), chat._answering("b")])
        return replace(chat, plain_answers="'type'" in probe)

    def question(self, text: str, with_image: bool = True) -> str:
        """The text that shows an image, if there is one, and asks one question."""
        pattern = self._patterns[with_image]
        if pattern is not None and text == text.strip():
            return pattern.replace(_QUESTION, text)
        return self._text([_asking(text, with_image)], add_generation_prompt=True)

    def answer(self, text: str, with_image: bool = True) -> str:
        """The text that is learned behind a question: an answer and what ends it.

        Before it stand the spaces that the template puts there, if it puts nothing else.
        """
        before, end = self._around[with_image]
        return before + text.strip() + end

    def end(self, with_image: bool = True) -> str:
        """The text of the token that ends an answer."""
        return self._around[with_image][1]

    @cached_property
    def _patterns(self) -> dict[bool, str | None]:
        """With an image and without: the text of a question.

        None where the template does more than put the question into a text. To render a template
        takes as long as to tokenise what it gives, and a batch has hundreds of turns.
        """
        return {with_image: self._pattern(with_image) for with_image in (True, False)}

    def _pattern(self, with_image: bool) -> str | None:
        def asking(text: str) -> str:
            return self._text([_asking(text, with_image)], add_generation_prompt=True)

        pattern, asked = asking(_QUESTION), "Is it so?"
        return pattern if asking(asked) == pattern.replace(_QUESTION, asked) else None

    @cached_property
    def _around(self) -> dict[bool, tuple[str, str]]:
        """With an image and without: what is learned before an answer, and what ends it."""
        return {with_image: self._found_around(with_image) for with_image in (True, False)}

    def _found_around(self, with_image: bool) -> tuple[str, str]:
        asking = [_asking(_QUESTION, with_image)]
        asked = self._text(asking, add_generation_prompt=True)
        whole, answered, behind = self._text([*asking, self._answering(_ANSWER)]).partition(_ANSWER)
        # Some templates show a finished answer otherwise than one that they ask for: line breaks
        # before it, or with or without thoughts. Learned is what is asked; spaces alone stay, for
        # where they stand before a word, its token holds them.
        before = whole[len(asked) :] if answered and whole.startswith(asked) else ""
        end = self.special.search(behind)
        return "" if before.strip(" ") else before, end[0] if end else self.eos

    def _answering(self, text: str) -> dict[str, Any]:
        content = text if self.plain_answers else [{"type": "text", "text": text}]
        return {"role": "assistant", "content": content}

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
