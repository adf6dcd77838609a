"""Durations as people write them: a number and a unit, as 30d."""

import re

from bandits.errors import InvalidFieldError

UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_WRITTEN = re.compile(r"(\d{1,9}(?:\.\d{0,6})?)\s*([smhdw])", re.ASCII)


def duration_ms(text: str) -> int:
    """Return a duration such as ``30d`` or ``1.5h`` in milliseconds, the log's unit of time.

    Raises:
        InvalidFieldError: it is no duration; the caller knows the field.
    """
    match = _WRITTEN.fullmatch(text.strip())
    if match is None:
        raise InvalidFieldError(
            f"a duration is a number and s, m, h, d or w, as 30d, not {text[:40]!r}"
        )
    return round(float(match[1]) * UNITS_MS[match[2]])
