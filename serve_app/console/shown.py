"""How numbers, times and words are shown: each number also as it was answered, for programs."""

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
from markupsafe import Markup, escape

from serve_app.console.located import path_to, unlocated

UNKNOWN = Markup('<span class="soft" title="not known">-</span>')
MILLION = 1e6
EXACT = 2**53
"""Up to here floats are told apart by their whole part."""
BRIEF = 160
"""Characters of a text where many are shown below each other."""
OUTSIDE = (OverflowError, OSError, ValueError)
"""Errors of a moment that no calendar has in UTC: the last hours of the year 9999 west of it."""
SECONDS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def exactly(value: Any, text: str) -> Markup:
    """Return a number's text, with the number as it was answered and where.

    Args:
        value: the number.
        text: as a person reads it.
    """
    path = path_to(value)
    place = f' data-of="{escape(path)}"' if path else ""
    exact = escape(msgspec.json.encode(unlocated(value)).decode())
    # A page has a thousand of these, and Markup's own format takes three times as long.
    return Markup(f'<data value="{exact}"{place}>{escape(text)}</data>')  # noqa: S704 - all escaped


def shown_number(value: Any, digits: int = 4) -> Markup:
    """Return a number with so many significant digits; whole numbers have all of theirs.

    Args:
        value: the number; None and what is not finite are not known.
        digits: of a number that is not whole.
    """
    number = unlocated(value)
    if number is None or (isinstance(number, float) and not math.isfinite(number)):
        return UNKNOWN
    if isinstance(number, int):
        return exactly(value, f"{number:,}")
    return exactly(value, _rounded(number, digits))


def shown_change(value: Any, digits: int = 4) -> Markup:
    """Return a number with its sign.

    Args:
        value: the number.
        digits: significant ones.
    """
    number = unlocated(value)
    if number is None or not math.isfinite(number):
        return UNKNOWN
    sign = "+" if number > 0 else ""
    return exactly(value, sign + _rounded(float(number), digits))


def shown_share(value: Any, digits: int = 1) -> Markup:
    """Return a share as a percentage.

    Args:
        value: the share; 1 is all.
        digits: after the point.
    """
    number = unlocated(value)
    if number is None or not math.isfinite(number):
        return UNKNOWN
    return exactly(value, f"{100 * number:.{digits}f}%")


def shown_time(value: Any) -> Markup:
    """Return a time of an answer, in UTC: milliseconds since the epoch, or ISO 8601."""
    moment = unlocated(value)
    if not moment:
        return UNKNOWN
    path = path_to(value)
    place = f' data-of="{escape(path)}" data-value="{escape(moment)}"' if path else ""
    try:
        if isinstance(moment, str):
            at = datetime.fromisoformat(moment)
        else:
            at = datetime.fromtimestamp(moment / 1000, UTC)
        text = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    except OUTSIDE:  # as it was sent
        return Markup(f"<span{place}>{escape(moment)}</span>")  # noqa: S704 - all escaped
    return Markup(f'<time datetime="{at.isoformat()}"{place}>{text}</time>')  # noqa: S704 - escaped


def moment_text(time_ms: int) -> str:
    """Return a time in UTC, without its seconds."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    except OUTSIDE:
        return f"{time_ms:,} ms"


def shown_span(value: Any) -> Markup:
    """Return a number of seconds as a person says it."""
    seconds = unlocated(value)
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    for name, length in SECONDS:
        if seconds >= 2 * length or name == "second":
            text = f"{seconds / length:,.0f}"
            return exactly(value, f"{text} {name}" if text == "1" else f"{text} {name}s")
    return UNKNOWN


def shown_value(value: Any) -> Markup:
    """Return any value of an answer: a number, a text, a flag, a list or a map."""
    inside = unlocated(value)
    if inside is None:
        return UNKNOWN
    if isinstance(inside, bool):
        return escape("yes" if inside else "no")
    if isinstance(inside, int | float):
        # A whole number may be a year, a postcode, a time: it is shown as it was sent.
        is_whole = abs(inside) <= EXACT and inside == int(inside)
        return (
            exactly(value, str(int(inside)))
            if is_whole
            else shown_number(value, 6 if abs(inside) < MILLION else 12)
        )
    if isinstance(inside, str):
        return escape(inside) if inside else UNKNOWN
    if isinstance(inside, list) and all(isinstance(each, str) for each in inside):
        return escape(", ".join(inside)) if inside else UNKNOWN
    return Markup("<code>{}</code>").format(msgspec.json.encode(inside).decode())


def shown_briefly(value: Any) -> Markup:
    """Return a value of a list of many things: of a long text, the beginning."""
    inside = unlocated(value)
    if isinstance(inside, list) and all(isinstance(each, str) for each in inside):
        inside = ", ".join(inside)
    if isinstance(inside, str) and len(inside) > BRIEF:
        return escape(inside[:BRIEF] + "…")
    return shown_value(value)


def as_json(value: Any) -> str:
    """Return a value as JSON of several lines."""
    return msgspec.json.format(msgspec.json.encode(unlocated(value)), indent=2).decode()


def in_words(name: Any) -> str:
    """Return a field's name as words."""
    return str(name).replace("_", " ")


def _rounded(number: float, digits: int) -> str:
    if number and not 1e-4 <= abs(number) < MILLION:
        return f"{number:.{digits}g}"
    magnitude = int(f"{number:.{digits - 1}e}".partition("e")[2])
    text = f"{number:,.{max(0, digits - 1 - magnitude)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
