"""Columns of times: recognised from a sample, then read batch by batch.

Numbers are told by their magnitude: between 1980 and 2100, seconds, milliseconds, microseconds and
nanoseconds since 1970 do not overlap, nor do dates written as ``20240131`` or ``20240131235959``.
Where the year stands first, the month comes next, as in 2024/1/31. A time without a zone is UTC.
Nothing is guessed: 3/4/2024 is an error that asks.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bandits.errors import DataSetError

UTC_MS = pa.timestamp("ms", "UTC")
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Epoch units, each with how many of it are a second."""
ISO = "iso"
COMPACT_DATE, COMPACT_TIME = "%Y%m%d", "%Y%m%d%H%M%S"
CLOCK_WITH_ZONE, CLOCK = "%a %b %d %H:%M:%S %z %Y", "%a %b %d %H:%M:%S %Y"
MAIL, HTTP = "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT"
"""As ``date`` and X write times, and as RFC 5322 and RFC 9110 have them."""

MOST_OF_ANOTHER_UNIT = 0.01
"""Rows of another unit than the others' are counted one by one up to this share of a sample."""

MOST_LOOKED_AT, MOSTLY = 200, 0.9
_WORDS_OF_TIME = frozenset({"time", "date", "timestamp", "datetime", "ts", "dt", "day", "at"})
_FIRST_S, _LAST_S = 315_532_800, 4_102_444_800
"""1980 and 2100."""
_FURTHEST_MS = 9 * 10**15
_ISO = re.compile(
    r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)?"
    r"\s*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)?$"
)
_WORDED = {
    CLOCK_WITH_ZONE: re.compile(
        r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} [+-]\d{4} \d{4}$"
    ),
    CLOCK: re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}$"),
    MAIL: re.compile(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} [+-]\d{4}$"),
    HTTP: re.compile(r"[A-Z][a-z]{2}, \d{1,2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$"),
}
_YEAR_FIRST = re.compile(r"\d{4}([/.-])\d{1,2}\1\d{1,2}([T ])?(?(2)\d{1,2}:\d{2}(:\d{2})?)$")
_DAYS_AND_MONTHS = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})\b(.*)$")
_CLOCK = re.compile(r"\s+\d{1,2}:\d{2}(:\d{2})?(\s*[AaPp][Mm])?$")
_MIXED, _WORDS, _SMALL, _YEAR, _SLASHES = "mixed", "words", "small", "year", "slashes"

_SPOKEN = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    ISO: "ISO 8601",
    COMPACT_DATE: "dates as 20240131",
    COMPACT_TIME: "times as 20240131235959",
    CLOCK_WITH_ZONE: "times as Wed Jan 31 23:59:59 +0000 2024",
    CLOCK: "times as Wed Jan 31 23:59:59 2024",
    MAIL: "times as Wed, 31 Jan 2024 23:59:59 +0000",
    HTTP: "times as Wed, 31 Jan 2024 23:59:59 GMT",
}


@dataclass(frozen=True, slots=True)
class TimeReading:
    """How a column's times are read.

    Attributes:
        unit: ``s``, ``ms``, ``us``, ``ns``, ``iso``, or a pattern as in ``strptime``.
        sentence: The same, for the report.
    """

    unit: str
    sentence: str


def time_reading(unit: str) -> TimeReading:
    """Return how times of a unit that was given are read.

    Raises:
        DataSetError: There is no such unit.
    """
    if unit in _SPOKEN or "%" in unit:
        return TimeReading(unit, f"{spoken_unit(unit)}, as given")
    raise DataSetError(
        f"there is no time unit {unit!r}; there are s, ms, us, ns, iso, and patterns such as"
        " '%d/%m/%Y %H:%M'",
        "columns.time_unit",
    )


def spoken_unit(unit: str) -> str:
    """Return a time unit in words."""
    return _SPOKEN.get(unit, f"times as {unit}")


def quoted_unit(unit: str) -> str:
    """Return a time unit as it is written in the option's YAML."""
    return f'"{unit}"' if "%" in unit else unit


def _is_unit(kind: str) -> bool:
    """Return whether values of a kind can be read: by a unit of a name, or by a pattern."""
    return kind in _SPOKEN or "%" in kind


