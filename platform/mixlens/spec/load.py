"""Read a sweep file and `key=value` overrides; say clearly what is wrong with them."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mixlens.errors import SpecError, explain
from mixlens.spec.base import Spec
from mixlens.spec.places import fields_at, place_of
from mixlens.spec.reading import read_yaml

S = TypeVar("S", bound=Spec)

# Where pydantic's own words are about Python.
_REMEDIES = {
    "bool_type": "Write true or false.",
    "finite_number": "Give a finite number, such as 0.001.",
    "float_type": "Write a number, without quotes, such as 0.001.",
    "int_type": "Write a whole number, without quotes, point or exponent, such as 10.",
    "dict_type": "Give keys and values below it.",
    "string_type": "Give text.",
    "model_type": "Give keys and values below it.",
    "too_long": "Give at most {max_length} of them.",
    "too_short": "Give at least {min_length} of them.",
    "tuple_type": "Give a list like [1, 2].",
    "union_tag_invalid": "The kinds are {expected_tags}.",
}


def load_spec(kind: type[S], path: Path, overrides: Sequence[str] = ()) -> S:
    """Read `path` as a `kind`, after setting every `a.b=value` of `overrides`.

    Of two overrides of the same key the later counts, as everywhere on command lines.

    Raises:
        SpecError: the file is missing or no YAML mapping, an override is no `key=value`, a key is
            unknown or a value impossible. All problems of the file are in the one message.
    """
    content = _read(path)
    for override in overrides:
        _set(content, override)
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        items = error.errors(include_url=False)
        # pydantic counts only right elements, so a wrong one makes its list too short as well.
        inside = {item["loc"][:-1] for item in items}
        problems = [
            _describe(item, kind, path)
            for item in items
            if item["type"] != "too_short" or item["loc"] not in inside
        ]
        raise SpecError("\n".join(problems)) from None


def keys_of(path: Path) -> set[str]:
    """The top-level keys of a YAML file.

    Raises:
        SpecError: the file is missing or no YAML mapping.
    """
    return set(_read(path))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = sorted(str(file) for file in path.parent.glob("*.yaml"))
        known = f"Files there: {', '.join(near)}" if near else "There is no .yaml file there."
        raise SpecError(explain("sweep file", str(path), "no such file", known))
    try:
        content = read_yaml(path.read_bytes(), str(path))
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: this is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise SpecError(explain(str(path), content, "no mapping of keys to values", "See sweeps/."))
    return content


def _set(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise SpecError(
            explain("override", override, "no key=value", "Write it like training.steps=100.")
        )
    try:
        value = read_yaml(text, f"override {key}")
    except yaml.YAMLError:
        raise SpecError(
            explain(f"override {key}", text, "no YAML value", "Quote it or correct it.")
        ) from None
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise SpecError(
                explain(f"override {key}", text, f"{parent!r} holds no keys", "Check the path.")
            )
    place[last] = value


def _describe(item: ErrorDetails, kind: type[Spec], path: Path) -> str:
    field = ".".join(str(part) for part in place_of(kind, item["loc"]))
    where = f"{path}: {field}" if field else str(path)  # of the whole: the text names its fields
    got = _as_written(item["input"])
    if item["type"] == "extra_forbidden":
        if item["loc"][:-1] == () and (place := kind.moved.get(str(item["loc"][-1]))):
            return explain(where, got, "this key has moved", place)
        known = fields_at(kind, item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        meant = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(known)}."
        return explain(where, got, "unknown key", meant)
    if item["type"] == "missing":
        return f"{where}: this key is missing and has no default. Add it."
    if item["type"] == "value_error":  # its text already says value and remedy
        text = item["msg"].removeprefix("Value error, ")
        for named in (field, field.rpartition(".")[2]):  # once is enough
            text = text.removeprefix(f"{named}: ")
        return f"{where}: {text}"
    if item["type"] == "string_type" and isinstance(item["input"], bool | int | float):
        text = str(item["input"])
        text = text.lower() if isinstance(item["input"], bool) else text
        remedy = f"Text is asked here. Quote it: '{text}'."
    elif item["type"] in _REMEDIES:
        remedy = _REMEDIES[item["type"]].format(**item.get("ctx", {}))
    else:
        remedy = item["msg"].replace("Input should", "It should") + "."
    return explain(where, got, "not possible", remedy)


def _as_written(value: Any) -> Any:
    """Tuples as the lists that files hold."""
    if isinstance(value, list | tuple):
        return [_as_written(one) for one in value]
    if isinstance(value, dict):
        return {key: _as_written(one) for key, one in value.items()}
    return value
