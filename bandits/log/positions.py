"""Positions in a log: Redis stream ids, as text and as numbers."""


def log_order(position: str) -> tuple[int, int]:
    """Sorts positions ("milliseconds-sequence") in the order of the log."""
    milliseconds, _, sequence = position.partition("-")
    return int(milliseconds), int(sequence or 0)


def _time_ms(position: str) -> int:
    return log_order(position)[0]


START = "0-0"


def position_before(position: str) -> str:
    """The greatest position below this one, for a read that excludes where it starts."""
    milliseconds, sequence = log_order(position)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{2**64 - 1}" if milliseconds else START