def recognise_times(values: pa.Array, column: str, file: str, *, first_row: int = 1) -> TimeReading:
    """Return how the times of a column are to be read.

    Args:
        values: A sample of the column; empty values say nothing.
        column: Its name, for errors.
        file: The file, for errors.
        first_row: Number of the sample's first row, for errors.

    Raises:
        DataSetError: The column holds no times, times of several units, or dates of which nobody
            can say whether the day or the month stands first. The error says what to write.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        zoned = pa.types.is_timestamp(values.type) and values.type.tz
        return TimeReading(ISO, f"a column of times ({values.type}){'' if zoned else _AS_UTC}")

    # One kind by value, in the order of the rows.
    kinds = {}
    for row, value in enumerate(values.to_pylist(), first_row):
        text = "" if value is None else str(value).strip()
        if text and text.lower() not in {"nan", "null", "none"}:
            kinds[row] = (_kind(text), text)
    if not kinds:
        raise DataSetError(
            f"{file}: the time column {column!r} is empty in its first {len(values):,} rows; name"
            " another, or say --columns '{time: null}' where there are no times",
            "columns.time",
        )

    # Where 2024-1-9 is a date, 2024-10-31 is written likewise.
    if any(kind.startswith("%Y-") for kind, _ in kinds.values()):
        kinds = {row: (_year_first(text) or kind, text) for row, (kind, text) in kinds.items()}
    counts = Counter(kind for kind, _ in kinds.values())
    unit = counts.most_common(1)[0][0]
    at = {
        kind: next((row, text) for row, (k, text) in kinds.items() if k == kind) for kind in counts
    }
    if not _is_unit(unit):
        raise _no_times(unit, [text for _, text in kinds.values()], at[unit], column, file)

    others = [kind for kind in counts if _is_unit(kind) and kind != unit]
    for other in others:
        if counts[other] > MOST_OF_ANOTHER_UNIT * len(kinds):
            raise DataSetError(
                f"{file}: the time column {column!r} mixes units: {spoken_unit(unit)}"
                f" ({at[unit][1]!r} in row {at[unit][0]:,}) and {spoken_unit(other)}"
                f" ({at[other][1]!r} in row {at[other][0]:,}); write them in one, or say which to"
                f" keep: --columns '{{time_unit: {quoted_unit(unit)}}}'",
                "columns.time",
            )
    return TimeReading(unit, spoken_unit(unit) + _zone_note(unit, [t for _, t in kinds.values()]))


_AS_UTC = ", without a zone: taken as UTC"


def _zone_note(unit: str, texts: list[str]) -> str:
    """Return what the report says of zones: how many times have none."""
    if unit in UNITS:
        return ""
    if unit in {CLOCK_WITH_ZONE, MAIL, HTTP}:
        return " with a zone"
    zoned = sum(1 for text in texts if (match := _ISO.match(text)) and match[4])
    if unit == ISO and zoned == len(texts):
        return " with a zone"
    return _AS_UTC if not zoned else ", some without a zone: those are taken as UTC"


def _kind(text: str) -> str:
    """Return the unit of one value, or what is wrong with it."""
    try:
        number = float(text)
    except ValueError:
        if _ISO.match(text):
            return ISO
        for unit, form in _WORDED.items():
            if form.match(text):
                return unit
        return _year_first(text) or (_SLASHES if _DAYS_AND_MONTHS.match(text) else _WORDS)

    for unit, times in UNITS.items():
        if _FIRST_S * times <= number < _LAST_S * times:
            return unit
    if text.isdigit() and 1980 <= int(text[:4]) < 2100 and len(text) in {4, 8, 14}:
        return {4: _YEAR, 8: COMPACT_DATE, 14: COMPACT_TIME}[len(text)]
    return _SMALL


def _year_first(text: str) -> str | None:
    """Return the pattern of a time such as ``2024/1/31 9:05``, which nobody can misread."""
    match = _YEAR_FIRST.match(text)
    if match is None:
        return None
    clock = f"{match[2]}%H:%M{':%S' if match[3] else ''}" if match[2] else ""
    return match[1].join(("%Y", "%m", "%d")) + clock


def _no_times(
    kind: str, texts: list[str], where: tuple[int, str], column: str, file: str
) -> DataSetError:
    """Return the error for a column most of whose values are no times that can be read."""
    row, text = where
    start = f"{file}: the time column {column!r} holds"

    if kind == _YEAR:
        return DataSetError(
            f"{start} years ({text} in row {row:,}), which say too little; name another, or say"
            " --columns '{time: null}'",
            "columns.time",
        )

    if kind == _SMALL:
        return DataSetError(
            f"{start} numbers that are no times between 1980 and 2100 ({text} in row {row:,}); name"
            " another, say what they count, as in --columns '{time_unit: s}', or that there are no"
            " times, '{time: null}'",
            "columns.time",
        )

    if kind == _SLASHES:
        likely = " or ".join(
            f"--columns '{{time_unit: \"{pattern}\"}}'" for pattern in _patterns(texts)
        )
        return DataSetError(
            f"{start} dates in another order than ISO 8601 ({text!r} in row {row:,}); say which:"
            f" {likely}",
            "columns.time_unit",
        )

    return DataSetError(
        f"{start} words ({text!r} in row {row:,}); name another, give its pattern as in"
        " --columns '{time_unit: \"%d %b %Y %H:%M\"}', or say '{time: null}'",
        "columns.time",
    )


def _patterns(texts: list[str]) -> list[str]:
    """Return the patterns that dates such as ``3/4/2024 9:05 PM`` may have: one if they tell."""
    matches = [match for text in texts if (match := _DAYS_AND_MONTHS.match(text))]
    separator, year, clock = matches[0][2], matches[0][4], matches[0][5]
    tail = "%Y" if len(year) == 4 else "%y"
    if match := _CLOCK.match(clock):
        seconds = ":%S" if match[1] else ""
        tail += f" %I:%M{seconds} %p" if match[2] else f" %H:%M{seconds}"

    day_first, month_first = (
        separator.join((*order, tail)) for order in (("%d", "%m"), ("%m", "%d"))
    )
    if any(int(match[1]) > 12 for match in matches):
        return [day_first]
    if any(int(match[3]) > 12 for match in matches):
        return [month_first]
    return [day_first, month_first]


def looks_like_times(values: pa.Array, column: str) -> bool:
    """Return whether a column that nobody called the time holds times all the same.

    Numbers are times where a word of the name says so: ids may be as large.

    Args:
        values: a sample of the column.
        column: its name.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return True
    if not (pa.types.is_string(values.type) or pa.types.is_integer(values.type)):
        return False

    texts = [str(value).strip() for value in values[:MOST_LOOKED_AT].to_pylist() if value]
    kinds = Counter(_kind(text) for text in texts if text)
    if not kinds:
        return False
    kind, count = kinds.most_common(1)[0]
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", column)}
    says = bool(words & _WORDS_OF_TIME)
    is_time = kind in {ISO, _SLASHES, *_WORDED} or (says and _is_unit(kind))
    return is_time and count >= MOSTLY * sum(kinds.values())


