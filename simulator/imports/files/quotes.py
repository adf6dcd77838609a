"""Quotation marks that open a cell and are not closed: all that follows would be one cell."""


def unclosed_at(chunk: bytes, delimiter: bytes, quote: bytes) -> int | None:
    """Return where the mark is that opens a cell which nothing closes; None: every cell ends.

    A mark opens a cell only where a cell begins; a doubled one is a part of it.

    Args:
        chunk: rows of delimited text.
        delimiter: what separates cells.
        quote: the mark.
    """
    # An even number of them is closed, wherever they are.
    if not quote or chunk.count(quote) % 2 == 0:
        return None

    at = chunk.find(quote)
    while at >= 0:
        if at and chunk[at - 1 : at] not in {delimiter, b"\n", b"\r"}:
            at = chunk.find(quote, at + 1)
            continue
        closed = chunk.find(quote, at + 1)
        while closed >= 0 and chunk[closed + 1 : closed + 2] == quote:
            closed = chunk.find(quote, closed + 2)
        if closed < 0:
            return at
        at = chunk.find(quote, closed + 1)
    return None


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
