"""Target policies that need no learning: what each would have done with a row of a log."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bandits.errors import ReplayError
from bandits.types import Float64, Pmf
from bandits.values import Value
from simulator.logs.rows import LogBatch, LoggedDecision, Piece, column_kinds_of
from simulator.logs.tables import MISSING, number_of, read_rows

SUM_SLACK = 1e-3
"""How far from 1 the probabilities of a table may sum; they are then normalised."""


class Target(Protocol):
    """A policy that is evaluated on a log.

    ``notes`` are what a reader of the report should know of it.
    """

    name: str
    notes: Sequence[str]

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities with which it would have chosen, float64[K].

        Below a sum of 1, the rest goes to actions that the row does not have.

        Raises:
            ReplayError: the log does not hold what it needs.
        """
        ...

    def propensities(self, batch: LogBatch) -> Float64:
        """Return its probability of each row's chosen action, float64[n]."""
        ...


class RowTarget(ABC):
    """A target that looks at one row at a time."""

    notes: Sequence[str] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities of a row's actions; see Target."""

    def propensities(self, batch: LogBatch) -> Float64:
        """Return the probabilities of the chosen actions; see Target."""
        rows = demand_rows(batch, self.name)
        return np.fromiter((self.pmf(row)[row.chosen] for row in rows), np.float64, len(rows))


def check_columns(targets: Iterable[Target], pieces: Iterable[Piece]) -> None:
    """Refuse a policy that learned a column as numbers where it is text now, or the reverse.

    Args:
        targets: the policies.
        pieces: of the log that they are evaluated on.

    Raises:
        ReplayError: names the column, and what to declare.
    """
    kinds = column_kinds_of(pieces)
    for target in targets:
        for name, kind in getattr(target, "columns", {}).items():
            if kinds.get(name, kind) != kind:
                raise ReplayError(
                    f"{target.name} learned from a table in which column {name} was {kind}, and"
                    f" here it is {kinds[name]}: declare it on both"
                    f" (--columns '{{..., kinds: {{{name}: {kind}}}}}')",
                    "columns",
                )


def demand_rows(batch: LogBatch, name: str) -> Sequence[LoggedDecision]:
    """Return the rows of a batch.

    Args:
        batch: of the log.
        name: whoever needs them, for the error.

    Raises:
        ReplayError: it has only numbers.
    """
    if len(batch.decisions) != len(batch):
        raise ReplayError(
            f"{name} needs the actions of each row, and this log has none: use a column policy",
            "policy",
        )
    return batch.decisions


class UniformTarget(RowTarget):
    """Chooses every action alike."""

    def __init__(self, name: str = "uniform") -> None:
        super().__init__(name)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the same probability for all; see Target."""
        count = len(row.action_ids)
        return np.full(count, 1.0 / count)


class LoggingTarget(RowTarget):
    """The policy that made the log."""

    def __init__(self, name: str = "logging") -> None:
        super().__init__(name)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities of a row's actions; see Target."""
        if row.pmf is None:
            raise ReplayError(
                "this log holds the propensity of the chosen action only, so nothing can be said"
                " of the others under the logging policy: leave dm and dr out",
                "estimator",
            )
        return row.pmf

    def propensities(self, batch: LogBatch) -> Float64:
        """Return the probabilities of the chosen actions; see Target."""
        return batch.propensity


class ColumnTarget:
    """A policy whose probability of the chosen action is a column of the log."""

    notes: Sequence[str] = ()

    def __init__(self, column: str, name: str | None = None) -> None:
        self.name = name or column
        self.column = column

    def pmf(self, row: LoggedDecision) -> Pmf:  # noqa: ARG002 - the protocol's
        """Raise: a column does not say what else the policy may choose; see Target."""
        raise ReplayError(
            f"{self.name} is one probability per row, not a PMF, so dm and dr cannot be had:"
            " leave them out",
            "estimator",
        )

    def propensities(self, batch: LogBatch) -> Float64:
        """Return the probabilities of the chosen actions; see Target."""
        if self.column not in batch.columns:
            raise ReplayError(
                f"the log has no column {self.column!r}, but {sorted(batch.columns)}", "policy"
            )
        values = np.asarray(batch.columns[self.column], np.float64)
        if not ((values >= 0.0) & (values <= 1.0)).all():
            raise ReplayError(f"column {self.column!r} holds what is no probability", "policy")
        return values


class SourceTarget(RowTarget):
    """A candidate source alone: the action it scores highest; ties share.

    It needs a log with the sources' scores.
    """

    def __init__(self, name: str, source: str) -> None:
        super().__init__(name)
        self.source = source

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities of a row's actions; see Target."""
        scores = row.scores.get(self.source)
        if scores is None or np.isnan(scores).all():
            failed = row.record.failed if row.record is not None else None
            why = (failed or {}).get(self.source, "it proposed none of its actions")
            raise ReplayError(
                f"event {row.event_id} has scores of {sorted(row.scores)}, and none of"
                f" {self.source!r} ({why})",
                "policy",
            )

        best = scores == np.nanmax(scores)
        return np.asarray(best / best.sum(), np.float64)


_NO_MATCH = object()
"""Stands for a cell that cannot be the value."""
_Key = tuple[Any, ...]
"""A context's values, in the order of the table's columns."""