def read_times(values: pa.Array, unit: str) -> pa.Array:
    """Return a column's times in milliseconds, UTC; null where there is none or none can be read.

    Args:
        values: Text, numbers, dates or times.
        unit: As in ``TimeReading``. Times of another unit come out as absurd ones.
    """
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return values.cast(UTC_MS, safe=False)
    if unit in UNITS:
        return _read_epochs(values, UNITS[unit])

    text = pc.utf8_trim_whitespace(values.cast(pa.string()))
    if unit != ISO:
        return pc.strptime(text, format=unit, unit="ms", error_is_null=True).cast(UTC_MS)
    return _read_iso(text)


def _read_epochs(values: pa.Array, a_second: int) -> pa.Array:
    """Read numbers, or text of them, of which ``a_second`` are a second."""
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = _numbers(values)

    # Whole numbers stay whole: nanoseconds have more digits than a double holds.
    empty = np.asarray(pc.is_null(values, nan_is_null=True))
    if pa.types.is_integer(values.type):
        whole = np.asarray(pc.fill_null(values, 0)).astype(np.int64)
        ms = whole * 1000 if a_second == 1 else whole // (a_second // 1000)
        ms = np.where(np.abs(whole) > _FURTHEST_MS, _FURTHEST_MS, ms) if a_second == 1 else ms
    else:
        seconds = np.asarray(pc.fill_null(values.cast(pa.float64()), 0.0)) * (1000.0 / a_second)
        empty |= ~np.isfinite(seconds)
        ms = np.floor(np.clip(np.nan_to_num(seconds), -_FURTHEST_MS, _FURTHEST_MS)).astype(np.int64)
    return pa.array(ms, pa.int64(), mask=empty).cast(UTC_MS)


def _numbers(text: pa.Array) -> pa.Array:
    """Return text as whole numbers, or as doubles; null where it is neither."""
    try:
        return text.cast(pa.int64())
    except pa.ArrowInvalid:
        pass
    text = pc.utf8_trim_whitespace(text)
    number = pc.match_substring_regex(text, r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,2})?$")
    text = pc.if_else(number, text, None)
    whole = pc.all(pc.match_substring_regex(text, r"^-?\d{1,18}$")).as_py()
    return text.cast(pa.int64() if whole else pa.float64())


def _read_iso(text: pa.Array) -> pa.Array:
    """Read ISO 8601 with and without a zone; a batch that is all alike is read at once."""
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            return text.cast(kind).cast(UTC_MS, safe=False)
        except pa.ArrowInvalid:
            pass

    # A zone in words, and a comma before the fraction, as the standard and exports have them.
    text = pc.replace_substring_regex(text, r"\s*(UTC|GMT)$", "Z")
    text = pc.replace_substring_regex(text, r"\s+([+-]\d{2}(:?\d{2})?)$", r"\1")
    text = pc.replace_substring_regex(text, r"(\d),(\d)", r"\1.\2")
    text = pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1")
    fits = pc.match_substring_regex(text, f"^{_ISO.pattern}")
    zoned = pc.and_(fits, pc.match_substring_regex(text, r":\d{2}.*(Z|[+-]\d{2}(:?\d{2})?)$"))
    parts = []
    for kind, chosen in (
        (pa.timestamp("us", "UTC"), zoned),
        (pa.timestamp("us"), pc.and_(fits, pc.invert(zoned))),
    ):
        parts.append(_read_well_formed(pc.if_else(chosen, text, None), kind))
    return pc.coalesce(*parts)


def _read_well_formed(text: pa.Array, kind: pa.DataType) -> pa.Array:
    """Read text of the right form; one by one where a month has 32 days."""
    try:
        return text.cast(kind).cast(UTC_MS, safe=False)
    except pa.ArrowInvalid:
        pass

    read = []
    for value in text:
        try:
            read.append(value.cast(kind).cast(UTC_MS, safe=False))
        except pa.ArrowInvalid:
            read.append(pa.scalar(None, UTC_MS))
    return pa.array([value.as_py() for value in read], UTC_MS)
