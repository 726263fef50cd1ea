"""What all pages share: templates, style, and pictures that travel inside them."""

import base64
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup


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
