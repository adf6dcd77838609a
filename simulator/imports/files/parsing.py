"""A table that is open, and its chunks parsed ahead of whoever takes the rows."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pyarrow as pa

from simulator.imports.raw import RawRows, TableFormat
from simulator.logs.files import LogFile

Parsed = TypeVar("Parsed")

SAMPLE_ROWS = 1000
PARSERS = 2
"""Chunks parsed at a time; as many wait for it."""


@dataclass(frozen=True, slots=True)
class OpenTable:
    """A file that is a table: how it is read, its columns, and a sample of its rows.

    ``form`` has no open question left.
    """

    file: LogFile
    form: TableFormat
    names: tuple[str, ...]
    sample: "pa.Table" = field(repr=False)


def numbered_rows(
    name: str, first: int, table: "pa.Table", bad: Sequence[int]
) -> Iterator[RawRows]:
    """Yield the rows of a chunk, each with its number.

    Args:
        name: the file.
        first: the number of the chunk's first row.
        table: the rows that could be read.
        bad: the places, from 1, of the rows that could not.
    """
    if not table.num_rows:
        return
    numbers = None
    if bad:
        every = np.arange(first, first + table.num_rows + len(bad))
        numbers = np.delete(every, np.array(bad) - 1)
    (batch,) = table.combine_chunks().to_batches()
    yield RawRows(name, first, batch, numbers)


def ahead(jobs: "Iterator[Future[Parsed]]", count: int) -> Iterator[Parsed]:
    """Yield results in order, with so many jobs under way.

    Args:
        jobs: started as they are taken.
        count: how many are not waited for.
    """
    waiting: deque[Future[Parsed]] = deque()
    for job in jobs:
        waiting.append(job)
        if len(waiting) >= count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
