"""Why a decision of the log is as it is: found again, with the model that made it.

That model is stored for a while. Later it is made again: folded from the checkpoint before the
decision, entry by entry, until the logged probabilities follow from it byte for byte.
"""

from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from banditloop_client.console_schemas import Verified
from banditloop_client.explain_schemas import Explanation
from bandits.errors import BanditloopError
from bandits.features.hashing import partition_of
from bandits.log.positions import is_after
from bandits.log.records import DecisionRecord
from bandits.types import Snapshot
from bandits.values import FeatureMap
from policies.decisions.derived import follow_from
from policies.explain.explained import Explainer
from policies.fold.fold import Fold
from policies.items.catalogue import Catalogue
from policies.items.past import ItemsPast
from policies.spec import PolicySpec, decode_spec
from serve_app.admin.decided.finding import Progress, find_decision, first_served
from serve_app.admin.replayed.made_again import Beginning, Sought, made_again
from serve_app.admin.replayed.verification import LogAddress
from serve_app.admin.stored_policy import StoredPolicy
from serve_app.host.build import this_build
from serve_app.store.checkpoints import StoredCheckpoint
from serve_app.store.history import History, LogPast


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

        served = first_served(history, entry_id, record.snapshot_id)
        sought = Sought(spec, catalogue, record, served)
        made = made_again(sought, self._beginnings(history, served), history.encoded, progress)
        if made is not None:
            snapshot, start = made
            return snapshot, f"folded again from {start}: the same probabilities byte for byte"
        return None, (
            f"snapshot {record.snapshot_id} is gone, and none that the log gives before {entry_id}"
            " makes the same probabilities: another build may have made it, or a learner that was"
            " more than a minute behind"
        )

    def _beginnings(self, history: History, served: str) -> Iterator[Beginning]:
        """Yield the checkpoints before a decision, the newest first, and the log's beginning."""
        checkpoints = self._stored.checkpoints
        past = LogPast(history, checkpoints)

        def resumed(stored: StoredCheckpoint) -> Fold:
            fold = self._fold(history, past)
            fold.resume(checkpoints.state(stored), past)
            return fold

        for each in checkpoints.list():
            if is_after(served, each.position):
                yield Beginning(f"the checkpoint at {each.position}", partial(resumed, each))
        root = checkpoints.root()
        if root is None:
            yield Beginning("the start of the log", partial(self._fold, history, past))
        else:
            name = f"the log's root at {root.position}"
            yield Beginning(name, partial(resumed, root.checkpoint))

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
