"""From what a person wrote in YAML or JSON to a typed object, and back; errors list the choices.

What is written reads as the same again.
"""

import datetime as dt
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


_FLOAT, _TEXT = "tag:yaml.org,2002:float", "tag:yaml.org,2002:str"
_POWER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, as YAML does; PyYAML would drop the first.

    And takes 1e-3 for a number, as YAML 1.2 and JSON do; to YAML 1.1, and so to PyYAML, it is a
    text. The name of an entry stays one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # A key that a merge brings in may be set again.
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        seen: list[tuple[str, str]] = []
        for key in keys:
            if isinstance(key, yaml.ScalarNode):
                if key.tag == _FLOAT and _POWER.match(key.value):
                    key.tag = _TEXT
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"{key.value} stands twice", key.start_mark
                    )
                seen.append((key.tag, key.value))

        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes a text that reads like a number in quotation marks."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(_FLOAT, _POWER, list("-+.0123456789"))


def parse_yaml(text: str | bytes) -> Any:
    """Return what a YAML document holds, as plain objects.

    Raises:
        InvalidFieldError: it is not YAML, or has a key twice in one mapping; one line.
    """
    try:
        return _Loader(text).get_single_data()
    # A date that does not exist is a ValueError.
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise InvalidFieldError(f"not YAML: {' '.join(str(error).split())}") from error


def encode_yaml(value: Any) -> bytes:
    """Return YAML that ``parse_yaml`` reads as the same."""
    plain = msgspec.to_builtins(value, builtin_types=(dt.datetime, dt.date))
    text = yaml.dump(plain, Dumper=_Dumper, allow_unicode=True, sort_keys=False)
    return str(text).encode()


def as_type(raw: Any, kind: type[T]) -> T:
    """Return ``raw`` as a ``kind``.

    Args:
        raw: plain objects, as YAML or JSON has them.
        kind: a ``msgspec`` struct, a union of tagged ones, or a container of such.

    Raises:
        InvalidFieldError: it is none. ``target`` is the path of what is wrong, "" for the whole.
            Where a field, a kind or a value does not exist, the message lists those that do and
            suggests the nearest.
    """
    try:
        return msgspec.convert(raw, type=kind)
    except msgspec.ValidationError as error:
        # A struct's own check says more than msgspec, which wraps it.
        if isinstance(error.__cause__, BanditloopError):
            raise InvalidFieldError(error.__cause__.message, error.__cause__.target) from error
        raise InvalidFieldError(*_explained(error, raw, kind)) from error


def choices(given: object, known: Iterable[object]) -> str:
    """Return what to say of something that is none of ``known``: the nearest, and all there are.

    Args:
        given: what was written.
        known: what could have been.
    """
    names = list(dict.fromkeys(map(str, known)))
    if not names:
        return "there are none"
    return f"{nearest(given, names)}there {'are' if len(names) > 1 else 'is'} {', '.join(names)}"


def nearest(given: object, names: Sequence[str]) -> str:
    """Return a question that suggests the nearest name, with a space behind it; "" if none is near.

    Args:
        given: what was written.
        names: what could have been.
    """
    matches = difflib.get_close_matches(str(given).lower(), names, n=1, cutoff=0.5)
    return f"did you mean {matches[0]}? " if matches else ""


def _explained(error: msgspec.ValidationError, whole: Any, kind: Any) -> tuple[str, str]:
    """Return what msgspec says, with the choices, and the path to where it says it."""
    message, _, at = str(error).partition(" - at `")
    raw, kinds, within = whole, _kinds(inspect.type_info(kind)), list[inspect.StructType]()
    path: list[str | int] = []

    # Follow msgspec's path, from the whole to the value that it complains of: ``kinds`` are the
    # types that a value may have, ``within`` the structs that hold it.
    for field, place in _STEP.findall(at.rstrip("`")):
        within = _structs(kinds, raw)
        if field:
            step: str | int = field
            types = [
                own.type for struct in within for own in struct.fields if own.encode_name == field
            ]
        elif place:
            step = int(place)
            types = [inner for outer in kinds for inner in _items(outer, step)]
        else:
            # msgspec writes [...] for any key of a mapping: it is the one that fails alone.
            step = next(
                key for key in raw if str(error) == _error_of(_alone(whole, path, key), kind)
            )
            types = [outer.value_type for outer in kinds if isinstance(outer, inspect.DictType)]
        raw, kinds = raw[step], [inner for outer in types for inner in _kinds(outer)]
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
    """Return the message with the choices, where something is none of what there is.

    Args:
        message: msgspec's.
        raw: what is wrong.
        structs: those of ``kinds`` that it may be meant as.
        kinds: the types that it may have.
        within: the structs of which it may be the ``field``.
        field: its name.
    """
    if unknown := _UNKNOWN.fullmatch(message):
        names = [name for struct in structs for name in _fields(struct)]
        return f"unknown field {unknown[1]!r}: {choices(unknown[1], names)}"
    if missing := _MISSING.fullmatch(message):
        tags = [struct.tag for struct in structs if struct.tag_field == missing[1]]
        return f"the field {missing[1]!r} is missing" + (f": {choices('', tags)}" if tags else "")

    values = [
        value for kind in kinds if isinstance(kind, inspect.LiteralType) for value in kind.values
    ]
    known = values or [struct.tag for struct in within if struct.tag_field == field]
    if known:
        return f"{raw!r} is no choice: {choices(raw, known)}"

    tagged = [struct for struct in structs if struct.tag is not None]
    if tagged and not isinstance(raw, dict):
        tags = [struct.tag for struct in tagged]
        return f"{message}: give {{{tagged[0].tag_field}: ...}}; {choices(raw, tags)}"
    if any(isinstance(kind, inspect.DateTimeType) for kind in kinds):
        return f"{raw} is no moment with its zone: write it as 2026-12-01T00:00:00Z"
    return message


def _kinds(kind: inspect.Type) -> Sequence[inspect.Type]:
    """Return all types of a union, or the type itself."""
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _structs(kinds: Sequence[inspect.Type], raw: Any) -> list[inspect.StructType]:
    """Return the structs that ``raw`` may be meant as: the one of its tag, else all."""
    structs = [kind for kind in kinds if isinstance(kind, inspect.StructType)]
    fields = raw if isinstance(raw, dict) else {}
    tagged = [
        struct
        for struct in structs
        if struct.tag is not None and fields.get(struct.tag_field) == struct.tag
    ]
    return tagged or structs


def _fields(struct: inspect.StructType) -> list[str]:
    return [*filter(None, (struct.tag_field,)), *(field.encode_name for field in struct.fields)]


def _items(kind: inspect.Type, place: int) -> list[inspect.Type]:
    """Return the type of an array's item at ``place``, in a list; empty if there is none."""
    if isinstance(kind, inspect.TupleType):
        return [kind.item_types[place]] if place < len(kind.item_types) else []
    item = getattr(kind, "item_type", None)
    return [] if item is None else [item]


def _alone(whole: Any, path: Sequence[str | int], key: Any) -> Any:
    """Return ``whole`` with only the entry ``key`` in the mapping at ``path``."""
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
    except BanditloopError:
        return ""  # the rest misses the entries that were left out
    return ""
