"""A log as an evaluation sees it: batches of rows.

A row is one slot of one decision, with its reward.

A log is read in pieces that are independent of each other: they may go to other processes and
machines. A piece is small and can be pickled; it is read a batch at a time, so memory is bounded
by a batch.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import reduce
from typing import Any, NamedTuple, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from banditloop_client.schemas import Item
from bandits.errors import BadRowError, ReplayError, RowsWaitError
from bandits.features.hashing import UInt64, event_key
from bandits.log.records import DecisionRecord
from bandits.types import Float32, Float64
from bandits.values import MAX_NUMBER, FeatureMap
from policies.items.catalogue import Catalogue
from simulator.logs.actions.columns import ActionColumns, Places
from simulator.logs.actions.records import RecordColumns
from simulator.logs.left_out import EMPTY_LOG_ADVICE, left_out_of

BATCH_ROWS = 10_000
"""Rows in a batch, where rows are objects."""
MADE_AT_ONCE = 1000
"""Rows that are made of columns at once, where one is looked at after the other."""


@dataclass(frozen=True, slots=True, eq=False)
class LoggedDecision:
    """One slot of a logged decision among K actions.

    In a slate, ``action_ids`` are those that earlier slots have left, and ``pmf`` and
    ``propensity`` are conditional on them.

    Attributes:
        chosen: Index of the chosen action in ``action_ids``.
        features: One map per action, or None when there are none.
        scores: float32[K] by candidate source, NaN where the source has no score.
        pmf: float64[K], the logging policy's, or None when the log has only the propensity.
        record: The project's own record, where the log is its archive.
        catalogue: The catalogue that ``record`` names.
        item: Gives an item as that version has it, None where there is none.
        lines: What the row was read from, where a policy reads that itself.
    """

    event_id: str
    context: FeatureMap
    action_ids: Sequence[str]
    chosen: int
    propensity: float
    reward: float
    features: Sequence[FeatureMap | None] | None = None
    scores: Mapping[str, Float32] = field(default_factory=dict)
    pmf: Float64 | None = None
    slot: int = 0
    time_ms: int = 0
    record: DecisionRecord | None = None
    catalogue: Catalogue | None = None
    item: Callable[[str], Item | None] | None = None
    lines: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LogBatch:
    """n rows, as columns.

    Attributes:
        keys: uint64[n], a hash of each row's event_id. What is random per decision (folds,
            bootstrap weights) derives from it, so that it does not depend on how the log was cut.
        times_ms: int64[n], 0 where the log has no time.
        reward: float64[n].
        propensity: float64[n].
        decisions: The rows themselves, or empty when the log is only numbers. Where ``actions``
            says all of it, they may be made when they are looked at; see LazyDecisions.
        columns: Further columns of the log by name, [n] each.
        actions: The rows' actions as columns, where the log is read as columns.
        records: The records that the rows are of, where the log is the project's archive.
    """

    keys: UInt64
    times_ms: NDArray[np.int64]
    reward: Float64
    propensity: Float64
    decisions: Sequence[LoggedDecision] = ()
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    actions: ActionColumns | None = None
    records: RecordColumns | None = None

    def __len__(self) -> int:
        return len(self.reward)

    def take(self, rows: Places) -> "LogBatch":
        """Return some of the rows, in the order given."""
        decisions = self.decisions
        if decisions and isinstance(rows, slice):
            decisions = decisions[rows]
        elif decisions:
            numbers = np.arange(len(self))[rows]
            decisions = (
                decisions.take(numbers)
                if isinstance(decisions, LazyDecisions)
                else [decisions[at] for at in numbers.tolist()]
            )

        return replace(
            self,
            keys=self.keys[rows],
            times_ms=self.times_ms[rows],
            reward=self.reward[rows],
            propensity=self.propensity[rows],
            decisions=decisions,
            columns={name: column[rows] for name, column in self.columns.items()},
            actions=None if self.actions is None else self.actions.take(rows),
            records=None if self.records is None else self.records.take(rows),
        )


class LazyDecisions(Sequence[LoggedDecision]):
    """Rows that are made each time they are looked at, and not kept.

    ``make`` gives the rows of some numbers, in their order; ``numbers``: int[n].
    """

    def __init__(
        self,
        make: Callable[[NDArray[np.intp]], Sequence[LoggedDecision]],
        numbers: NDArray[np.intp],
    ) -> None:
        self._make, self._numbers = make, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, rows: Places) -> "LazyDecisions":
        """Return some of them, not made yet."""
        return LazyDecisions(self._make, self._numbers[rows])

    @overload
    def __getitem__(self, at: int) -> LoggedDecision: ...
    @overload
    def __getitem__(self, at: slice) -> "LazyDecisions": ...
    def __getitem__(self, at: int | slice) -> "LoggedDecision | LazyDecisions":
        """Return one row, or some that are not made yet."""
        if isinstance(at, slice):
            return self.take(at)
        return self._make(self._numbers[[at]])[0]

    def __iter__(self) -> Iterator[LoggedDecision]:
        """Make the rows, some at a time."""
        for start in range(0, len(self), MADE_AT_ONCE):
            yield from self._make(self._numbers[start : start + MADE_AT_ONCE])


class Waiting(NamedTuple):
    """Decisions of a log that are no rows yet because their windows are open.

    ``first_ms`` and ``last_ms`` are the times when the first and the last of the windows close.
    """

    decisions: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def plus(self, other: "Waiting") -> "Waiting":
        """Return these and the others together."""
        first = min((part.first_ms for part in (self, other) if part.decisions), default=0)
        return Waiting(self.decisions + other.decisions, first, max(self.last_ms, other.last_ms))


NO_WAITING = Waiting()


class Piece(Protocol):
    """A part of a log: cheap to pickle, read where it is needed."""

    @property
    def skipped(self) -> int:
        """Bad rows left out so far."""
        ...

    def batches(self) -> Iterator[LogBatch]:
        """Yield the rows, in the log's order.

        Raises:
            BadRowError: A row is malformed, and bad rows are not to be skipped. Names file and
                line.
        """
        ...


@dataclass(slots=True)
class MemoryPiece:
    """Rows that are in memory already, as a piece of a log."""

    rows: Sequence[LoggedDecision]
    skipped: int = 0

    def batches(self) -> Iterator[LogBatch]:
        """Yield the rows; see Piece."""
        for start in range(0, len(self.rows), BATCH_ROWS):
            yield batch_of(self.rows[start : start + BATCH_ROWS])


def waiting_of(pieces: Iterable[Piece]) -> Waiting:
    """Return what the pieces, once they are read, have left out because it is too early."""
    parts = (getattr(piece, "waiting", NO_WAITING) for piece in pieces)
    return reduce(Waiting.plus, parts, NO_WAITING)


def column_notes_of(pieces: Iterable[Piece]) -> dict[str, str]:
    """Return by column of a table's context whether it was read as numbers or as text, and why."""
    notes = (getattr(piece, "column_notes", None) for piece in pieces)
    return dict(next(filter(None, notes), {}))


