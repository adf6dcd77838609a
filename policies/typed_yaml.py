"""From what a person wrote in YAML or JSON to a typed object.

Errors say what there is to choose from.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
import yaml
from msgspec import inspect

from bandits.errors import BanditloopError, InvalidFieldError

T = TypeVar("T")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


class _Loader(yaml.SafeLoader):
    """Takes no key twice: YAML's rule, without which the first would count for nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: list[tuple[str, str]] = []
        for key in keys:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} stands twice", key.start_mark
                    )
                seen.append((key.tag, key.value))
        return super().construct_mapping(node, deep)


def parse_yaml(text: str | bytes) -> Any:
    """What a YAML document holds, as plain objects.

    Raises:
        InvalidFieldError: it is not YAML, or has a key twice in one mapping; one line.
    """
    try:
        return _Loader(text).get_single_data()
    # ValueError: of a date that is none
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidFieldError(f"not YAML: {' '.join(str(error).split())}") from error


def as_type(raw: Any, kind: type[T]) -> T:
    """``raw`` as a ``kind``: a ``msgspec`` struct, a union of tagged ones, or a container of such.

    Raises: InvalidFieldError: it is none. ``target`` is the path of what is wrong, "" for the
        whole. Where a field, a kind
            or a value is none of those that there are, the message has them all and suggests the
            nearest.
    """
    try:
        return msgspec.convert(raw, type=kind)
    except msgspec.ValidationError as error:
        if isinstance(error.__cause__, BanditloopError):  # of a struct's own check
            raise InvalidFieldError(error.__cause__.message, error.__cause__.target) from error
        raise InvalidFieldError(*_explained(error, raw, kind)) from error


def choices(given: object, known: Iterable[object]) -> str:
    """What to say of something that is none of ``known``: the nearest, and all there are."""
    names = list(dict.fromkeys(map(str, known)))
    if not names:
        return "there are none"
    return f"{nearest(given, names)}there {'are' if len(names) > 1 else 'is'} {', '.join(names)}"


def nearest(given: object, names: Sequence[str]) -> str:
    """A question after the nearest of some names, with a space behind it.

    Nothing if none is near.
    """
    found = difflib.get_close_matches(str(given).lower(), names, n=1, cutoff=0.5)
    return f"did you mean {found[0]}? " if found else ""


def _explained(error: msgspec.ValidationError, whole: Any, kind: Any) -> tuple[str, str]:
    """What msgspec says, with the choices; and the path to where it says it."""
    message, _, at = str(error).partition(" - at `")
    raw, kinds, within = whole, _kinds(inspect.type_info(kind)), list[inspect.StructType]()
    path: list[str | int] = []
    for field, place in _STEP.findall(at.rstrip("`")):
        within = _structs(kinds, raw)
        if field:
            step: str | int = field
            types = [
                each.type
                for struct in within
                for each in struct.fields
                if each.encode_name == field
            ]
        elif place:
            step = int(place)
            types = [inner for each in kinds for inner in _items(each, step)]
        else:
            step = next(
                key for key in raw if str(error) == _error_of(_alone(whole, path, key), kind)
            )
            types = [each.value_type for each in kinds if isinstance(each, inspect.DictType)]
        raw, kinds = raw[step], [inner for each in types for inner in _kinds(each)]
        path.append(step)
    named = "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in path
    ).removeprefix(".")
    if at.startswith("key` in `"):
        return f"a key: {message}", named
    return _with_choices(
        message, raw, _structs(kinds, raw), kinds, within, named.rpartition(".")[2]
    ), named


def _with_choices(
    message: str,
    raw: Any,
    structs: Sequence[inspect.StructType],
    kinds: Sequence[inspect.Type],
    within: Sequence[inspect.StructType],
    field: str,
) -> str:
    """``raw`` may be one of ``kinds``, of which ``structs`` are meant, and is the ``field`` of one of ``within``."""
    if unknown := _UNKNOWN.fullmatch(message):
        names = [name for each in structs for name in _fields(each)]
        return f"unknown field {unknown[1]!r}: {choices(unknown[1], names)}"
    if missing := _MISSING.fullmatch(message):
        tags = [each.tag for each in structs if each.tag_field == missing[1]]
        return f"the field {missing[1]!r} is missing" + (f": {choices('', tags)}" if tags else "")
    values = [
        value for each in kinds if isinstance(each, inspect.LiteralType) for value in each.values
    ]
    known = values or [each.tag for each in within if each.tag_field == field]
    if known:
        return f"{raw!r} is no choice: {choices(raw, known)}"
    tagged = [each for each in structs if each.tag is not None]
    if tagged and not isinstance(raw, dict):
        return f"{message}: give {{{tagged[0].tag_field}: ...}}; {choices(raw, (each.tag for each in tagged))}"
    return message


def _kinds(kind: inspect.Type) -> Sequence[inspect.Type]:
    """Of a union all types."""
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _structs(kinds: Sequence[inspect.Type], raw: Any) -> list[inspect.StructType]:
    """The structs that ``raw`` may be meant as: the one of its tag, else all."""
    found = [kind for kind in kinds if isinstance(kind, inspect.StructType)]
    given = raw if isinstance(raw, dict) else {}
    return [
        each for each in found if each.tag is not None and given.get(each.tag_field) == each.tag
    ] or found


def _fields(struct: inspect.StructType) -> list[str]:
    return [*filter(None, (struct.tag_field,)), *(field.encode_name for field in struct.fields)]


def _items(kind: inspect.Type, place: int) -> list[inspect.Type]:
    """What type an item of an array has."""
    if isinstance(kind, inspect.TupleType):
        return [kind.item_types[place]] if place < len(kind.item_types) else []
    item = getattr(kind, "item_type", None)
    return [] if item is None else [item]


def _alone(whole: Any, path: Sequence[str | int], key: Any) -> Any:
    """The same with only one entry in the mapping at ``path``."""
    if not path:
        return {key: whole[key]}
    copied = whole.copy()
    copied[path[0]] = _alone(whole[path[0]], path[1:], key)
    return copied


def _error_of(raw: Any, kind: Any) -> str:
    try:
        msgspec.convert(raw, type=kind)
    except msgspec.ValidationError as error:
        return str(error)
    return ""
