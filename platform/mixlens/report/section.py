"""Parts of a page, for every kind of page."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mixlens.report.grids import Grid
from mixlens.report.page import data_uri


@dataclass(frozen=True)
class Table:
    """A table of a page with its caption; one that is folded shows when asked for."""

    grid: Grid
    caption: str
    is_folded: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page: what it says, facts by name, its figures, then its tables."""

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    figures: list[dict[str, object]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def shown_figures(
    figures: Mapping[str, bytes], captions: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, object]]:
    """What templates need of each figure, numbered in their order.

    Args:
        figures: name -> SVG.
        captions: name -> title and text.
    """
    return {
        name: {
            "name": name,
            "data": data_uri(svg),
            "place": place + 1,
            "title": captions[name][0],
            "text": captions[name][1],
        }
        for place, (name, svg) in enumerate(figures.items())
    }
