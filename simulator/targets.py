"""Target policies that need no learning: what each would have done with a row of a log."""

import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from bandits.errors import ReplayError
from bandits.types import Float64, Pmf
from bandits.values import Value
from simulator.logs.base import LogBatch, LoggedDecision

SUM_SLACK = 1e-3
"""How far from 1 the probabilities of a table may sum; they are then normalised, and the report says so."""


class Target(Protocol):
    """A policy that is evaluated on a log. ``notes``: what a reader of the report should know of it."""

    name: str
    notes: Sequence[str]

    def pmf(self, row: LoggedDecision) -> Pmf:
        """float64[K]: what it would have chosen. Below a sum of 1, the rest goes to actions the row does not have.

        Raises:
            ReplayError: the log does not hold what it needs.
        """
        ...

    def propensities(self, batch: LogBatch) -> Float64:
        """float64[n]: its probability of each row's chosen action."""
        ...


class RowTarget(ABC):
    """A target that looks at one row at a time."""

    notes: Sequence[str] = ()

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def pmf(self, row: LoggedDecision) -> Pmf:
        """See Target."""

    def propensities(self, batch: LogBatch) -> Float64:
        """See Target."""
        rows = demand_rows(batch, self.name)
        return np.fromiter((self.pmf(row)[row.chosen] for row in rows), np.float64, len(rows))


def demand_rows(batch: LogBatch, name: str) -> Sequence[LoggedDecision]:
    """The batch's rows.

    Raises:
        ReplayError: it has only numbers.
    """
    if len(batch.decisions) != len(batch):
        raise ReplayError(f"{name} needs the actions of each row, and this log has none: use a column policy", "policy")
    return batch.decisions


class Uniform(RowTarget):
    """Every action alike."""

    def __init__(self, name: str = "uniform") -> None:
        super().__init__(name)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """See Target."""
        count = len(row.action_ids)
        return np.full(count, 1.0 / count)


class Logging(RowTarget):
    """The policy that made the log."""

    def __init__(self, name: str = "logging") -> None:
        super().__init__(name)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """See Target."""
        if row.pmf is None:
            raise ReplayError(
                "this log holds the propensity of the chosen action only, so nothing can be said of the others under"
                " the logging policy: leave dm and dr out",
                "estimator",
            )
        return row.pmf

    def propensities(self, batch: LogBatch) -> Float64:
        """See Target."""
        return batch.propensity


class Column:
    """A policy whose probability of the chosen action is a column of the log."""

    notes: Sequence[str] = ()

    def __init__(self, column: str, name: str | None = None) -> None:
        self.name = name or column
        self.column = column

    def pmf(self, row: LoggedDecision) -> Pmf:  # noqa: ARG002 - the protocol's
        """See Target."""
        raise ReplayError(
            f"{self.name} is one probability per row, not a PMF, so dm and dr cannot be had: leave them out",
            "estimator",
        )

    def propensities(self, batch: LogBatch) -> Float64:
        """See Target."""
        if self.column not in batch.columns:
            raise ReplayError(f"the log has no column {self.column!r}, but {sorted(batch.columns)}", "policy")
        values = np.asarray(batch.columns[self.column], np.float64)
        if not ((values >= 0.0) & (values <= 1.0)).all():
            raise ReplayError(f"column {self.column!r} holds what is no probability", "policy")
        return values


class Source(RowTarget):
    """A candidate source alone: the action it scores highest; ties share. Needs a log with the sources' scores."""

    def __init__(self, name: str, source: str) -> None:
        super().__init__(name)
        self._source = source

    def pmf(self, row: LoggedDecision) -> Pmf:
        """See Target."""
        if self._source not in row.scores:
            raise ReplayError(f"the log has scores of {sorted(row.scores)}, and none of {self._source!r}", "policy")
        scores = row.scores[self._source]
        if np.isnan(scores).all():
            return np.full(scores.size, 1.0 / scores.size)  # it proposed none of them
        best = scores == np.nanmax(scores)
        return np.asarray(best / best.sum(), np.float64)


class Table(RowTarget):
    """Probabilities by context and action, from a CSV: ``[context column ...,]action,probability``."""

    def __init__(self, path: Path, name: str | None = None) -> None:
        super().__init__(name or path.stem)
        self._columns, self._rows = _read_table(path)
        off = sum(abs(sum(row.values()) - 1.0) > 1e-12 for row in self._rows.values())
        self._rows = {at: {a: p / sum(row.values()) for a, p in row.items()} for at, row in self._rows.items()}
        if off:
            self.notes = (f"{path}: the probabilities of {off} contexts summed to 1 only nearly, and were normalised",)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """See Target."""
        at = tuple(_text(row.context.get(column)) for column in self._columns)
        probabilities = self._rows.get(at)
        if probabilities is None:
            where = ", ".join(f"{name}={value}" for name, value in zip(self._columns, at, strict=True))
            raise ReplayError(f"the table of {self.name!r} has no row for {where or 'any context'}", "policy")
        return np.array([probabilities.get(action_id, 0.0) for action_id in row.action_ids])


def _read_table(path: Path) -> tuple[Sequence[str], dict[tuple[str, ...], dict[str, float]]]:
    rows: dict[tuple[str, ...], dict[str, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if header[-2:] != ["action", "probability"]:
                raise ReplayError(f"{path}: the header of a table is [context column,...]action,probability", "policy")
            for number, cells in enumerate(reader, 2):
                if len(cells) != len(header):
                    raise ReplayError(f"{path}:{number}: {len(header)} cells, not {len(cells)}", "policy")
                *at, action, text = cells
                row = rows.setdefault(tuple(at), {})
                if action in row:
                    raise ReplayError(f"{path}:{number}: action {action!r} twice for one context", "policy")
                row[action] = _probability(text, f"{path}:{number}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReplayError(f"{path}: not a readable table: {error}", "policy") from error
    for context, row in rows.items():
        if abs(sum(row.values()) - 1.0) > SUM_SLACK:
            where, total = ", ".join(context) or "all actions", sum(row.values())
            raise ReplayError(f"{path}: the probabilities of {where} sum to {total:.6g}, not 1", "policy")
    return header[:-2], rows


def _probability(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1.0:
        raise ReplayError(f"{where}: a probability is a number in [0, 1], not {text!r}", "policy")
    return value


def _text(value: Value | None) -> str:
    """As a CSV would hold it: 1.0 and 1 are the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)
