"""`mixlens schema`: every key of a file, for editors as JSON Schema and for people as a page."""

from collections.abc import Iterator
from typing import Any, Literal, get_args

import yaml

from mixlens.design import SweepSpec
from mixlens.spec import MeasureSpec, Spec

File = Literal["sweep", "measure"]
FILES: tuple[File, ...] = get_args(File)

Schema = dict[str, Any]

_SPECS: dict[File, type[Spec]] = {"sweep": SweepSpec, "measure": MeasureSpec}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BOUNDS = (
    ("minimum", "≥ {:.12g}"), ("exclusiveMinimum", "> {:.12g}"),
    ("maximum", "≤ {:.12g}"), ("exclusiveMaximum", "< {:.12g}"),
)  # fmt: skip
_TYPES = {
    "string": "text", "boolean": "`true`, `false`", "integer": "whole number", "number": "number",
}  # fmt: skip
_HEAD = """# Reference

Every key of a sweep file and of a measure file. This page is made from the code, by
`make reference`; change the descriptions there.

The title of a section tells where its keys stand: those of `training.lora` stand under `lora:`,
which stands under `training:`; the command line takes `training.lora.rank=8`. NAME is a name of
your choice. *none* is the value of a key that is left out, or that is `null`. A key without a
default must be given.

Editors complete the keys and show these texts with the JSON schema that `mixlens schema` prints.
"""


def schema_of(file: File) -> Schema:
    """The JSON schema of a sweep file or of a measure file.

    It knows each key by itself. What keys have to be together, such as weights that sum to 1, only
    Mixlens checks.
    """
    return {
        "$schema": _DIALECT,
        **_with_units(_SPECS[file].model_json_schema()),
        "title": f"Mixlens {file} file",
    }


def _with_units(schema: Any) -> Any:
    """Descriptions name the unit, for editors that show nothing else."""
    if isinstance(schema, list):
        return [_with_units(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _with_units(value) for key, value in schema.items()}
    if isinstance(unit := schema.get("unit"), str):
        schema["description"] += f" [{unit}]"
    return schema


def reference() -> str:
    """All keys as a page in Markdown: each part of a file once, where it first occurs."""
    seen: dict[str, str] = {}
    parts = [_HEAD]
    for file in FILES:
        schema = _SPECS[file].model_json_schema()
        parts.extend(_Page(schema["$defs"], seen).section(f"A {file} file", "", schema))
    return "\n".join(parts)


class _Page:
    """Sections of one file.

    Attributes:
        parts: the definitions of its schema.
        seen: of each definition that has a section, its title.
    """

    def __init__(self, parts: dict[str, Schema], seen: dict[str, str]) -> None:
        self.parts, self.seen = parts, seen

    def section(self, title: str, path: str, schema: Schema) -> Iterator[str]:
        """The section of a part, then those of the parts below it."""
        yield f"## {title}\n"
        yield f"{_told(schema)}\n"
        below: dict[str, str] = {}
        for key, field in schema["properties"].items():
            for name, place in self.named(field, f"{path}.{key}" if path else key):
                if name not in self.seen:
                    below[name] = place
                    self.seen[name] = self.title(name, place)
        yield "| key | type | unit | default | meaning |"
        yield "|---|---|---|---|---|"
        required = schema.get("required", [])
        for key, field in schema["properties"].items():
            cells = (
                f"`{key}`",
                self.type_of(field),
                field.get("unit", ""),
                "" if key in required else _default(field),
                field["description"],
            )
            yield f"| {' | '.join(cells)} |"
        yield ""
        for name, place in below.items():
            yield from self.section(self.seen[name], place, self.parts[name])

    def named(self, field: Schema, path: str) -> Iterator[tuple[str, str]]:
        """The definitions that a key's value can have, and where their keys stand."""
        if "$ref" in field:
            yield _name(field), path
        for one in (*field.get("oneOf", ()), *field.get("anyOf", ())):
            yield from self.named(one, path)
        if isinstance(inside := field.get("additionalProperties"), dict):
            yield from self.named(inside, f"{path}.NAME")
        if "items" in field:
            yield from self.named(field["items"], f"{path}[]")

    def title(self, name: str, path: str) -> str:
        """Where the keys stand, and for one of several kinds which one it is."""
        return f"`{path}`{f', {kind}' if (kind := self.kind(name)) else ''}"

    def kind(self, name: str) -> str:
        """As a file says it; empty for a part that has no kinds."""
        kind = self.parts[name]["properties"].get("kind", {}).get("const")
        return f"`kind: {kind}`" if kind else ""

    def type_of(self, field: Schema) -> str:
        """The type of a value in words."""
        if "$ref" in field:
            title = self.seen[_name(field)]
            return f"[{self.kind(_name(field)) or title}](#{_anchor(title)})"
        if forms := field.get("oneOf", field.get("anyOf")):
            return " or ".join(self.type_of(one) for one in forms if one.get("type") != "null")
        if "const" in field:
            return f"`{field['const']}`"
        if "enum" in field:
            return ", ".join(f"`{one}`" for one in field["enum"])
        if "prefixItems" in field:
            return f"[{', '.join(self.type_of(one) for one in field['prefixItems'])}]"
        if field["type"] == "array":
            return f"list: {self.type_of(field['items'])}"
        if field["type"] == "object":
            keys = field.get("propertyNames", {}).get("enum")
            name = "one of " + ", ".join(f"`{key}`" for key in keys) if keys else "NAME"
            return f"{name}: {self.type_of(field['additionalProperties'])}"
        bounds = [text.format(field[key]) for key, text in _BOUNDS if key in field]
        return " ".join((_TYPES[field["type"]], ", ".join(bounds))).strip()


def _name(field: Schema) -> str:
    return str(field["$ref"]).rpartition("/")[2]


def _told(schema: Schema) -> str:
    """The docstring of a part, its paragraphs unwrapped."""
    paragraphs = str(schema["description"]).split("\n\n")
    return "\n\n".join(" ".join(one.split()) for one in paragraphs)


def _default(field: Schema) -> str:
    value = field["default"]
    if value is None:
        return "*none*"
    if "$ref" in field:
        return "those there"
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return f"`{text.strip().removesuffix('...').strip()}`"


def _anchor(title: str) -> str:
    """As GitHub names the place of a heading."""
    kept = (char for char in title.lower() if char.isalnum() or char in " -_")
    return "".join(kept).replace(" ", "-")
