"""The parts of any page: templates, style, sections, and pictures that travel inside it."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from mixlens.report.grids import Grid


def template(name: str) -> Template:
    """A template of this folder; what it names must be given."""
    return Environment(
        loader=PackageLoader("mixlens.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(name)


def style() -> Markup:
    """The style sheet, to stand inside the page."""
    return Markup(resources.files("mixlens.report").joinpath("report.css").read_text())


def data_uri(svg: bytes) -> str:
    """An SVG as the address of an image."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


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
