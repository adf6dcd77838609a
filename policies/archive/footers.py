"""The headers of range files, read from their last bytes: a thousand files in a moment.

Opened as Parquet, a file has every column of every row group decoded from its footer first.
"""

import os
from typing import Any

import msgspec
import pyarrow.parquet as pq

from policies.archive.layouts import METADATA, RECORD_BYTES, record_bytes
from policies.archive.range_file import RangeHeader

TAIL = 1 << 13
"""Bytes that are read: what a file says of itself is in the last one or two thousand."""
MAGIC = b"PAR1"
TEXT = b"\x18"
"""The next field of a struct, and it is a text: Thrift's compact protocol, which footers are in."""


def said_header(source: Any) -> tuple[RangeHeader, int] | None:
    """Return a file's header and the bytes of its records in the stream.

    None if its last bytes do not say it: then the file has to be opened.

    Args:
        source: its bytes, at any offset.
    """
    source.seek(0, os.SEEK_END)
    source.seek(max(0, source.tell() - TAIL))
    tail = source.read()

    said = _value(tail, METADATA)
    if said is None or not tail.endswith(MAGIC):
        return None
    try:
        header = msgspec.json.decode(said, type=RangeHeader)
        if header.format == 1:
            return header, record_bytes(pq.read_metadata(source))
        return header, int(_value(tail, RECORD_BYTES) or b"")
    except (msgspec.MsgspecError, ValueError):
        return None


def _value(tail: bytes, key: bytes) -> bytes | None:
    """Return the value of a key among the last of a footer's pairs of texts."""
    start = TEXT + bytes([len(key)]) + key + TEXT
    at = tail.rfind(start)
    if at < 0:
        return None

    # The length, seven bits a byte, the last byte below 128.
    at, length, shift = at + len(start), 0, 0
    while at < len(tail) and tail[at] >= 128:
        length, shift, at = length | (tail[at] & 127) << shift, shift + 7, at + 1
    if at == len(tail):
        return None
    length |= tail[at] << shift
    return tail[at + 1 : at + 1 + length]
