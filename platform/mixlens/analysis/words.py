"""Numbers and names in the words of answers and reports."""

import math
from collections.abc import Sequence

import pandas as pd

from mixlens.analysis.effect import is_beyond_noise
from mixlens.analysis.tables import TIERS
from mixlens.tasks import GROUPS

GROUP_NAMES = {name: group.label for name, group in GROUPS.items()} | {tier: tier for tier in TIERS}


def score_name(group: str) -> str:
    """What the headline score of a task group is called."""
    return f"{GROUPS[group].label} {GROUPS[group].score_label}"


def group_title(group: str) -> str:
    """The label of a task group, with its headline score where that is no accuracy."""
    known = GROUPS[group]
    title = known.label.replace("-", " ")
    return title if known.score_label == "accuracy" else f"{title}, {known.score_label}"


def number(value: float, digits: int = 3, signed: bool = False) -> str:
    """A number for people: a real minus sign, no negative zero, "n/a" for NaN."""
    if pd.isna(value):
        return "n/a"
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def with_interval(row: pd.Series, digits: int = 3, signed: bool = False) -> str:
    """`value [low, high]`; without ends where they are unknown."""
    value = number(row["value"], digits, signed)
    if pd.isna(row["low"]):
        return f"{value} (no interval)"
    low, high = (number(row[end], digits, signed) for end in ("low", "high"))
    return f"{value} [{low}, {high}]"


def digits_of(row: pd.Series) -> int:
    """Decimals that show two figures of the interval's width: at least 3, at most 6."""
    width = row["high"] - row["low"]
    if not width > 0:  # unknown, or none
        return 3
    return min(max(3, 1 + math.ceil(-math.log10(width))), 6)


def is_change(row: pd.Series) -> bool:
    """Whether an effect is beyond the noise, or of unknown noise."""
    return pd.isna(row["low"]) or is_beyond_noise(row)


def coverage(row: pd.Series, unit: str) -> str:
    """What the brackets cover; `unit` is what seeds repeat, such as "ratio"."""
    if row["covers"] == "images":
        return (
            f"Brackets are 95 % intervals over held-out images only: no {unit} has a second seed, "
            "so the noise of training is not in them, and a difference may still be luck."
        )
    few = (
        f" With so few seeds the intervals lean on seed noise being alike at every {unit}."
        if row["n_seeds"] < 5
        else ""
    )
    return f"Brackets are 95 % intervals over held-out images and training seeds.{few}"


def size(row: pd.Series, each: str) -> str:
    """How much an effect rests on; `each` is what seeds repeat, such as "a ratio"."""
    runs, few, many, images = (
        int(row[name]) for name in ("n_runs", "n_seeds", "n_seeds_max", "n_images")
    )
    seeds = f"{few} to {many} seeds" if few != many else f"{few} seed{'s' if few != 1 else ''}"
    return f"{runs} run{'s' if runs != 1 else ''}, {seeds} {each}, {images} held-out images"


def listing(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def span(counts: pd.Series) -> str:
    """`few to many`, or the one count that there is."""
    few, many = int(counts.min()), int(counts.max())
    return str(few) if few == many else f"{few} to {many}"


def worse_than_guessing(parts: Sequence[str]) -> str:
    """Why an accuracy below that of a guesser is no measure of sight; "" where there is none."""
    if not parts:
        return ""
    return (
        f"Worse than guessing among the choices: {listing(parts)}. Such a model does not answer "
        "with the words that are asked for, because it does not know them or answers in another "
        "form, so these accuracies say nothing about what it sees."
    )


def upper(text: str) -> str:
    """With a capital at the start."""
    return text[:1].upper() + text[1:]


def group_name(group: object) -> str:
    """A task group, or what is none, by its name for people."""
    return GROUP_NAMES.get(str(group), str(group))


def plain(name: object) -> str:
    """The name of an attribute or column in words."""
    return str(name).replace("_", " ")