def column_kinds_of(pieces: Iterable[Piece]) -> dict[str, str]:
    """Return by column of a table's context its kind, number or text.

    Empty where the log's format fixes the kinds.
    """
    kinds = (getattr(piece, "kinds", None) for piece in pieces)
    return dict(next(filter(None, kinds), {}))


def caution_of(pieces: Iterable[Piece]) -> str:
    """Return the warning that belongs to every number computed from these pieces, mostly none."""
    cautions = (getattr(piece, "caution", "") for piece in pieces)
    return next(filter(None, cautions), "")


def no_rows_error(pieces: Iterable[Piece], what: str = "rows to evaluate") -> ReplayError:
    """Return the error of a log that was read and has no rows; it says why.

    Args:
        pieces: The pieces of the log, read to their ends.
        what: What the log should have had.
    """
    pieces = list(pieces)
    waiting, left_out = waiting_of(pieces), left_out_of(pieces)
    if not waiting.decisions:
        return ReplayError(f"the log has no {what}: {left_out or EMPTY_LOG_ADVICE}", "log")

    also = f" ({left_out})" if left_out else ""
    return RowsWaitError(f"the log has no {what} yet{also}: {describe_waiting(waiting)}", "log")


def describe_waiting(waiting: Waiting) -> str:
    """Return how many decisions wait and until when, and what can be done about it."""
    first, last = (
        datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "seconds")
        for ms in (waiting.first_ms, waiting.last_ms)
    )
    until = f"until {last}" if first == last else f"the first until {first}, the last until {last}"
    return (
        f"{waiting.decisions:,} decisions wait for their windows, {until}: a window is closed"
        " when the log has an entry past it; --window-s SECONDS counts the rewards of a shorter"
        " window now"
    )


def batch_of(decisions: Sequence[LoggedDecision]) -> LogBatch:
    """Return rows as columns."""
    count = len(decisions)
    return LogBatch(
        keys=np.fromiter((key_of(row.event_id) for row in decisions), np.uint64, count),
        times_ms=np.fromiter((row.time_ms for row in decisions), np.int64, count),
        reward=np.fromiter((row.reward for row in decisions), np.float64, count),
        propensity=np.fromiter((row.propensity for row in decisions), np.float64, count),
        decisions=decisions,
    )


def key_of(event_id: str) -> int:
    """Return the key of an event; see ``event_key``."""
    return event_key(event_id)


def check_row(row: LoggedDecision, where: str) -> LoggedDecision:
    """Return the row, unless no estimator could use it.

    Args:
        row: A row as it was read.
        where: Its file and line, for the error.

    Raises:
        BadRowError: The propensity, the reward or the chosen action is impossible.
    """
    if not 0.0 < row.propensity <= 1.0:
        raise BadRowError(f"{where}: a propensity is in (0, 1], not {row.propensity}", "propensity")
    if not math.isfinite(row.reward) or abs(row.reward) > MAX_NUMBER:
        raise BadRowError(
            f"{where}: a reward is a number up to {MAX_NUMBER:g}, not {row.reward}", "reward"
        )
    if not 0 <= row.chosen < len(row.action_ids):
        raise BadRowError(
            f"{where}: the chosen action {row.chosen} is not among {len(row.action_ids)}", "chosen"
        )
    return row
