"""Learning from a log outside the service, and policies that have learned and learn no more."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bandits.errors import ReplayError
from bandits.log.join_rule import PageReward
from bandits.types import ChosenRows, Interaction, Learner, Pmf, Policy, Snapshot
from policies.artifacts.learner_model import TrainedModel, decode_trained
from policies.artifacts.trained_on import LearnedRows, RowSampler
from policies.blend import load_policy, make_learner
from policies.spec import PolicySpec
from policies.spec.checks import check_learner
from simulator.learners.chosen import chosen_columns, decision_columns
from simulator.learners.features import featurise_row
from simulator.learners.online import check_blend, demand_times, salt_of
from simulator.learners.row_rules import RowRules
from simulator.logs.actions.columns import Places
from simulator.logs.actions.row_records import records_from_rows
from simulator.logs.archive.pieces import read_for_learning, weigh_rewards
from simulator.logs.rows import LogBatch, LoggedDecision, Piece, column_kinds_of, no_rows_error
from simulator.logs.text_records import WEIGHT
from simulator.ope.targets import RowTarget
from simulator.replay.leakage import UNKNOWN, Provenance, TrainedRows, UnknownRows, learn_from

BATCH = 20_000
"""Rows that are learned between two reports of progress."""


def train_on_log(
    spec: PolicySpec, pieces: Iterable[Piece], *, progress: Callable[[int], None] = lambda _: None
) -> TrainedModel:
    """Return what the spec's learner knows after a log, learned row by row.

    Where the spec weighs signals, rewards of an archive are weighed by it, whatever the log's specs
    said: so other weights are tried on a log that there is.

    Rows need their actions. A decision that was kept while others were left out at random (pdrop)
    would have to count more than once, which no learner here can do.

    Args:
        spec: The policy.
        pieces: The log.
        progress: Told how many rows were learned.

    Raises:
        BadRowError: A row is malformed.
        ReplayError: The log is empty or cannot be learned from, or the spec is of a mixture.
    """
    check_learner(spec)
    check_blend(spec)
    learner, learned, sampler = make_learner(spec, salt=b""), 0, RowSampler()
    log = list(pieces)
    weigh_rewards(log, spec)
    if learner.by_row:
        read_for_learning(log, spec.use)

    for piece in log:
        for batch in piece.batches():
            if len(batch.decisions) != len(batch):
                raise ReplayError(
                    "this log is only numbers: a learner needs the actions of each row", "log"
                )
            if WEIGHT in batch.columns and (batch.columns[WEIGHT] != 1.0).any():
                raise ReplayError(
                    "this log has left decisions out at random (pdrop): it cannot be learned from",
                    "log",
                )

            if learner.timed:
                demand_times(batch.times_ms)

            # The model says which rows it learned from, so that an evaluation on them is noticed.
            learn_from(sampler, piece, batch)
            for rows in _teach(learner, spec, with_page_rewards(batch, spec.join.page_reward)):
                learned += rows
                progress(learned)

    if not learned:
        raise no_rows_error(log, "rows to learn from")
    return TrainedModel(
        spec_bytes=spec.encoded,
        learned=learned,
        checkpoint=learner.checkpoint(),
        rows=sampler.rows(),
        columns=column_kinds_of(log) or msgspec.UNSET,
    )


def _teach(learner: Learner, spec: PolicySpec, batch: LogBatch) -> Iterator[int]:
    """Let a learner learn a batch, a part at a time, and yield the number of rows of each part."""
    parts = range(0, len(batch), BATCH)
    if not learner.by_row or not len(batch):
        for start in parts:
            rows = slice(start, start + BATCH)
            as_columns = learner.takes_decisions and not spec.unseen
            columns = decision_columns(spec.use, batch, rows) if as_columns else None
            decisions = batch.decisions[rows]
            if columns is not None:
                learner.learn_decisions(columns)
            else:
                rewards = batch.reward[rows].tolist()
                learner.learn(
                    [
                        _interaction(spec, row, reward)
                        for row, reward in zip(decisions, rewards, strict=True)
                    ]
                )
            yield len(decisions)
        return

    taught = rows_to_learn(spec, batch)
    for start in parts:
        part = taught.part(start, start + BATCH)
        learner.learn_rows(part)
        yield len(part)


def rows_to_learn(spec: PolicySpec, batch: LogBatch) -> ChosenRows:
    """Return the rows of a batch for a learner that learns from the chosen actions alone.

    Args:
        spec: The policy, which says what features it sees.
        batch: Rows with their decisions.

    Raises:
        ReplayError: A feature is too large for a policy.
    """
    records = records_from_rows(batch.decisions) if batch.records is None else batch.records
    rows = chosen_columns(spec.use, records, batch.reward, batch.propensity, spec.unseen)
    return msgspec.structs.replace(rows, times_ms=batch.times_ms)


def snapshot_of(model: TrainedModel, *, salt: bytes) -> Snapshot:
    """Return what a replica would serve of a model.

    Args:
        model: The model.
        salt: What posterior draws derive from.

    Raises:
        SnapshotError, SpecError: The model is corrupt.
    """
    return make_learner(model.spec(), salt=salt, checkpoint=model.checkpoint).snapshot(
        f"{model.learned}-0"
    )


class FrozenPolicy(RowTarget):
    """A policy as a snapshot has it, learning no more.

    It is pickled without the model, which is made where it is used.

    Args:
        name: The policy's name in the report.
        spec: The policy.
        snapshot: What it has learned.
        notes: For a reader of the report.
        provenance: The rows that the snapshot was trained on, where its values are too high; None:
            no rows.
        columns: What each column of the context was, if it was trained on a table.

    Raises:
        ReplayError: The spec is of a mixture.
    """

    def __init__(
        self,
        name: str,
        spec: PolicySpec,
        snapshot: Snapshot,
        notes: Sequence[str] = (),
        provenance: Provenance | None = None,
        columns: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name)
        if spec.kind != "rl":
            check_blend(spec)
        self.spec, self._snapshot, self.provenance = spec, snapshot, provenance
        self._rules, self._said = RowRules(spec), notes
        self.notes = (*notes, *self._rules.notes)
        self.columns = dict(columns or {})

    def __reduce__(self) -> tuple[type["FrozenPolicy"], tuple[Any, ...]]:
        return FrozenPolicy, (
            self.name,
            self.spec,
            self._snapshot,
            self._said,
            self.provenance,
            self.columns,
        )

    @cached_property
    def _policy(self) -> Policy:
        return load_policy(self.spec, self._snapshot)

    def under(self, rules: PolicySpec, name: str) -> "FrozenPolicy":
        """Return the same model under the filter, the boosts and the page of another spec.

        Args:
            rules: the spec.
            name: the policy's name in the report.
        """
        spec = msgspec.structs.replace(
            self.spec,
            filter=rules.filter,
            boost=rules.boost,
            boost_cap=rules.boost_cap,
            page=rules.page,
        )
        return FrozenPolicy(name, spec, self._snapshot, self._said, self.provenance, self.columns)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """Return float64[K], of the snapshot; see Target."""
        return self._rules.on(row).pmf(self._policy)

    def after(self, row: LoggedDecision) -> Callable[[Places], Pmf]:
        """Return its PMFs of what is left of a row's actions; see RowTarget."""
        ruled = self._rules.on(row)
        return lambda left: ruled.pmf(self._policy, left)


