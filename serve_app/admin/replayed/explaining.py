"""Why a decision of the log is as it is: found again, with the model that made it.

That model is stored for a while. Later it is made again: folded from the checkpoint before the
decision, entry by entry, until the logged probabilities follow from it byte for byte.
"""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from banditloop_client.console_schemas import Verified
from banditloop_client.explain_schemas import Explanation
from bandits.errors import BanditloopError
from bandits.exploration import LinTs
from bandits.features.hashing import partition_of
from bandits.log.positions import is_after, position_before, position_ms
from bandits.log.records import DecisionRecord, LogEntry
from bandits.types import Snapshot
from bandits.values import FeatureMap
from policies.decisions.derived import follow_from
from policies.explain.explained import Explainer
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.items.past import ItemsPast
from policies.spec import PolicySpec, decode_spec
from serve_app.admin.decided.finding import Progress, find_decision
from serve_app.admin.replayed.verification import LogAddress
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.host.build import this_build
from serve_app.store.history import History, LogPast

SERVED_MS = (5_000, 60_000)
"""A model serves from within so long before the decisions that it makes: the models of so long are
tried, of the shorter time first."""
TOGETHER = 1000
"""Entries of before that time that are folded at once."""


class FoundDecision(msgspec.Struct, frozen=True):
    """A decision of the log, and why it is as it is.

    Attributes:
        entry: its entry in the log.
        record: what the entry says.
        explanation: why; None where it can be said no more.
        source: where the model came from, or why there is none.
        verified: whether the logged probabilities follow from it.
    """

    entry: str
    record: DecisionRecord
    explanation: Explanation | None
    source: str
    verified: Verified


class EventExplainer:
    """Finds decisions of a stored policy, and says why they are as they are."""

    def __init__(self, stored: StoredPolicy, address: LogAddress) -> None:
        """Open the logs.

        Args:
            stored: the policy.
            address: where its logs are.
        """
        self._stored = stored
        self._address = address
        self._histories = address.histories(stored.partitions)
        self._items = ItemsPast(address.items())

    def explain(
        self, event_id: str, entry: str = "", progress: Progress = lambda _: None
    ) -> FoundDecision:
        """Return a decision, and why it is as it is.

        Args:
            event_id: the decision's.
            entry: where it is in the log, if that is known; "": anywhere.
            progress: see ``Progress``.

        Raises:
            UnknownEventError: there is no such decision in the log.
            LogGapError, ArchiveError: the log cannot be read.
        """
        history = self._histories[partition_of(event_id, len(self._histories))]
        entry_id, record = find_decision(history, event_id, entry, progress)
        try:
            spec = decode_spec(history.blob(record.spec))
            catalogue = self._items.catalogue(record.catalogue, history.blob)
            own = record.own()
            snapshot, source = self._model(history, entry_id, own, spec, catalogue, progress)
        except BanditloopError as error:
            return FoundDecision(entry_id, record, None, error.message, "gone")

        explanation = None
        if snapshot is not None:
            explainer = Explainer(spec, snapshot)
            explanation = explainer.explain(catalogue, record, self._features())
        verified = self._verified(spec, snapshot, catalogue, own)
        return FoundDecision(entry_id, record, explanation, source, verified)

    def _verified(
        self,
        spec: PolicySpec,
        snapshot: Snapshot | None,
        catalogue: Catalogue,
        record: DecisionRecord,
    ) -> Verified:
        """Return whether the logged probabilities follow from a model."""
        if (record.holdout and spec.holdout is not None) or not record.chosen:
            return "not_asked"
        if snapshot is None:
            return "gone"
        if follow_from(spec, snapshot, catalogue, record):
            return "equal"

        # A model of another build rounds otherwise, and no fault is to be seen in that.
        made_by = self._stored.build_of(record.snapshot_id)
        return "unequal" if made_by in (None, this_build()) else "older_build"

    def _model(
        self,
        history: History,
        entry_id: str,
        record: DecisionRecord,
        spec: PolicySpec,
        catalogue: Catalogue,
        progress: Progress,
    ) -> tuple[Snapshot | None, str]:
        """Return the model that made a decision, and its origin; None, and why there is none."""
        stored = self._stored.snapshot(record.snapshot_id)
        if stored is not None:
            return stored, f"snapshot {record.snapshot_id} is stored"
        if record.holdout and spec.holdout is not None:
            return None, f"it was held out: {spec.holdout.policy} chose, and no model was asked"
        if len(self._histories) > 1:
            return None, (
                f"snapshot {record.snapshot_id} is gone, and the models of several partitions are"
                " merged: none is made again"
            )

        for served_ms in SERVED_MS:
            since_ms = position_ms(entry_id) - served_ms
            for fold, start in self._folds(history, entry_id):
                entries = history.encoded(fold.position, position_before(entry_id))
                made = _refolded(fold, entries, since_ms, spec, catalogue, record, progress)
                if made is not None:
                    return made, f"folded again from {start}: the same probabilities byte for byte"
        return None, (
            f"snapshot {record.snapshot_id} is gone, and none that the log gives before {entry_id}"
            " makes the same probabilities: another build may have made it, or it was pinned"
        )

    def _folds(self, history: History, entry_id: str) -> Iterator[tuple[Fold, str]]:
        """Yield a fold at the newest checkpoints before the decision, and at the start."""
        checkpoints = self._stored.checkpoints
        past = LogPast(history, checkpoints)
        before = [each for each in checkpoints.list() if is_after(entry_id, each.position)]
        for each in before[:2]:
            fold = self._fold(history, past)
            fold.resume(checkpoints.state(each), past)
            yield fold, f"the checkpoint at {each.position}"

        root = checkpoints.root()
        fold = self._fold(history, past)
        if root is not None:
            fold.resume(checkpoints.state(root.checkpoint), past)
        yield fold, "the start of the log" if root is None else f"the log's root at {root.position}"

    def _fold(self, history: History, past: LogPast) -> Fold:
        items = ItemsPast(self._address.items())
        return Fold(history.blob, salt=self._address.salt, past=past, items=items)

    def _features(self) -> Callable[[str], FeatureMap | None]:
        """Return what names the items' features, as they are now."""
        timeline = self._stored.items()

        def features_of(item_id: str) -> FeatureMap | None:
            item = timeline.item(item_id)
            return None if item is None else item.features

        return features_of


def _refolded(
    fold: Fold,
    entries: Iterable[LogEntry],
    since_ms: int,
    spec: PolicySpec,
    catalogue: Catalogue,
    record: DecisionRecord,
    progress: Progress,
) -> Snapshot | None:
    """Fold on to a decision; return the first model that its probabilities follow from.

    Posterior draws are made anew at each position, also where nothing was learned: there each entry
    has a model of its own.
    """
    drawn = isinstance(spec.exploration, LinTs)
    tried: object = None
    waiting: list[LogEntry] = []
    for entry in entries:
        waiting.append(entry)
        if entry.time_ms < since_ms and len(waiting) < TOGETHER:
            continue

        # What was learned long before is one model; from then on each may be the one.
        fold.apply(waiting)
        waiting.clear()
        progress(fold.position)
        state = fold.position if drawn else (fold.changes, fold.spec_id)
        if entry.time_ms >= since_ms and state != tried and fold.spec_id == record.spec:
            tried = state
            snapshot = fold.snapshot()
            if follow_from(spec, snapshot, catalogue, record):
                return snapshot

    fold.apply(waiting)
    if fold.spec_id != record.spec or not follow_from(spec, fold.snapshot(), catalogue, record):
        return None
    return fold.snapshot()
