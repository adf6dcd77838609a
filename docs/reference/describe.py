"""Say in Markdown what a docstring, a type or a JSON schema says."""

import inspect
import re
import types
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, without the columns that are empty in every row."""
    kept = [i for i, head in enumerate(heads) if not head or any(row[i] for row in rows)]
    lines = [[heads[i] for i in kept], ["---"] * len(kept)]
    lines += [[row[i].replace("|", "\\|") for i in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def struct(kind: type[msgspec.Struct], title: str | None, level: int = 2) -> list[str]:
    """Return a heading, the prose and the table of the fields of a struct."""
    fields = msgspec.structs.fields(kind)
    hints = get_type_hints(kind, include_extras=True)
    prose, meanings = documentation(inspect.getdoc(kind) or "", [each.name for each in fields])

    rows = [
        (
            f"`{each.encode_name}`",
            type_text(hints[each.name]),
            _default(each),
            meanings.get(each.name, ""),
        )
        for each in fields
    ]
    heading = [f"{'#' * level} {title}"] if title else []
    fields_table = [table(("field", "type", "default", "meaning"), rows)] if rows else []
    return [*heading, *prose, *fields_table]


def inner_structs(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """Return the structs in the fields of a struct."""
    hints = get_type_hints(kind)
    return [
        each for field in msgspec.structs.fields(kind) for each in structs_in(hints[field.name])
    ]


def structs_in(annotation: Any) -> list[type[msgspec.Struct]]:
    """Return the structs in a type, in order."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [each for part in get_args(annotation) for each in structs_in(part)]


