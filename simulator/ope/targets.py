"""Target policies that need no learning: what each would have done with a row of a log."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from bandits.errors import ReplayError
from bandits.types import Float64, Pmf
from simulator.logs.actions.columns import ActionColumns, Places
from simulator.logs.actions.from_rows import columns_from_rows, with_actions
from simulator.logs.rows import LogBatch, LoggedDecision, Piece, column_kinds_of
from simulator.ope.kernels import share_best, share_evenly


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

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Return ``pmf`` of each row of a batch with columns of actions, float64[total]."""
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

    def after(self, row: LoggedDecision) -> Callable[[Places], Pmf]:
        """Return its PMFs of a row's actions when only some are left.

        Args:
            row: a row with all actions of a page.

        Returns:
            A function from the indexes of those that are left to float64[left].
        """
        return lambda left: self.pmf(with_left(row, left))

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Return the probabilities of all rows' actions, one row at a time; see Target."""
        return np.concatenate(
            [self.pmf(row) for row in demand_rows(batch, self.name)], dtype=np.float64
        )

    def propensities(self, batch: LogBatch) -> Float64:
        """Return the probabilities of the chosen actions; see Target."""
        return self.flat_pmfs(batch)[demand_actions(batch, self.name).chosen_at]


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


def demand_actions(batch: LogBatch, name: str) -> ActionColumns:
    """Return the actions of a batch's rows as columns.

    Args:
        batch: of the log.
        name: whoever needs them, for the error.

    Raises:
        ReplayError: it has only numbers.
    """
    actions = with_actions(batch).actions
    if actions is None:
        demand_rows(batch, name)
        return columns_from_rows(())
    return actions


def with_left(row: LoggedDecision, left: Places) -> LoggedDecision:
    """Return a row of the actions that are left; nothing is chosen, and it has no PMF.

    Args:
        row: with all actions.
        left: the indexes of those that are left.
    """
    places = np.arange(len(row.action_ids))[left].tolist()
    features = row.features
    return replace(
        row,
        action_ids=[row.action_ids[at] for at in places],
        chosen=0,
        pmf=None,
        features=None if features is None else [features[at] for at in places],
        scores={source: values[left] for source, values in row.scores.items()},
        slot=len(row.action_ids) - len(places),
    )


class UniformTarget(RowTarget):
    """Chooses every action alike."""

    def __init__(self, name: str = "uniform") -> None:
        super().__init__(name)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the same probability for all; see Target."""
        count = len(row.action_ids)
        return np.full(count, 1.0 / count)

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Return the same probability for all actions of a row; see Target."""
        return share_evenly(demand_actions(batch, self.name).offsets)


class FirstTarget(RowTarget):
    """Chooses the first of the actions, as the log lists them: a baseline without a model."""

    def __init__(self, name: str = "first") -> None:
        super().__init__(name)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return probability 1 for the first; see Target."""
        out = np.zeros(len(row.action_ids))
        out[0] = 1.0
        return out

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Return probability 1 for the first action of each row; see Target."""
        actions = demand_actions(batch, self.name)
        out = np.zeros(actions.total)
        out[actions.offsets[:-1]] = 1.0
        return out


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

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Return the log's own probabilities; see Target.

        What was chosen is a draw from a PMF that is not known, so it stands for it.
        """
        actions = demand_actions(batch, self.name)
        if actions.pmf is not None and not actions.lacking.any():
            return actions.pmf

        lacking = np.repeat(actions.lacking, actions.counts)
        out = np.zeros(actions.total) if actions.pmf is None else actions.pmf.copy()
        out[lacking] = 0.0
        out[actions.chosen_at[actions.lacking]] = 1.0
        return out

    def propensities(self, batch: LogBatch) -> Float64:
        """Return the probabilities of the chosen actions; see Target."""
        return batch.propensity


class GreedyTarget(RowTarget):
    """The policy that made the log, without its exploration: the likeliest action; ties share."""

    def __init__(self, name: str = "greedy") -> None:
        super().__init__(name)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities of a row's actions; see Target."""
        if row.pmf is None:
            raise self._without_pmf()
        best = row.pmf == row.pmf.max()
        return np.asarray(best / best.sum(), np.float64)

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Return the probabilities of all rows' actions; see Target."""
        actions = demand_actions(batch, self.name)
        if actions.pmf is None or actions.lacking.any():
            raise self._without_pmf()
        begins, counts = actions.offsets[:-1], actions.counts
        best = actions.pmf == np.repeat(np.maximum.reduceat(actions.pmf, begins), counts)
        out: Float64 = best / np.repeat(np.add.reduceat(best, begins, dtype=np.int64), counts)
        return out

    def _without_pmf(self) -> ReplayError:
        return ReplayError(
            f"{self.name} is the likeliest action, and this log holds the propensity of the chosen"
            " action only",
            "policy",
        )


class ApprenticeTarget(RowTarget):
    """The policy itself, beside whose log somebody else chose; where it chose, the logging policy.

    It needs the archive of a policy whose mode is, or was, apprentice.
    """

    def __init__(self, name: str = "apprentice") -> None:
        super().__init__(name)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return the probabilities of a row's actions; see Target."""
        if row.record is None:
            raise ReplayError(
                f"{self.name} is what a policy would have chosen beside another's choice, and this"
                " log does not say that: it is no archive",
                "policy",
            )
        own = row.record.apprentice
        if own is None:
            return LoggingTarget(self.name).pmf(row)
        if row.slot > 0:
            raise ReplayError(
                f"event {row.event_id} has several slots: what {self.name} would have chosen below"
                " follows from its own choice above, and another's was served there",
                "policy",
            )
        return np.frombuffer(own.pmf, "<f8", len(row.record.action_ids))


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

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Raise, as ``pmf`` does; see Target."""
        return self.pmf(demand_rows(batch, self.name)[0])

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

    def flat_pmfs(self, batch: LogBatch) -> Float64:
        """Return the probabilities of all rows' actions; see Target."""
        actions, without = demand_actions(batch, self.name), 0
        if self.source in actions.scores:
            values, _ = actions.scores[self.source]
            pmfs, without = share_best(actions.offsets, values)
            if without < 0:
                return pmfs

        # The row itself says what it has, and why this source has nothing.
        return self.pmf(demand_rows(batch, self.name)[without])
