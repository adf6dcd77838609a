"""A ridge model learns a feature only if it has a column for it, and columns can run out."""

from collections import deque
from collections.abc import Iterator

import numpy as np

from bandits.errors import BanditloopError
from bandits.learner_config import LearnerConfig, ModelColumns
from bandits.log.records import DecisionRecord, LogEntry
from policies.features import chosen_rows
from simulator.doctor.checks.findings import (
    Finding,
    Severity,
    make_finding,
    nothing_to_check,
    percent,
)
from simulator.doctor.checks.references import ReferencedBlobs

LAST = 200
"""How many decisions are looked at: the newest ones."""


class Columns:
    """Compares the newest decisions of a ridge policy with the newest snapshot that is stored."""

    def __init__(self, stored: ReferencedBlobs) -> None:
        self._stored = stored
        self._newest: deque[DecisionRecord] = deque(maxlen=LAST)

    def add(self, entry: LogEntry) -> None:
        """Keep a decision."""
        if isinstance(entry.record, DecisionRecord) and entry.record.chosen:
            self._newest.append(entry.record)

    def findings(self) -> Iterator[Finding]:
        """Yield one if the newest decision's learner has columns; a warning if they ran out."""
        spec = self._stored.spec(self._newest[-1].spec) if self._newest else None
        if spec is None or not spec.learner.has_columns:
            return

        model = self._newest_model(spec.learner)
        if model is None:
            yield nothing_to_check(
                "columns",
                "no snapshot by which one of the newest decisions was made is stored",
                action="examine a live policy, whose newest snapshots are stored",
            )
            return

        # A full model is no fault while all that comes has a column.
        used, most = len(model.index), model.index.limit
        checked, without = self._count_without_column(model)
        severity: Severity = "warning" if used >= most and without else "ok"
        yield make_finding(
            "columns",
            severity,
            f"the model has {used:,} of at most {most:,} columns; of the newest {checked:,}"
            f" decisions {without:,}, {percent(without, checked)}, have a feature without one",
            cause="each feature, and each pair that is crossed, takes a column when it is first"
            " met; when there is none left it is not learned: texts that hardly ever come again"
            " (queries, ids) use them up",
            action="leave such features out, or raise learner.max_features: learning then starts"
            " afresh, and a snapshot costs the third power of it",
            figures={
                "columns": used,
                "max_features": most,
                "decisions": checked,
                "without_column": without,
            },
        )

    def _newest_model(self, learner: LearnerConfig) -> ModelColumns | None:
        """Return the columns of the model behind the newest decision whose snapshot is stored."""
        for name in dict.fromkeys(record.snapshot_id for record in reversed(self._newest)):
            try:
                snapshot = self._stored.snapshot(name)
                if snapshot is not None:
                    return learner.columns(snapshot)
            except BanditloopError:
                continue  # a damaged snapshot is a finding of its own
        return None

    def _count_without_column(self, model: ModelColumns) -> tuple[int, int]:
        """Return how many decisions can be looked at, and how many chose what has no column."""
        index, rows = model.index, []
        for record in self._newest:
            spec = self._stored.spec(record.spec)
            catalogue = self._stored.catalogue(record.catalogue)
            if spec is None or catalogue is None:
                continue

            # Features of another model, or of a mixture, have no columns in this one.
            if spec.learner != model.config or spec.kind != "blend":
                continue
            ((_, shared, own),) = chosen_rows(spec, catalogue, record, record.chosen[:1])
            rows.append((*shared, *own))

        return len(rows), int(np.count_nonzero(index.without_column(rows))) if rows else 0