def documentation(docstring: str, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the paragraphs of a docstring, and what it says of each field.

    A sentence that begins with a field's name is about that field, and so are those after it up to
    the next such sentence or the paragraph's end. An Attributes section is read as well.
    """
    text, _, attributes = docstring.partition("Attributes:\n")
    prose, meanings = [], {}
    for paragraph in paragraphs(text):
        about: list[str] = []
        rest = []
        for sentence in re.split(r"(?<=[.;])\s+(?=`)|(?<=\.)\s+", paragraph):
            about = _about(sentence, names) or about
            if not about:
                rest.append(sentence)
            for name in about:
                said = re.sub(r"^(?:`\w+`(?:, | and )?)+:\s*", "", sentence)
                meanings[name] = f"{meanings.get(name, '')} {said}".strip()
        if rest:
            prose.append(" ".join(rest).rstrip(";").rstrip(".") + ".")

    for entry in re.split(r"\n(?=\S)", inspect.cleandoc(attributes)):
        name, _, said = entry.partition(":")
        if name.strip("` ") in names:
            meanings[name.strip("` ")] = " ".join(single_backticks(said).split())
    return prose, {name: as_sentence(said) for name, said in meanings.items()}


def _about(sentence: str, names: Sequence[str]) -> list[str]:
    """Return the fields that a sentence begins with."""
    start = re.match(r"((?:`\w+(?:: \w+)?`(?:, | and )?)+)", sentence)
    found = re.findall(r"`(\w+)(?:: \w+)?`", start[1]) if start else []
    return [name for name in found if name in names] if set(found) <= set(names) else []


def as_sentence(said: str) -> str:
    """Return a text that begins with a capital, if with a word, and ends with a full stop."""
    said = said.rstrip("; ").rstrip(".")
    if re.match(r"[a-z]+[ ,:]", said):
        said = f"{said[0].upper()}{said[1:]}"
    return f"{said}." if said else ""


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, each in one line."""
    cleaned = single_backticks(inspect.cleandoc(text.replace("\b", "").replace("\f", "")))
    return [" ".join(each.split()) for each in re.split(r"\n\s*\n", cleaned) if each.strip()]


def single_backticks(text: str) -> str:
    """Return a text with Markdown's backticks for those of docstrings."""
    return text.replace("``", "`")


def type_text(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Return a type as a reader of YAML or JSON would say it."""
    limits = _limits(metadata)
    if hasattr(annotation, "__metadata__"):
        inner = type_text(annotation.__origin__, annotation.__metadata__)
        return inner if not limits else f"{inner}{limits}"

    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in parts)
    if origin in {Union, types.UnionType}:
        names = [type_text(each) for each in parts if each not in {type(None), msgspec.UnsetType}]
        text = " or ".join(dict.fromkeys(names))
    elif origin is list:
        text = f"list of {_grouped(type_text(parts[0]))}"
    elif origin is dict:
        text = f"map to {_grouped(type_text(parts[1]))}"
    elif origin is tuple:
        text = f"[{', '.join(type_text(each) for each in parts)}]"
    else:
        text = _name(annotation)
    return f"{text}{limits}"


def _grouped(text: str) -> str:
    """Return the text of a type, in parentheses if it is one of several."""
    return f"({text})" if " or " in text else text


def heading_of(kind: type) -> str:
    """Return a class name as the heading of its section: JoinRule is Join rule."""
    return re.sub(r"(?<=[a-z])([A-Z])", lambda capital: f" {capital[0].lower()}", kind.__name__)


def _name(kind: Any) -> str:
    """Return the name of a type without parts; a struct is a link to its section."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        tag, heading = kind.__struct_config__.tag, heading_of(kind)
        anchor = heading.lower().replace(" ", "-")
        return f"`{{kind: {tag}}}`" if tag else f"[{heading.lower()}](#{anchor})"
    plain = {
        str: "text",
        bool: "flag",
        int: "integer",
        float: "number",
        bytes: "bytes",
        datetime: "time with its zone",
        Path: "path",
        Any: "any",
    }
    return plain.get(kind, "secret text" if "Secret" in str(kind) else str(kind.__name__))


NO_NEWLINE = r"(?!\n)"
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def _limits(metadata: Sequence[Any]) -> str:
    """Return the limits that a type has, such as ``, ≥ 1, ≤ 64``."""
    found = []
    for each in metadata:
        found += [
            f"{sign} {value:,}"
            for name, sign in SIGNS.items()
            if (value := getattr(each, name, None)) is not None
        ]
        if pattern := getattr(each, "pattern", None):
            found.append(f"`{pattern.removesuffix(NO_NEWLINE)}`")
    return "".join(f", {each}" for each in found)


def _default(field: msgspec.structs.FieldInfo) -> str:
    """Return the default of a struct's field as YAML has it; nothing where it is required."""
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if value is msgspec.UNSET:
        return ""
    return f"`{_yaml(value)}`"


def _yaml(value: Any) -> str:
    """Return a value as YAML's flow style has it, short."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        return f"{{kind: {tag}}}" if tag else "its defaults"
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value) if isinstance(value, str) else msgspec.json.encode(value).decode()


def body_text(content: dict[str, Any]) -> str:
    """Return the type of a body, as a link where it has a name."""
    if not content:
        return ""
    media, body = next(iter(content.items()))
    return schema_text(body["schema"]) if media == "application/json" else media


def schema_text(schema: dict[str, Any]) -> str:
    """Return a JSON schema as a reader would say it."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(schema_text(each) for each in choices))
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])

    kinds = schema.get("type", "any")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_schema_kind(schema, kind) for kind in kinds)


LIMITS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
    "minLength": "length ≥",
    "maxLength": "length ≤",
    "maxItems": "items ≤",
}


def _schema_kind(schema: dict[str, Any], kind: str) -> str:
    """Return one of the types of a schema, with its limits."""
    if kind == "array" and "items" in schema:
        text = f"list of {_grouped(schema_text(schema['items']))}"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        text = f"map to {_grouped(schema_text(schema['additionalProperties']))}"
    else:
        text = {"string": "text", "boolean": "flag"}.get(kind, kind)
    limits = [f"{sign} {schema[name]}" for name, sign in LIMITS.items() if name in schema]
    return ", ".join([text, *limits])


def schema_default(name: str, schema: dict[str, Any], required: Sequence[str]) -> str:
    """Return the default of a property."""
    if name in required:
        return "required"
    return f"`{msgspec.json.encode(schema['default']).decode()}`" if "default" in schema else ""
