"""A prompt is the same tokens in training, in generation and from the model's own processor.

Templates and tokenizers are published in pairs that nobody tried all of: tokens can join across the
end of a prompt, begin a text otherwise than its middle, or end an answer with what is no end. What
is learned behind such a prompt can never be asked for, so a model is refused when it is opened.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixlens.errors import CheckpointError, explain
from mixlens.models.adapter import Batch
from mixlens.models.turns import IGNORED
from mixlens.sources.example import NO_IMAGE, Example
from mixlens.tasks.turn import Turn

if TYPE_CHECKING:
    from mixlens.models.family import FamilyAdapter

# Letters, capitals and digits join with different tokens; all turns share their image.
TURNS = (
    ("what colour is it ?", "red"),
    ("How many are there?", "2"),
    ("Is it so? Answer yes or no.", "No"),
    ("2 or 3 of them ?", "12 small circles, and a Square"),
)
_SHOWN = 4  # tokens on both sides of a difference


def check_prompts(adapter: "FamilyAdapter", blank: np.ndarray) -> None:
    """Refuse a model of which training and generation see other prompts.

    Args:
        adapter: of the model.
        blank: the picture that it shows in training where there is none.

    Raises:
        CheckpointError: the message has the tokens that differ.
    """
    shown = adapter.image_batch([blank])
    begin = shown["input_ids"][0][shown["attention_mask"][0].bool()].tolist()
    asked = [question for question, _ in TURNS]
    # Two, for processors take far longer for an image than for its text.
    _check_questions(adapter, blank, begin, [asked[0], asked[-1]])
    turns = tuple(Turn(question, answer, "coarse", "k", 1, "p") for question, answer in TURNS)
    for picture in (blank, NO_IMAGE):
        own = adapter.question_tokens(asked, with_image=picture is blank)
        batch = adapter.training_batch([Example("a/0", "a", picture, turns, {})])
        each = zip(TURNS, own, _trained(batch, begin), strict=True)
        for (question, answer), prompt, (seen, learned) in each:
            _compare(adapter, question, seen, "training", prompt, "generation")
            _check_learned(adapter, prompt, answer, learned)


def _check_questions(
    adapter: "FamilyAdapter", blank: np.ndarray, begin: list[int], asked: Sequence[str]
) -> None:
    """What generation is given is what the model's own processor makes of the whole text."""
    whole = adapter.question_batch([blank] * len(asked), asked)
    rows = zip(whole["input_ids"], whole["attention_mask"].bool(), strict=True)
    behind = adapter.question_tokens(asked)
    for question, tokens, (ids, there) in zip(asked, behind, rows, strict=True):
        told = ids[there].tolist()
        _compare(adapter, question, begin + tokens, "generation", told, "its processor")


def _trained(batch: Batch, begin: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Of the turns of a training batch: the tokens behind the image, and what is learned."""
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        seen: list[int] = []
        learned: list[int] = []
        for token, label in zip(ids, labels, strict=True):
            if label == IGNORED and learned:
                yield _without(seen, begin), learned
                seen, learned = [], []
            (seen if label == IGNORED else learned).append(token)
        if learned:
            yield _without(seen, begin), learned


def _without(tokens: list[int], begin: list[int]) -> list[int]:
    return tokens[len(begin) :] if tokens[: len(begin)] == begin else tokens


def _compare(
    adapter: "FamilyAdapter",
    asked: str,
    ours: list[int],
    here: str,
    theirs: list[int],
    there: str,
) -> None:
    if ours == theirs:
        return
    pairs = enumerate(zip(ours, theirs, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    around = slice(max(0, place - _SHOWN), place + _SHOWN)
    raise CheckpointError(
        explain("model", adapter.config.name_or_path, "its chat template and tokenizer make other "
                f"tokens of the prompt {asked!r} in {here}, {_names(adapter, ours[around])}, than "
                f"in {there}, {_names(adapter, theirs[around])}",
                "Give the chat template and the tokenizer of one revision of the model.")
    )  # fmt: skip


def _check_learned(
    adapter: "FamilyAdapter", prompt: list[int], answer: str, learned: list[int]
) -> None:
    """Learned are an answer and one token that ends it."""
    tokenizer = adapter.tokenizer
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    *said, end = learned
    if tokenizer.decode(said).strip() == answer and end in special and not special & {*said}:
        return
    raise CheckpointError(
        explain("model", adapter.config.name_or_path, "its chat template and tokenizer make of the "
                f"answer {answer!r} behind {_names(adapter, prompt[-_SHOWN:])} the tokens "
                f"{_names(adapter, learned)}, which are not the answer and one token that ends it",
                "See that its tokenizer has an eos_token, and the token that ends an answer in its "
                "chat template as a special token.")
    )  # fmt: skip


def _names(adapter: "FamilyAdapter", tokens: list[int]) -> str:
    return " ".join(map(repr, adapter.tokenizer.convert_ids_to_tokens(tokens)))
