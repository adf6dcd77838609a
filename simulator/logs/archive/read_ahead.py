"""Reading ahead: a thread makes what comes next while its reader works on what came before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Made = TypeVar("Made")


def read_ahead(source: Iterator[Made]) -> Iterator[Made]:
    """Yield what an iterator yields; one is made ahead, by a thread.

    It pays where making one leaves the interpreter to others, as reading columns does.

    Args:
        source: nobody else asks it meanwhile; what it raises is raised here, in its place.
    """
    with ThreadPoolExecutor(1, "ahead") as thread:
        following = thread.submit(_next_of, source)
        while made := following.result():
            following = thread.submit(_next_of, source)
            yield from made


def _next_of(source: Iterator[Made]) -> list[Made]:
    """Return the next, in a list; an empty one at the end."""
    return list(islice(source, 1))
