"""The page of the frozen worlds, from the parameters that are committed."""

import inspect

import msgspec
from describe import documentation, table

from simulator.worlds.frozen.committed import (
    PARAMETERS,
    allowed_values,
    frozen_parameters,
    parameters_digest,
)
from simulator.worlds.frozen.parameters import VisitParameters


def frozen_worlds() -> str:
    """Return the page of all worlds and their parameters."""
    parts = [
        "# Frozen worlds",
        (
            "Worlds whose truth is known and whose parameters were fixed before anybody built what"
            " is judged in them. [Worlds](../explanation/worlds.md#frozen-worlds) says what they"
            " model, and what they do not."
        ),
        (
            "The parameters are committed in `simulator/worlds/frozen/parameters.toml`; the digest"
            f" of that file is `{parameters_digest()}`. To change a number is to make another"
            " world: it has a higher version. `banditloop worlds parameters` prints them, and"
            " `--set NAME=VALUE` tries others. `attackers` has up to a fifth of the visits, and"
            " `drift` is as strong as it can be at 1."
        ),
    ]

    for name, kind in PARAMETERS.items():
        prose, meanings = _said_of(kind)
        given, allowed = msgspec.structs.asdict(frozen_parameters(name)), allowed_values(kind)
        rows = [
            (f"`{field}`", str(given[field]), allowed[field], meanings[field])
            for field in kind.__struct_fields__
        ]
        heads = ("parameter", "value", "allowed", "meaning")
        parts += [f"## `{name}`", *prose, table(heads, rows)]
    return "\n\n".join(parts)


def _said_of(kind: type[VisitParameters]) -> tuple[list[str], dict[str, str]]:
    """Return the prose of a kind of parameters, and what it and its bases say of each field."""
    prose, _ = documentation(inspect.getdoc(kind) or "", [])
    meanings: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if issubclass(each, VisitParameters):
            meanings |= documentation(each.__doc__ or "", kind.__struct_fields__)[1]
    return prose, meanings
