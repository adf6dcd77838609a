"""Learning from a log outside the service, and policies that have learned and learn no more."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from bandits.errors import ReplayError
from bandits.types import Interaction, Pmf, Policy, Snapshot, check_pmf
from policies.admission import check_learner
from policies.artifacts.learner_model import TrainedModel, decode_trained
from policies.artifacts.trained_on import LearnedRows, RowSampler
from policies.blend import load_policy, make_learner
from policies.spec import PolicySpec
from simulator.learners.online import check_blend, featurise_row, salt_of
from simulator.logs.rows import LoggedDecision, Piece, column_kinds_of, no_rows_error
from simulator.logs.text_records import WEIGHT
from simulator.ope.targets import RowTarget
from simulator.replay.leakage import UNKNOWN, Provenance, TrainedRows, UnknownRows, learn_from

BATCH = 1000


def train_on_log(
    spec: PolicySpec, pieces: Iterable[Piece], *, progress: Callable[[int], None] = lambda _: None
) -> TrainedModel:
    """What the spec's learner knows after a log, learned row by row with the log's propensities.

    ``progress`` is told how many rows were learned. Needs rows with actions; one whose decision was
    kept while others were left out at random (pdrop) would have to count more than once, which no
    learner here can do.

    Raises:
        BadRowError: a row is malformed.
        ReplayError: the log is empty or cannot be learned from, or the spec is of a mixture.
    """
    check_learner(spec)
    check_blend(spec)
    learner, learned, learning = make_learner(spec, salt=b""), 0, RowSampler()
    read = list(pieces)
    for piece in read:
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
            learn_from(learning, piece, batch)
            for start in range(0, len(batch), BATCH):
                rows = batch.decisions[start : start + BATCH]
                learner.learn([_interaction(spec, row) for row in rows])
                learned += len(rows)
                progress(learned)
    if not learned:
        raise no_rows_error(read, "rows to learn from")
    return TrainedModel(
        spec_bytes=spec.encoded,
        learned=learned,
        checkpoint=learner.checkpoint(),
        rows=learning.rows(),
        columns=column_kinds_of(read) or msgspec.UNSET,
    )


def snapshot_of(model: TrainedModel, *, salt: bytes) -> Snapshot:
    """What a replica would serve of it; ``salt``: of posterior draws.

    Raises:
        SnapshotError, SpecError: it is corrupt.
    """
    return make_learner(model.spec(), salt=salt, checkpoint=model.checkpoint).snapshot(
        f"{model.learned}-0"
    )


class FrozenPolicy(RowTarget):
    """A policy as a snapshot has it, learning no more.

    Pickled without the model, which is made where it is used.

    ``provenance``: of the rows that the snapshot was trained on, where its values are too high;
    None: of no rows. ``columns``: of a table that it was trained on, what each column of the
    context was.

    Raises:
        ReplayError: the spec is of a mixture.
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
        self._spec, self._snapshot, self.notes, self.provenance = spec, snapshot, notes, provenance
        self.columns = dict(columns or {})

    def __reduce__(self) -> tuple[type["FrozenPolicy"], tuple[Any, ...]]:
        return FrozenPolicy, (
            self.name,
            self._spec,
            self._snapshot,
            self.notes,
            self.provenance,
            self.columns,
        )

    @cached_property
    def _policy(self) -> Policy:
        return load_policy(self._spec, self._snapshot)

    def pmf(self, row: LoggedDecision) -> Pmf:
        """See Target."""
        return check_pmf(self._policy.pmf(*featurise_row(self._spec, row)))


def read_trained(path: Path, name: str | None = None, *, seed: int = 0) -> FrozenPolicy:
    """The policy in a file that ``banditloop train policy`` wrote.

    Raises:
        ReplayError: it cannot be read.
        SnapshotError, SpecError: it is damaged, or something else.
    """
    try:
        model = decode_trained(path.read_bytes())
    except OSError as error:
        raise ReplayError(f"{path}: {error.strerror}", "policy") from error
    return frozen_policy(model, name or path.stem, seed=seed)


def frozen_policy(model: TrainedModel, name: str, *, seed: int = 0) -> FrozenPolicy:
    """The policy in a model; it knows what the model says of the rows that it learned from.

    Raises:
        SnapshotError, SpecError: the model is corrupt.
    """
    provenance: Provenance | None = None
    note = f"learned from {model.learned:,} decisions of a simulated world"
    if model.rows is msgspec.UNSET:
        provenance, note = UnknownRows(), f"learned from {model.learned:,} rows: {UNKNOWN}"
    elif isinstance(model.rows, LearnedRows):
        provenance, note = (
            TrainedRows(model.rows),
            f"learned from {model.learned:,} rows, of {model.rows.logs}",
        )
    columns = None if model.columns is msgspec.UNSET else model.columns
    return FrozenPolicy(
        name, model.spec(), snapshot_of(model, salt=salt_of(seed)), (note,), provenance, columns
    )


def _interaction(spec: PolicySpec, row: LoggedDecision) -> Interaction:
    context, actions = featurise_row(spec, row)
    return Interaction(
        row.event_id, row.slot, context, actions, row.chosen, row.propensity, row.reward
    )
