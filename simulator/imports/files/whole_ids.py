"""Ids that are whole numbers: read as such where no other way of writing them is in the text.

007 is not 7, nor is 0x7: a chunk of which a cell begins so, or has a blank beside it, is read as
texts.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import types

from bandits.kernels.compiled import compiled, i8, read_only

WHOLE_ID = pa.uint32()
"""The type by which a reader is asked for ids that are whole numbers."""
MOST_IDS = 1 << 25
"""Whole numbers from here on are texts: their table would be as long as the largest of them."""

_PLAIN = r"^(0|[1-9]\d{0,7})$"


def look_whole(sample: "pa.Array") -> bool:
    """Return whether all texts of a sample are whole numbers, written as such, and not large."""
    return (
        pa.types.is_string(sample.type)
        and len(sample) > 0
        and pc.all(pc.match_substring_regex(sample, _PLAIN)).as_py() is True
    )


def are_plain(chunk: bytes | bytearray, delimiter: str, marks: bytes) -> bool:
    """Return whether cells that are read as whole numbers stay what they are.

    Args:
        chunk: rows of delimited text.
        delimiter: the character between cells.
        marks: what encloses some of them; empty: nothing does.
    """
    if marks or chunk[-3:].rstrip(b"\r\n").endswith((b" ", b"\t")):
        return False
    begin = np.frombuffer(b"\n" + chunk[:3] + b"\n", np.uint8)
    return not (
        _has_odd_cell(begin, ord(delimiter))
        or _has_odd_cell(np.frombuffer(chunk, np.uint8), ord(delimiter))
    )


@compiled(read_only(types.uint8), i8, returns=types.boolean)
def _has_odd_cell(text: Any, delimiter: int) -> bool:
    """Return whether a cell begins with 0 and goes on, or a blank is at its begin or its end.

    Args:
        text: bytes.
        delimiter: the one between cells.
    """
    comma, other = np.uint8(delimiter), np.uint8(9 if delimiter != 9 else 32)
    line, back, blank = np.uint8(10), np.uint8(13), np.uint8(32)
    dot, nought = np.uint8(46), np.uint8(48)
    odd = False
    for at in range(text.size - 2):
        first, second, third = text[at], text[at + 1], text[at + 2]
        begins = (first == comma) | (first == line) | (first == back)
        ends = (second == comma) | (second == line) | (second == back)
        goes_on = (third != comma) & (third != line) & (third != back) & (third != dot)
        odd |= begins & (((second == nought) & goes_on) | (second == blank) | (second == other))
        odd |= ends & ((first == blank) | (first == other))
    return odd
