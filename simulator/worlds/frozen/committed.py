"""The committed parameters of the frozen worlds, and what may be said instead of them."""

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any, get_args, get_origin, get_type_hints

from bandits.errors import InvalidFieldError
from bandits.log.codec import digest
from policies.typed_yaml import as_type, choices, parse_yaml
from simulator.worlds.frozen.parameters import (
    AttackersParameters,
    DriftParameters,
    PositionsParameters,
    SegmentsParameters,
    ShopParameters,
    VisitParameters,
)

WorldParameters = (
    ShopParameters
    | DriftParameters
    | AttackersParameters
    | PositionsParameters
    | SegmentsParameters
)
PARAMETERS: Mapping[str, type[WorldParameters]] = {
    "shop": ShopParameters,
    "drift": DriftParameters,
    "attackers": AttackersParameters,
    "positions": PositionsParameters,
    "segments": SegmentsParameters,
}
"""The kind of parameters of each world, by its name."""


def parameters_file() -> bytes:
    """Return the committed file with the parameters of all worlds."""
    return resources.files(__package__).joinpath("parameters.toml").read_bytes()


def parameters_digest() -> str:
    """Return the digest of the committed file: 32 hex digits of BLAKE2b."""
    return digest(parameters_file())


def frozen_parameters(world: str, changes: Mapping[str, Any] | None = None) -> WorldParameters:
    """Return the parameters of a world.

    Args:
        world: One of PARAMETERS.
        changes: Values to use instead of the committed ones, by parameter.

    Raises:
        InvalidFieldError: There is no such world or parameter, or a value is outside of its range;
            names the parameter and what it may be.
    """
    if world not in PARAMETERS:
        raise InvalidFieldError(
            f"there is no frozen world {world!r}: {choices(world, PARAMETERS)}", "world"
        )
    kind = PARAMETERS[world]
    allowed = allowed_values(kind)
    for name in changes or ():
        if name not in allowed:
            raise InvalidFieldError(
                f"{world} has no parameter {name!r}: {choices(name, allowed)}", name
            )

    try:
        return as_type({**_committed()[world], **(changes or {})}, kind)
    except InvalidFieldError as error:
        # msgspec's own words leave out the name and half of the range.
        name = (error.target or "").partition("[")[0]
        if name not in allowed or error.message.startswith(name):
            raise
        value = (changes or {}).get(name)
        raise InvalidFieldError(
            f"{name}: {value!r} is not allowed; it is {allowed[name]}", name
        ) from error


def allowed_values(kind: type[VisitParameters]) -> dict[str, str]:
    """Return what each parameter of a world may be, such as ``a number, 0 to 0.2``.

    Args:
        kind: The kind of the world's parameters.
    """
    hints = get_type_hints(kind, include_extras=True)
    return {name: _allowed(hints[name]) for name in kind.__struct_fields__}


def _allowed(hint: Any) -> str:
    """Return what a value of a type may be."""
    plain = getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint
    if get_origin(plain) is list:
        return f"a list; each is {_allowed(get_args(plain)[0])}"
    if plain is str:
        return "a day, such as 2026-01-05"

    noun, limits = "an integer" if plain is int else "a number", _limits(hint)
    low = _written(limits["ge"]) if "ge" in limits else f"above {_written(limits['gt'])}"
    if "le" in limits:
        return f"{noun}, {low} to {_written(limits['le'])}"
    return (
        f"{noun}, {low}, below {_written(limits['lt'])}"
        if "lt" in limits
        else f"{noun}, {low} or more"
    )


def _limits(hint: Any) -> dict[str, float]:
    """Return the limits of a number by their kind: ge, gt, le, lt."""
    return {
        kind: value
        for meta in getattr(hint, "__metadata__", ())
        for kind in ("ge", "gt", "le", "lt")
        if (value := getattr(meta, kind)) is not None
    }


def _written(number: float) -> str:
    """Return a limit as a person writes it."""
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


def changes_from(texts: Iterable[str]) -> dict[str, Any]:
    """Return the changes that are written as ``name=value``, with the value as YAML has it.

    Args:
        texts: Such as ``users=1000`` or ``uplifts=[0, 0.1]``.

    Raises:
        InvalidFieldError: One is not written so, or two are about one parameter.
    """
    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidFieldError(f"{text!r} is no change: write users=1000", "set")
        if name in changes:
            raise InvalidFieldError(f"{name} is given twice", name)

        # YAML would read a day as a date.
        given = value if name == "start" else parse_yaml(value)
        changes[name] = given
    return changes


@cache
def _committed() -> dict[str, dict[str, Any]]:
    return tomllib.loads(parameters_file().decode())