class TableTarget(RowTarget):
    """Probabilities by context and action, from a CSV: ``[context column ...,]action,probability``.

    A row of the log finds its row of the table by what the log's values are: a text finds the same
    text, a number any cell that is this number (1.5 finds 1.50), true and false these words, and a
    missing value an empty cell.

    Raises:
        ReplayError: the file is no such table.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        super().__init__(name or path.stem)
        self._path = path
        self._columns, self._rows = _read_table(path)
        self._by_kinds: dict[tuple[type, ...], dict[_Key, dict[str, float]]] = {}

        # Rounded probabilities are normalised, and the report says so.
        off = sum(abs(sum(row.values()) - 1.0) > 1e-12 for row in self._rows.values())
        self._rows = {
            at: {a: p / sum(row.values()) for a, p in row.items()} for at, row in self._rows.items()
        }
        if off:
            note = (
                f"{path}: the probabilities of {off} contexts summed to 1 only nearly, and were"
                " normalised"
            )
            self.notes = (note,)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities of a row's actions; see Target."""
        values = [row.context.get(column) for column in self._columns]
        kinds = tuple(type(value) for value in values)
        if kinds not in self._by_kinds:
            self._by_kinds[kinds] = self._rows_by_value(kinds)

        at = tuple("|".join(value) if isinstance(value, list) else value for value in values)
        probabilities = self._by_kinds[kinds].get(at)
        if probabilities is None:
            where = ", ".join(
                f"{name}={_shown(value)}" for name, value in zip(self._columns, values, strict=True)
            )
            raise ReplayError(
                f"the table of {self.name!r} has no row for {where or 'any context'}", "policy"
            )
        return np.array([probabilities.get(action_id, 0.0) for action_id in row.action_ids])

    def _rows_by_value(self, kinds: tuple[type, ...]) -> dict[_Key, dict[str, float]]:
        """Return the rows that values of these types can find, by the values.

        Raises:
            ReplayError: two rows are of one context.
        """
        rows: dict[_Key, dict[str, float]] = {}
        texts: dict[_Key, tuple[str, ...]] = {}

        # Of the ways to write that there is no value, an empty cell comes before a "NA".
        for cells in sorted(self._rows, key=lambda cells: sum(map(bool, cells))):
            at = tuple(
                _VALUE_OF_CELL.get(kind, str)(cell) for kind, cell in zip(kinds, cells, strict=True)
            )
            if _NO_MATCH in at:
                continue
            if at not in rows:
                rows[at], texts[at] = self._rows[cells], cells
                continue

            # Cells that are one value must be one text, but for those of no value.
            pairs = zip(kinds, texts[at], cells, strict=True)
            if any(one != other for kind, one, other in pairs if kind is not type(None)):
                both = " and ".join(", ".join(row) for row in (texts[at], cells))
                raise ReplayError(
                    f"{self._path}: the rows of {both} are of one context, since the log's values"
                    " are numbers: declare the column a text (--columns '{kinds: {NAME: text}}'),"
                    " or leave one of the rows out",
                    "policy",
                )
        return rows


def _number(cell: str) -> Any:
    value = number_of(cell)
    return _NO_MATCH if math.isnan(value) else value


_VALUE_OF_CELL: Mapping[type, Callable[[str], Any]] = {
    float: _number,
    int: _number,
    bool: lambda cell: {"true": True, "false": False}.get(cell.strip().lower(), _NO_MATCH),
    type(None): lambda cell: None if cell in MISSING else _NO_MATCH,
}
"""What a cell of a table is to a value of the log, by the value's type; of others, its text."""


def _read_table(path: Path) -> tuple[Sequence[str], dict[tuple[str, ...], dict[str, float]]]:
    """Read a table: its context columns, and by context the probability of each action.

    Raises:
        ReplayError: it is no such table.
    """
    header, lines = read_rows(path, ("action", "probability"), "policy")
    if header.names[-2:] != ["action", "probability"]:
        raise ReplayError(
            f"{path}: the header of a table is [context column,...]action,probability", "policy"
        )
    if "" in header.names:
        raise ReplayError(
            f"{path}: column {header.names.index('') + 1} has no name: leave it out (of pandas:"
            " index=False)",
            "policy",
        )

    rows: dict[tuple[str, ...], dict[str, float]] = {}
    for line, (*at, action, text) in lines:
        row = rows.setdefault(tuple(at), {})
        if action in row:
            raise ReplayError(f"{path}:{line}: action {action!r} twice for one context", "policy")
        row[action] = number_of(text)
        if not 0.0 <= row[action] <= 1.0:
            raise ReplayError(
                f"{path}:{line}: a probability is a number in [0, 1], with a point, not {text!r}",
                "policy",
            )

    # A sum that is off by rounding is normalised by whoever reads the table.
    for context, row in rows.items():
        if abs(sum(row.values()) - 1.0) > SUM_SLACK:
            where, total = ", ".join(context) or "all actions", sum(row.values())
            raise ReplayError(
                f"{path}: the probabilities of {where} sum to {total:.6g}, not 1", "policy"
            )
    return header.names[:-2], rows


def _shown(value: Value | None) -> str:
    """Return a value as a table would have it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)
