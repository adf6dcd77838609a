"""JSON as the pages read it: each part knows where it stands, so that a page says what it shows."""

from collections.abc import Iterator, Sequence
from typing import Any


class Located:
    """A part of an answer of the API, and its path there.

    A field is an attribute, or an item; one that is not there is an error, unless ``get`` asks.
    """

    __slots__ = ("_path", "_value")

    def __init__(self, value: Any, path: str = "") -> None:
        self._value = value
        self._path = path

    def __getattr__(self, name: str) -> "Located":
        if isinstance(self._value, dict) and name in self._value:
            return self._below(name, self._value[name])
        raise AttributeError(name)

    def __getitem__(self, key: str | int) -> "Located":
        inside: Any = self._value
        return self._below(str(key), inside[key])

    def __iter__(self) -> Iterator["Located"]:
        of_map = isinstance(self._value, dict)
        each = self._value.values() if of_map else self._value or ()
        names = self._value if of_map else range(len(self._value or ()))
        for name, value in zip(names, each, strict=True):
            yield self._below(str(name), value)

    def __len__(self) -> int:
        return len(self._value or ())

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return bool(self._value == (other._value if isinstance(other, Located) else other))

    def __hash__(self) -> int:
        return hash(self._path)

    def __str__(self) -> str:
        return "" if self._value is None else str(self._value)

    def _below(self, name: str, value: Any) -> "Located":
        return Located(value, f"{self._path}.{name}" if self._path else name)


def unlocated(value: Any) -> Any:
    """Return a value of an answer as it is, without its place."""
    return value._value if isinstance(value, Located) else value  # noqa: SLF001 - its own file


def path_to(value: Any) -> str | None:
    """Return where a value stands in its answer; None if it is of none."""
    return value._path if isinstance(value, Located) else None  # noqa: SLF001 - its own file


def maybe(value: Any, *names: str) -> Any:
    """Return what is below a value; None where something on the way is missing or null.

    Args:
        value: of an answer.
        names: of the fields, from above.
    """
    for name in names:
        inside = unlocated(value)
        if not isinstance(inside, dict) or inside.get(name) is None:
            return None
        value = value[name]
    return value


def pairs(value: Located) -> Sequence[tuple[str, Located]]:
    """Return the fields of a map, each with its name."""
    return [(str(name), value[name]) for name in unlocated(value) or {}]
