"""Where in a file an error of pydantic lies: its places also hold the tags of unions."""

from types import UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from pydantic import Discriminator, Tag

from mixlens.spec.base import Spec


def place_of(kind: type[Spec], where: tuple[int | str, ...]) -> list[int | str]:
    """`where` without what pydantic adds: marks of keys, and of which form a part has."""
    tags, _ = _walk(kind, where)
    return [part for i, part in enumerate(where) if part != "[key]" and i not in tags]


def fields_at(kind: type[Spec], where: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the spec class found at `where` below `kind`."""
    found = _plain(_walk(kind, where)[1])
    return list(found.model_fields) if _is_spec(found) else []


def _walk(kind: type[Spec], where: tuple[int | str, ...]) -> tuple[set[int], Any]:
    """Which places of `where` are tags of a union, and the type of what is found at its end."""
    tags: set[int] = set()
    found: Any = kind
    for place, part in enumerate(where):
        forms = _forms(found)
        if forms:
            tags.add(place)
            found = forms.get(str(part))
            continue
        found = _plain(found)
        if _is_spec(found):
            field = found.model_fields.get(str(part))
            found = field and field.annotation
            if field and field.metadata:
                found = Annotated[found, *field.metadata]
        elif inside := get_args(found):  # the values of a mapping, or what a list holds
            found = inside[-1] if get_origin(found) is dict else inside[0]
    return tags, found


def _is_spec(found: Any) -> TypeGuard[type[Spec]]:
    return isinstance(found, type) and issubclass(found, Spec)


def _plain(annotation: Any) -> Any:
    """Without its metadata, and of `X | None` the X."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _plain(next(one for one in get_args(annotation) if one is not type(None)))
    return annotation


def _forms(annotation: Any) -> dict[str, Any]:
    """Tag -> type of each form of a union that is told apart by tags; else nothing."""
    if get_origin(annotation) is not Annotated:
        return {}
    union, *marks = get_args(annotation)
    if not any(isinstance(mark, Discriminator) for mark in marks):
        return {}
    alone = union if get_origin(union) not in (Union, UnionType) else None
    members = [annotation] if alone else get_args(union)
    forms: dict[str, Any] = {}
    for member in members:
        tags = [mark.tag for mark in getattr(member, "__metadata__", ()) if isinstance(mark, Tag)]
        tags = tags or list(get_args(_plain(member).model_fields["kind"].annotation))
        forms |= dict.fromkeys(tags, alone or member)
    return forms
