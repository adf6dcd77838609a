"""Cleaning: each step is an option, and each row that it leaves out is counted by its reason."""

from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from bandits.errors import DataSetError
from policies.data.manifest import Dropped

UNREADABLE, NO_ID, LONG_ID = "unreadable", "no_id", "id_too_long"
BAD_TIME, NO_TIME_GIVEN = "time_unreadable", "no_time"
EARLY, FUTURE = "time_too_early", "time_in_future"
BAD_VALUE, NOT_FINITE, OFF_SCALE = "value_unreadable", "value_not_finite", "value_off_scale"
UNLISTED = "item_not_listed"
EXACT, REPEAT, ROBOT = "exact_duplicate", "repeated_within_window", "too_many_a_minute"
RARE_USER, RARE_ITEM = "user_below_minimum", "item_below_minimum"

REASONS = {
    UNREADABLE: "rows with more or fewer cells than columns, or lines that are no JSON object",
    NO_ID: "rows without a user or an item, or with a text that stands for none",
    LONG_ID: "rows whose user or item id is longer than the longest id",
    BAD_TIME: "rows whose time is no time",
    NO_TIME_GIVEN: "rows whose time is empty",
    EARLY: "rows whose time is before the earliest time",
    FUTURE: "rows whose time is more than a day ahead of the import",
    BAD_VALUE: "rows whose value is no number",
    NOT_FINITE: "rows whose value is NaN or infinite",
    OFF_SCALE: "rows whose value is outside of the rating scale",
    UNLISTED: "rows whose item the table of items lacks",
    EXACT: "rows that repeat another one's user, item, type, time and value",
    REPEAT: "rows of a user, item and type that another one precedes within the window",
    ROBOT: "rows of users with more events within one minute than people make",
    RARE_USER: "rows of users with fewer events than the minimum",
    RARE_ITEM: "rows of items with fewer events than the minimum",
}
"""Every reason for which a row is left out, in the order in which the steps look."""


ABSENT = "NA,N/A,null,NULL,None,nan,NaN,\\N"
"""Texts by which programs write that there is nothing."""


class Cleaning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of what is left out of a data set.

    ``absent``: texts that stand for no id, separated by commas; an item that the table of items
    lists is one all the same. ``longest_id``: in bytes. ``earliest``: events before that day are
    left out. ``future_days``: how far ahead of the import a time may be.

    ``keep`` or ``drop``: ``untimed``, events whose time is empty; ``unlisted``, those whose item
    the table of items lacks; ``duplicates``, those that repeat another one in everything.

    ``window_s``: of a user's events of one item and type within so many seconds the first stays;
    None: all do. ``most_a_minute``: users with more events in one minute are left out; 0: nobody.
    ``min_user_events``, ``min_item_events``: users and items with fewer events are left out, until
    none has fewer.
    """

    absent: str = ABSENT
    longest_id: int = 1024
    earliest: str = "1980-01-01"
    future_days: float = 1.0
    untimed: str = "keep"
    unlisted: str = "keep"
    duplicates: str = "drop"
    window_s: float | None = None
    most_a_minute: int = 300
    min_user_events: int = 1
    min_item_events: int = 1

    def __post_init__(self) -> None:
        """Refuse what means nothing."""
        for name in ("untimed", "unlisted", "duplicates"):
            if getattr(self, name) not in {"keep", "drop"}:
                raise DataSetError(f"{name} is keep or drop, not {getattr(self, name)!r}", name)
        for name, least in (
            ("longest_id", 1),
            ("future_days", 0),
            ("window_s", 0),
            ("most_a_minute", 0),
            ("min_user_events", 1),
            ("min_item_events", 1),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value < 2**31:
                raise DataSetError(f"{name} is at least {least}, not {value}", name)
        _ = self.earliest_ms

    @property
    def absent_ids(self) -> frozenset[str]:
        """The texts that stand for no id."""
        return frozenset(filter(None, self.absent.split(",")))

    @property
    def earliest_ms(self) -> int:
        """The earliest time, in ms since 1970."""
        try:
            day = datetime.fromisoformat(self.earliest)
        except ValueError:
            raise DataSetError(
                f"earliest is a day such as 1980-01-01, not {self.earliest!r}", "earliest"
            ) from None
        return int(day.replace(tzinfo=day.tzinfo or UTC).timestamp() * 1000)


@dataclass(slots=True)
class _Left:
    rows: int
    file: str
    row: int
    example: str


class DroppedRows:
    """Counts rows that are left out, by reason, with one of each as an example."""

    def __init__(self) -> None:
        self._left: dict[str, _Left] = {}

    def add(self, reason: str, rows: int, file: str, row: int, example: str = "") -> None:
        """Count rows; the first ones of a reason, by file and row, are its example.

        Args:
            reason: one of ``REASONS``.
            rows: how many.
            file: that of one of them.
            row: its number, counted from 1.
            example: what it says.
        """
        if not rows:
            return
        if reason in self._left:
            self._left[reason].rows += rows
        else:
            self._left[reason] = _Left(rows, file, row, example[:200])

    @property
    def total(self) -> int:
        """All rows that are left out."""
        return sum(left.rows for left in self._left.values())

    @property
    def most(self) -> str | None:
        """The reason with the most rows; None if no row is left out."""
        return max(self._left, key=lambda reason: self._left[reason].rows, default=None)

    def report(self) -> dict[str, Dropped]:
        """Return what a manifest says of it, in the order of the steps."""
        return {
            reason: Dropped(left.rows, left.file, left.row, left.example)
            for reason in REASONS
            if (left := self._left.get(reason)) is not None
        }

    def in_words(self) -> str:
        """Return the reasons with the most rows first, in one line."""
        most = sorted(self._left.items(), key=lambda pair: -pair[1].rows)
        return "; ".join(
            f"{left.rows:,} {reason} ({REASONS[reason]}), such as row {left.row:,} of {left.file}"
            f"{f' ({left.example})' if left.example else ''}"
            for reason, left in most
        )
