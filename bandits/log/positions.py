"""Positions in a log: ids of a Redis stream, "milliseconds-sequence"."""

START = "0-0"
"""Before the first entry."""

_LAST_SEQUENCE = 2**64 - 1


def log_order(position: str) -> tuple[int, int]:
    """Return the key that sorts positions in the order of the log."""
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence or 0)


def position_ms(position: str) -> int:
    """Return the time of an entry, in milliseconds of the log's clock."""
    return int(position.partition("-")[0])


def position_at(milliseconds: int) -> str:
    """Return the least position of a time; START for a time before the clock began."""
    return f"{max(0, milliseconds)}-0"


def is_after(position: str, other: str) -> bool:
    """Return whether one position comes later in the log than another.

    Args:
        position: the one that may be later.
        other: the one it is compared with; an equal one is not earlier.
    """
    return log_order(position) > log_order(other)


def has_reached(position: str, other: str) -> bool:
    """Return whether a reader has seen an entry.

    Args:
        position: the last entry that the reader has seen.
        other: the entry in question, which may be that last one.
    """
    return log_order(position) >= log_order(other)


def position_before(position: str) -> str:
    """Return the greatest position below this one, for a read that excludes where it starts."""
    milliseconds, sequence = log_order(position)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{_LAST_SEQUENCE}" if milliseconds else START


def position_after(position: str) -> str:
    """Return the least position past this one: the first that a reader from here may miss."""
    milliseconds, sequence = log_order(position)
    if sequence < _LAST_SEQUENCE:
        return f"{milliseconds}-{sequence + 1}"
    return f"{milliseconds + 1}-0"


def merged_position(position: str, partition: int, count: int) -> str:
    """Return the position of an entry in all partitions' logs together, in the order of time.

    Args:
        position: in the log of its partition.
        partition: which that is, from 0.
        count: how many partitions there are.
    """
    milliseconds, sequence = log_order(position)
    return f"{milliseconds}-{sequence * count + partition}"


def own_position(merged: str, partition: int, count: int) -> str:
    """Return up to where a partition's log has been read where all are read up to a position.

    Args:
        merged: the position in all partitions' logs together.
        partition: which, from 0.
        count: how many partitions there are.
    """
    milliseconds, sequence = log_order(merged)
    if sequence < partition:
        return position_before(f"{milliseconds}-0")
    return f"{milliseconds}-{(sequence - partition) // count}"
