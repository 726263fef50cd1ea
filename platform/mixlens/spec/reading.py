"""Read YAML so that every value is what a person sees: no duplicate keys, no hidden numbers.

YAML 1.1 takes `no` for false, `010` for 8 and `1:30` for 90; YAML 1.2 takes the first two for a
word and for 10. Whatever the two read differently, or only a programmer reads at all, is refused
with both ways to write it clearly. A number like `1e-3` is a word in YAML 1.1, but nobody means
one: it is a number here.
"""

import re
from typing import Any

import yaml

from mixlens.errors import SpecError, explain

_TAG = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _MERGE = (
    _TAG + name for name in ("null", "bool", "int", "float", "merge")
)
_STRING, _MAP, _LIST = yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, f"{_TAG}map", f"{_TAG}seq"
_UNCLEAR = "!unclear"
_SPECIAL = re.compile(r"([-+]?)\.(inf|nan)", re.IGNORECASE)
_PLAIN = {  # how a scalar without quotes is read; the first that fits all of it
    _NULL: r"~|null|Null|NULL|",
    _BOOL: r"true|True|TRUE|false|False|FALSE",
    _INT: r"[-+]?(0|[1-9][0-9]*)",
    _FLOAT: r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|(0|[1-9][0-9]*)(?=[eE]))([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    _MERGE: r"<<",
    # Booleans of YAML 1.1; numbers of one version alone: octal, hexadecimal, binary, base 60, with
    # underscores; dates.
    _UNCLEAR: r"(?i:yes|no|on|off)"
    r"|[-+]?0[0-9_]+|[-+]?0(x[0-9a-fA-F_]+|o[0-7_]+|b[01_]+)"
    r"|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?"
    r"|[-+]?(?=[0-9_.]*_)[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9][0-9_]*_[0-9_]*"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t][0-9:. \tZ+-]*)?",
}


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the meanings of `_PLAIN` in place of those of YAML 1.1."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), None)


def read_yaml(text: str | bytes, where: str) -> Any:
    """The content of a YAML document: dicts, lists, and values.

    Args:
        text: the document.
        where: a file, or a key on the command line, for messages.

    Raises:
        SpecError: the text is no YAML; a mapping has a key twice; a name is no text; or a value
            could be read in several ways.
        yaml.YAMLError: the text is no YAML.
    """
    node = yaml.compose(text, Loader=_Loader)
    if node is None:
        return None
    return _Reader(where, several_lines=node.end_mark.line > 0).value(node, ())


class _Reader:
    """From the nodes of a document to values; nothing that two places share is one object."""

    def __init__(self, where: str, several_lines: bool) -> None:
        self.where = where
        self.several_lines = several_lines
        self.inside: list[yaml.Node] = []

    def value(self, node: yaml.Node, path: tuple[str, ...]) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if any(node is outer for outer in self.inside):
            raise self._error(node, path, "...", "it holds itself", "Write out what is meant.")
        self.inside.append(node)
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            found: Any = self._mapping(node, path)
        elif isinstance(node, yaml.SequenceNode) and node.tag == _LIST:
            found = [self.value(one, (*path, str(i))) for i, one in enumerate(node.value)]
        else:
            raise self._error(node, path, node.tag, "this tag is not read", "Take it out.")
        self.inside.pop()
        return found

    def _mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Any]:
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            name = "<<" if key.tag == _MERGE else self._name(key, path)
            if name in lines:
                place = f"in line {lines[name]}" if self.several_lines else "before it"
                problem = f"this key stands {place} already, and one of the two would be lost"
                raise self._error(key, (*path, name), name, problem, "Leave one out.")
            lines[name] = key.start_mark.line + 1
            if key.tag == _MERGE:
                merged = self._merged(value, path)
            else:
                own[name] = self.value(value, (*path, name))
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: tuple[str, ...]) -> dict[str, Any]:
        """What `<<` takes over: of several mappings the first that has a key gives it."""
        several = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Any] = {}
        for one in several:
            if not isinstance(one, yaml.MappingNode):
                raise self._error(
                    one, path, "<<", "only mappings can be merged", "Name one, or a list of them."
                )
            found = {**self.value(one, path), **found}
        return found

    def _name(self, node: yaml.Node, path: tuple[str, ...]) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(
                node, path, "a list or mapping", "it is no name", "Name it by a word."
            )
        if node.tag != _STRING:
            raise self._error(
                node, path, node.value, "YAML does not read this name as text", _quoted(node.value)
            )
        return str(node.value)

    def _scalar(self, node: yaml.ScalarNode, path: tuple[str, ...]) -> Any:
        text = node.value
        try:
            if node.tag == _NULL:
                return None
            if node.tag == _BOOL and text.lower() in ("true", "false"):
                return text.lower() == "true"
            if node.tag == _INT:
                return int(text)
            if node.tag == _FLOAT:
                return float(_SPECIAL.sub(r"\1\2", text))
        except ValueError:
            pass
        if node.tag == _STRING:
            return text
        if node.tag == _UNCLEAR:
            raise self._error(
                node, path, text, "programs read this in different ways", _clearly(text)
            )
        raise self._error(
            node, path, text, f"it cannot be read as {node.tag}", "Leave out the tag."
        )

    def _error(
        self, node: yaml.Node, path: tuple[str, ...], got: str, problem: str, remedy: str
    ) -> SpecError:
        where = self.where
        if self.several_lines:
            where += f", line {node.start_mark.line + 1}"
        if path:
            where += f": {'.'.join(path)}"
        return SpecError(explain(where, got, problem, remedy))


def _quoted(text: str) -> str:
    return f"Quote it: '{text}'."


def _clearly(text: str) -> str:
    """How to write clearly what was meant."""
    if re.match(r"[0-9]{4}-", text):
        return _quoted(text)
    if text.lower() in ("yes", "on", "no", "off"):
        meant = ["true" if text.lower() in ("yes", "on") else "false"]
    else:  # what the two versions of YAML read
        digits, old = text.replace("_", ""), yaml.safe_load(text)
        new = int(digits, 0) if re.match(r"[-+]?0[xob]", digits) else _decimal(digits)
        numbers = [one for one in dict.fromkeys((new, old)) if isinstance(one, int | float)]
        meant = [f"{one:g}" if isinstance(one, float) else str(one) for one in numbers]
    clear = " or ".join(meant) or "it with digits alone"
    return f"Write {clear}; for text, quote it: '{text}'."


def _decimal(digits: str) -> int | None:
    return int(digits) if re.fullmatch(r"[-+]?[0-9]+", digits) else None
