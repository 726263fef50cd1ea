"""Held-out images with their questions, and what three models answered."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image

from mixlens.analysis import RunResults, SweepResults
from mixlens.analysis.measurement import MeasuredModel
from mixlens.design import SweepSpec
from mixlens.errors import DataError
from mixlens.sources import open_source
from mixlens.sources.pixels import decode
from mixlens.spec import MeasureSpec

SHOWN = 4
_PHOTO_SIDE = 480  # pixels


@dataclass(frozen=True)
class Reply:
    """One model's answer to one question; `note` says how near a scene graph came."""

    text: str
    is_right: bool
    note: str = ""


@dataclass(frozen=True)
class Asked:
    """One question with the right answer and one reply a model."""

    group: str
    question: str
    answer: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class Shown:
    """One held-out image as a data URI, "" if it cannot be read any more; what was asked."""

    example_id: str
    image: str
    asked: tuple[Asked, ...]


def compared_models(sweep: SweepResults) -> tuple[RunResults, ...]:
    """The base, and the first seed of the first and of the last level."""
    levels = sweep.level_of_trials()
    ends = (sweep.trials[levels.index(end)] for end in sorted({0, max(levels)}))
    return (sweep.base, *ends)


def show_examples(sweep: SweepResults, shown: int = SHOWN) -> list[Shown]:
    """Images at even steps through the held-out set, not chosen by their answers.

    Of each task group the first question about an image is shown.
    """
    answers = [run.examples for run in compared_models(sweep)]
    return _show(answers, sweep.example_ids, sweep.spec, shown)


def show_measured(measured: MeasuredModel, shown: int = SHOWN) -> list[Shown]:
    """The same of one measured model; none where it was asked nothing."""
    answers = measured.model.examples
    return _show([answers], sorted(answers["example_id"].unique()), measured.spec, shown)


def _show(
    answers: Sequence[pd.DataFrame],
    every: Sequence[str],
    spec: SweepSpec | MeasureSpec,
    shown: int,
) -> list[Shown]:
    places = np.linspace(0, len(every) - 1, min(shown, len(every)))
    ids = [every[round(place)] for place in places]
    return [Shown(name, _picture(spec, name), _asked(answers, name)) for name in ids]


def _asked(answers: Sequence[pd.DataFrame], example_id: str) -> tuple[Asked, ...]:
    rows = [table[table["example_id"] == example_id] for table in answers]
    asked = []
    for _, turn in (
        rows[0].drop_duplicates("group").sort_values("complexity", kind="stable").iterrows()
    ):
        replies = []
        for some in rows:
            same = some[
                (some["group"] == turn["group"])
                & (some["question"] == turn["question"])
                & (some["answer"] == turn["answer"])
            ]
            replies.append(_reply(same.iloc[0]) if len(same) else Reply("(not asked)", False))
        asked.append(
            Asked(str(turn["group"]), str(turn["question"]), str(turn["answer"]), tuple(replies))
        )
    return tuple(asked)


def _reply(row: pd.Series) -> Reply:
    f1 = row.get("object_f1")
    note = "" if f1 is None or pd.isna(f1) else f"object F1 {f1:.2f}"
    return Reply(str(row["response"]).strip() or "(empty)", bool(row["relaxed"] == 1), note)


def _picture(spec: SweepSpec | MeasureSpec, example_id: str) -> str:
    """A generated scene as PNG, made anew from its spec; a photograph small, as JPEG."""
    component, _, index = example_id.rpartition("/")
    file = BytesIO()
    try:
        source = open_source(component, spec.components[component], spec.data)
        image = source.example(int(index)).image
        if not isinstance(image, bytes):
            Image.fromarray(image).save(file, format="PNG", optimize=True)
            return _data_uri("png", file)
        picture = Image.fromarray(decode(image))
    except DataError:  # gone since it was answered about, and the page is worth having without
        return ""
    picture.thumbnail((_PHOTO_SIDE, _PHOTO_SIDE))
    picture.save(file, format="JPEG", quality=85)
    return _data_uri("jpeg", file)


def _data_uri(kind: str, file: BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
