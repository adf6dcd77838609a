"""Quotation marks around cells: where rows end outside of them, and marks that nobody closed.

A mark opens a cell only where a cell begins; a doubled one is a part of it, and so is every one
within a cell that none opened, as in 12" vinyl.
"""

from typing import Any

import numpy as np
from numba import types

from bandits.kernels.compiled import compiled, i8, read_only

RETURN = 13


def ends_outside(data: bytes | bytearray, delimiter: bytes, quote: bytes, newline: bytes) -> int:
    """Return where the last row ends whose cells are all closed; 0: none does.

    Args:
        data: rows of delimited text, from the begin of one on.
        delimiter: the character that separates cells.
        quote: the mark.
        newline: the character that ends rows.
    """
    end, _ = _ends(np.frombuffer(data, np.uint8), ord(delimiter), ord(quote), ord(newline))
    return int(end)


def unclosed_at(data: bytes | bytearray, delimiter: bytes, quote: bytes) -> int | None:
    """Return where the mark is that opens a cell which nothing closes; None: every cell ends.

    Args:
        data: rows of delimited text, from the begin of one on.
        delimiter: the character that separates cells.
        quote: the mark; empty: there is none.
    """
    # Without one, nothing is open.
    if not quote or quote not in data:
        return None
    _, at = _ends(np.frombuffer(data, np.uint8), ord(delimiter), ord(quote), ord(b"\n"))
    return None if at < 0 else int(at)


@compiled(read_only(types.uint8), i8, i8, i8, returns=types.UniTuple(i8, 2))
def _ends(text: Any, delimiter: int, quote: int, newline: int) -> Any:
    """Return where the last row ends, and where the mark is that leaves a cell open, or -1."""
    begins, end, opened, at = True, 0, -1, 0
    while at < text.size:
        byte = text[at]
        if opened >= 0:
            if byte == quote:
                if at + 1 < text.size and text[at + 1] == quote:
                    at += 1
                else:
                    opened, begins = -1, False
        elif byte == quote and begins:
            opened = at
        else:
            begins = byte in (newline, delimiter, RETURN)
            if byte == newline:
                end = at + 1
        at += 1
    return end, opened


def unclosed_error(name: str, row: int, lines: int) -> str:
    """Return what is said of a mark that is not closed.

    Args:
        name: the file.
        row: the row it is in, from 1.
        lines: how many follow in the same cell.
    """
    return (
        f"{name}: a quotation mark that opens a cell in row {row:,} is not closed, so the"
        f" {lines:,} lines after it would be a part of that cell: close it, or read such marks as"
        " ordinary characters: --quote ''"
    )
