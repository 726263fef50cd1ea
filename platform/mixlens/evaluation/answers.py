"""The table of answers: every question of the held-out images, what was said, and its scores."""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import pyarrow as pa

from mixlens.evaluation.generate import say, spoken
from mixlens.evaluation.throughput import Effort, joined
from mixlens.models import VLM
from mixlens.sources import Example
from mixlens.tasks import GROUPS, Turn, score

_BY_PLACE = sorted(GROUPS.values(), key=attrgetter("place"))
SCORES = tuple(dict.fromkeys(score for group in _BY_PLACE for score in group.scores))
ANSWERS = pa.schema(
    [
        ("example_id", pa.string()),
        ("component", pa.string()),
        ("group", pa.string()),
        ("kind", pa.string()),
        ("complexity", pa.int32()),
        ("prompt", pa.string()),
        ("question", pa.string()),
        ("answer", pa.string()),
        ("response", pa.string()),
        ("choices", pa.int32()),
        ("finished", pa.float64()),
        *((name, pa.float64()) for name in SCORES),
    ]
)

SHORT_LIMIT = 12  # tokens; a word or two, in any tokenizer


@dataclass(frozen=True)
class Ask:
    """One question: the place of its example, the turn, the most tokens of its answer."""

    place: int
    turn: Turn
    limit: int


def answer(
    vlm: VLM, examples: Sequence[Example], batch_size: int = 256, max_new_tokens: int = 128
) -> pa.Table:
    """Ask every turn of every example by itself, greedily, and score the responses.

    Args:
        vlm: the model.
        examples: images with the turns to ask.
        batch_size: questions a forward pass. Long answers are batched by themselves, so that short
            ones do not wait for them.
        max_new_tokens: most tokens of a long answer; short ones get fewer.

    Returns:
        `ANSWERS`, one row a turn in the order of the examples: what was asked and said, the number
        of choices (0: free form), `finished` (1 if the answer ended by itself, 0 if it was cut at
        its limit), and the scores of `mixlens.tasks.score`, null where one is not defined.
    """
    return answer_timed(vlm, examples, batch_size, max_new_tokens)[0]


def answer_timed(
    vlm: VLM, examples: Sequence[Example], batch_size: int = 256, max_new_tokens: int = 128
) -> tuple[pa.Table, Effort]:
    """The table of `answer`, and what it took to generate the answers."""
    asks = asks_of(vlm, examples, max_new_tokens)
    said: list[list[int]] = [[]] * len(asks)
    worker = f"{socket.gethostname()}/{os.getpid()}"
    efforts = [Effort(0, 0, 0.0, worker)]
    for batch in _batches(asks, batch_size):
        places = sorted({asks[number].place for number in batch})
        where = {place: i for i, place in enumerate(places)}
        started = time.perf_counter()
        told = say(
            vlm,
            [examples[place].image for place in places],
            [asks[number].turn.question for number in batch],
            [where[asks[number].place] for number in batch],
            [asks[number].limit for number in batch],
        )
        seconds = time.perf_counter() - started
        efforts.append(Effort(len(batch), sum(map(len, told)), seconds, worker))
        for number, tokens in zip(batch, told, strict=True):
            said[number] = tokens
    return table_of(vlm, examples, asks, said), replace(joined(efforts), worker=worker)


def asks_of(vlm: VLM, examples: Sequence[Example], max_new_tokens: int = 128) -> list[Ask]:
    """Every turn of every example, in order."""
    turns = [(place, turn) for place, example in enumerate(examples) for turn in example.turns]
    limits = answer_limits(vlm, [turn for _, turn in turns], max_new_tokens)
    return [Ask(*asked, limit) for asked, limit in zip(turns, limits, strict=True)]


def table_of(
    vlm: VLM, examples: Sequence[Example], asks: Sequence[Ask], said: Sequence[Sequence[int]]
) -> pa.Table:
    """`ANSWERS` of the tokens that were said to each question."""
    rows = [
        _row(examples[ask.place], ask.turn, *spoken(vlm, tokens))
        for ask, tokens in zip(asks, said, strict=True)
    ]
    return pa.Table.from_pylist(rows, ANSWERS)


def answer_limits(vlm: VLM, turns: Sequence[Turn], max_new_tokens: int = 128) -> list[int]:
    """Most tokens the answer of each turn may have.

    A short one what the longest possible right answer needs, and two; a long one `max_new_tokens`.
    """
    texts = sorted({text for turn in turns for text in (turn.answer, *turn.choices)})
    ids = vlm.processor.tokenizer([f" {text}" for text in texts], add_special_tokens=False)
    tokens = {text: len(found) for text, found in zip(texts, ids["input_ids"], strict=True)}

    def limit(turn: Turn) -> int:
        if has_long_answer(turn):
            return max_new_tokens
        longest = max(tokens[text] for text in (turn.answer, *turn.choices))
        return min(max_new_tokens, max(SHORT_LIMIT, longest + 2))

    return [limit(turn) for turn in turns]


def has_long_answer(turn: Turn) -> bool:
    """Whether the answer of a turn may take as many tokens as the limit allows."""
    return GROUPS[turn.group].has_long_answers


def _batches(asks: Sequence[Ask], size: int) -> Iterator[list[int]]:
    """Places in `asks`: short answers image by image, then long ones by expected length."""
    short = [i for i, ask in enumerate(asks) if not has_long_answer(ask.turn)]
    long = [i for i, ask in enumerate(asks) if has_long_answer(ask.turn)]
    long.sort(key=lambda i: len(asks[i].turn.answer))
    for numbers in (short, long):
        for first in range(0, len(numbers), size):
            yield numbers[first : first + size]


def _row(example: Example, turn: Turn, response: str, finished: bool) -> dict[str, object]:
    scores = score(turn, response)
    assert scores.keys() <= set(SCORES), f"no column for {scores.keys() - set(SCORES)}"
    return {
        "example_id": example.example_id,
        "component": example.component,
        "group": turn.group,
        "kind": turn.kind,
        "complexity": turn.complexity,
        "prompt": turn.prompt,
        "question": turn.question,
        "answer": turn.answer,
        "response": response,
        "choices": len(turn.choices),
        "finished": float(finished),
        **scores,
    }
