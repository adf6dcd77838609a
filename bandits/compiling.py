"""Telling whoever waits that loops are being compiled, which happens once on a machine.

This imports nothing, so that a command can ask for it before it imports what compiles.
"""

from collections.abc import Callable

_tell: list[Callable[[], None]] = []


def tell_once(tell: Callable[[], None]) -> None:
    """Have a function called, once, when this process begins to compile."""
    _tell[:] = [tell]


def begins() -> None:
    """Tell whoever has asked for it."""
    while _tell:
        _tell.pop()()
