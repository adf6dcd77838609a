"""A file's bytes in parts that end with a row, read into memory that was used before."""

import io
from collections import deque

from simulator.imports.files.chunks import row_chunks

ROWS = b"\xef\xbb\xbf" + b"".join(b"%d,%s\n" % (n, b"x" * (n % 37)) for n in range(500)) + b"500,y"


def test_parts_are_the_files_bytes_whatever_was_in_the_memory_they_are_read_into() -> None:
    """Parts together are the file; each ends with a row, wherever the one before it was."""
    spare = deque([bytearray(b"\n" * 7), bytearray(b"old,\n" * 1000)])
    parts: list[bytes] = []
    for chunk in row_chunks(io.BytesIO(ROWS), size=64, spare=spare):
        parts.append(bytes(chunk))
        spare.append(chunk)

    assert b"".join(parts) == ROWS[3:]
    assert all(part.endswith(b"\n") for part in parts[:-1])
    assert len(parts) > 50


def test_memory_that_somebody_still_reads_is_left_to_them() -> None:
    """A part whose bytes are still looked at is not written over by the next."""
    spare: deque[bytearray] = deque()
    looks: list[memoryview] = []
    for chunk in row_chunks(io.BytesIO(ROWS), size=64, spare=spare):
        looks.append(memoryview(chunk))
        spare.append(chunk)

    assert b"".join(looks) == ROWS[3:]
