"""Durations as Personalizer's configuration has them: ISO 8601, as ``PT10M``."""

import re
from datetime import timedelta

import msgspec

from bandits.errors import InvalidFieldError

_WEEKS = re.compile(r"P(\d{1,4})W")
_NO_MONTHS = re.compile(r"^P(?:0+Y)?(?:0+M)?")
_UNITS = (("H", 3600), ("M", 60))


def iso_seconds(text: str, target: str) -> float:
    """Return a duration in seconds.

    Args:
        text: as ``PT10M``, ``PT10M00S`` or ``P28DT00H00M00S``.
        target: the field, for the error.

    Raises:
        InvalidFieldError: it is no duration, or below 0.
    """
    # What some clients write, and msgspec does not read: weeks, and no years or months.
    weeks = _WEEKS.fullmatch(text)
    days = f"P{7 * int(weeks[1])}D" if weeks else _NO_MONTHS.sub("P", text)
    try:
        seconds = msgspec.convert(days, timedelta).total_seconds()
    except msgspec.ValidationError as error:
        raise InvalidFieldError(
            f"a duration is as in ISO 8601, PT10M or P1D, not {text!r}", target
        ) from error
    if seconds < 0:
        raise InvalidFieldError(f"a duration is not negative, as {text!r} is", target)
    return seconds


def iso_duration(seconds: float) -> str:
    """Return seconds as a duration: PT4H, P27D, PT1.5S."""
    days, rest = divmod(seconds, 86400)
    out, within = (f"P{days:.0f}D" if days else "P"), ""
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        within += f"{count:.0f}{unit}" if count else ""
    if rest or not (days or within):
        within += f"{rest:.10g}S"
    return f"{out}T{within}" if within else out
