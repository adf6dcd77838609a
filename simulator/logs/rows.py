"""A log as an evaluation sees it: batches of rows.

A row is one slot of one decision, with its reward.

A log is read in pieces, independent of each other, that together are the log: pieces go to other
processes and machines. A piece is small and can be pickled; it is read a batch at a time, so memory
is bounded by a batch.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from typing import Any, NamedTuple, Protocol

import mmh3
import numpy as np
from numpy.typing import NDArray

from bandits.errors import BadRowError, ReplayError
from bandits.features.hashing import UInt64
from bandits.log.records import DecisionRecord
from bandits.types import Float32, Float64
from bandits.values import MAX_NUMBER, FeatureMap
from policies.catalogue import Catalogue
from simulator.logs.left_out import EMPTY_LOG_ADVICE, left_out_of

BATCH_ROWS = 10_000
"""Of a log whose rows are objects."""


@dataclass(frozen=True, slots=True, eq=False)
class LoggedDecision:
    """One slot of a logged decision. K actions; ``chosen`` indexes them.

    ``pmf``: float64[K], the logging policy's, or None when the log has only the propensity.
    ``features``: per action, None when there are none. ``scores``: by candidate source, float32[K],
    NaN where it has none. ``record``: the project's own, where the log is its archive, and
    ``catalogue`` the one it names. Of a slate, ``action_ids`` are those that earlier slots have
    left, and ``pmf`` and ``propensity`` are given those. ``lines``: what the row was read from,
    where a policy reads that itself.
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
    lines: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True, eq=False)
class LogBatch:
    """n rows, as columns.

    ``keys``: uint64[n], a hash of each row's event_id: what is random per decision (folds,
    bootstrap weights) derives from it, so that it does not depend on how the log was cut.
    ``times_ms``: int64[n], 0 where the log has no time. ``reward``, ``propensity``: float64[n].
    ``decisions``: the rows themselves, or empty when the log is only numbers. ``columns``: [n]
    each, further columns of the log by name.
    """

    keys: UInt64
    times_ms: NDArray[np.int64]
    reward: Float64
    propensity: Float64
    decisions: Sequence[LoggedDecision] = ()
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.reward)


class Waiting(NamedTuple):
    """Decisions of a log that are no rows yet, since their windows are open.

    When the first and the last one closes.
    """

    decisions: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def and_of(self, other: "Waiting") -> "Waiting":
        """These and others."""
        first = min((each.first_ms for each in (self, other) if each.decisions), default=0)
        return Waiting(self.decisions + other.decisions, first, max(self.last_ms, other.last_ms))


NONE_WAIT = Waiting()


class Piece(Protocol):
    """A part of a log: cheap to pickle, read where it is needed.

    ``skipped`` counts the bad rows left out so far.
    """

    @property
    def skipped(self) -> int:
        """Bad rows left out so far."""
        ...

    def batches(self) -> Iterator[LogBatch]:
        """Its rows, in the log's order.

        Raises: BadRowError: a row is malformed; names file and line. Not when bad rows are to be
            skipped.
        """
        ...


def waiting_of(pieces: Iterable[Piece]) -> Waiting:
    """What the pieces, once they are read, have left out because it is too early."""
    return reduce(
        Waiting.and_of, (getattr(piece, "waiting", NONE_WAIT) for piece in pieces), NONE_WAIT
    )


def columns_of(pieces: Iterable[Piece]) -> dict[str, str]:
    """How the columns of a table were read: of each column of the context whether it is numbers or text."""
    return dict(next((said for piece in pieces if (said := getattr(piece, "said", None))), {}))


def kinds_of(pieces: Iterable[Piece]) -> dict[str, str]:
    """Of each column of the context of a table, number or text.

    Nothing where the log's format says it.
    """
    return dict(next((kinds for piece in pieces if (kinds := getattr(piece, "kinds", None))), {}))


def caution_of(pieces: Iterable[Piece]) -> str:
    """What has to be said of every number that comes of these pieces.

    Nothing, in the usual case.
    """
    return next((said for piece in pieces if (said := getattr(piece, "caution", ""))), "")


def no_rows_error(pieces: Iterable[Piece], what: str = "rows to evaluate") -> ReplayError:
    """The error of a log that was read and has no rows: why."""
    pieces = list(pieces)
    waiting, left_out = waiting_of(pieces), left_out_of(pieces)
    if not waiting.decisions:
        return ReplayError(f"the log has no {what}: {left_out or EMPTY_LOG_ADVICE}", "log")
    said = f" ({left_out})" if left_out else ""
    return ReplayError(f"the log has no {what} yet{said}: {describe_waiting(waiting)}", "log")


def describe_waiting(waiting: Waiting) -> str:
    """How many decisions wait and until when, and what can be done about it."""
    first, last = (
        datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "seconds")
        for ms in (waiting.first_ms, waiting.last_ms)
    )
    until = f"until {last}" if first == last else f"the first until {first}, the last until {last}"
    return (
        f"{waiting.decisions:,} decisions wait for their windows, {until}: a window is closed"
        " when the log has an entry"
        " past it; --window-s SECONDS counts the rewards of a shorter window now"
    )


def batch_of(decisions: Sequence[LoggedDecision]) -> LogBatch:
    """Rows as columns."""
    count = len(decisions)
    return LogBatch(
        keys=np.fromiter((key_of(each.event_id) for each in decisions), np.uint64, count),
        times_ms=np.fromiter((each.time_ms for each in decisions), np.int64, count),
        reward=np.fromiter((each.reward for each in decisions), np.float64, count),
        propensity=np.fromiter((each.propensity for each in decisions), np.float64, count),
        decisions=decisions,
    )


def key_of(event_id: str) -> int:
    """64 bits of murmur3: the key of an event. All slots of a decision share it."""
    return mmh3.hash64(event_id.encode(errors="surrogatepass"), signed=False)[0]


def check_row(row: LoggedDecision, where: str) -> LoggedDecision:
    """Refuse a row that no estimator could use. ``where``: file and line.

    Raises:
        BadRowError
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