def read_trained(path: Path, name: str | None = None, *, seed: int = 0) -> FrozenPolicy:
    """Return the policy in a file that ``banditloop train policy`` wrote.

    Args:
        path: The file.
        name: The policy's name in the report; None: the file's.
        seed: Seed of posterior draws.

    Raises:
        ReplayError: The file cannot be read.
        SnapshotError, SpecError: It is damaged, or something else.
    """
    try:
        model = decode_trained(path.read_bytes())
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}", "policy") from error
    return frozen_policy(model, name or path.stem, seed=seed)


def frozen_policy(model: TrainedModel, name: str, *, seed: int = 0) -> FrozenPolicy:
    """Return the policy in a model, with what the model says of the rows that it learned from.

    Args:
        model: The model.
        name: The policy's name in the report.
        seed: Seed of posterior draws.

    Raises:
        SnapshotError, SpecError: The model is corrupt.
    """
    # A model either says its rows, or comes of a simulated world, or is too old to say anything.
    provenance: Provenance | None = None
    note = f"learned from {model.learned:,} decisions of a simulated world"
    if model.rows is msgspec.UNSET:
        provenance = UnknownRows()
        note = f"learned from {model.learned:,} rows: {UNKNOWN}"
    elif isinstance(model.rows, LearnedRows):
        provenance = TrainedRows(model.rows)
        note = f"learned from {model.learned:,} rows, of {model.rows.logs}"

    columns = None if model.columns is msgspec.UNSET else model.columns
    return FrozenPolicy(
        name, model.spec(), snapshot_of(model, salt=salt_of(seed)), (note,), provenance, columns
    )


def with_page_rewards(batch: LogBatch, kind: PageReward | msgspec.UnsetType) -> LogBatch:
    """Return the same rows, each with what all slots of its page earned.

    Args:
        batch: Rows with their decisions, those of a page one after the other.
        kind: What of it counts; unset: the rows are as they are.

    Raises:
        ReplayError: A page may go on in the next batch.
    """
    if kind is msgspec.UNSET:
        return batch
    if batch.records is None:
        slots = np.array([row.slot for row in batch.decisions], np.int64)
    else:
        slots = batch.records.slots
    if batch.records is None and slots.any():
        raise ReplayError(
            "what a page earned is learned from the service's archive alone: of this log leave"
            " join.page_reward out",
            "join.page_reward",
        )
    if not len(batch):
        return batch

    begins = np.flatnonzero(slots == 0)
    put_together = np.add if kind == "sum" else np.maximum
    earned = put_together.reduceat(batch.reward, begins)
    lengths = np.diff(np.append(begins, len(batch)))
    return replace(batch, reward=np.repeat(earned, lengths))


def _interaction(spec: PolicySpec, row: LoggedDecision, reward: float) -> Interaction:
    context, actions = featurise_row(spec, row)
    return Interaction(
        row.event_id,
        row.slot,
        context,
        actions,
        row.chosen,
        row.propensity,
        reward,
        row.time_ms,
    )
