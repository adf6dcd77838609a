"""What a policy's log says of its users: what they were shown, and what of it was rewarded."""

from collections.abc import Callable, Iterable

import msgspec

from bandits.errors import RefusedError
from bandits.log.encoded_decisions import DECISIONS, Decision, shown_to_each, whole_record
from bandits.log.records import ErasureRecord, LogEntry, RewardRecord
from policies.profiles.changes import PartChanges
from policies.profiles.part import event_of
from policies.profiles.signals import REWARD
from policies.spec import PolicySpec

_Rewarded = tuple[Decision, int, int, str]
"""A decision, one of its slots, when it was rewarded, and what that is called in a profile."""


class ChangeGatherer:
    """Gathers what entries change in profiles, while a fold of the same log applies them.

    What counts are decisions of specs with ``profile``: those of others are not logged under the
    pseudonyms of persons. A decision was shown when it was made, also one that is deferred.

    Args:
        spec: returns the spec of a digest, or refuses it.
    """

    def __init__(self, spec: Callable[[str], PolicySpec]) -> None:
        self._spec = spec
        self._profiled: dict[str, bool] = {}
        self._changes = PartChanges()
        self._rewarded: list[_Rewarded] = []

    def rewarded(self, decision: Decision, slot: int, now_ms: int, reward: RewardRecord) -> None:
        """Note a reward that counts, when the join tells of it.

        Args:
            decision: the one that is rewarded.
            slot: which of its slots; below 0, that of a placed item (see ``slot_of``).
            now_ms: the time of the entry that brought the reward.
            reward: of a value of 0 or less it says that nothing was done.
        """
        if reward.value <= 0 or not self._is_profiled(decision.spec):
            return
        self._rewarded.append((decision, slot, now_ms, reward.signal or REWARD))

    def read(self, entries: Iterable[LogEntry]) -> None:
        """Note what entries say by themselves."""
        profiled, changes = self._profiled.get, self._changes
        decisions: list[Decision] = []
        places: list[str] = []
        for entry in entries:
            record = entry.record
            if isinstance(record, DECISIONS):
                if profiled(record.spec) or self._is_profiled(record.spec):
                    decisions.append(record)
                    places.append(entry.id)
            elif isinstance(record, ErasureRecord):
                changes.erased(record.user)

        for place, (user, items) in zip(places, shown_to_each(decisions), strict=True):
            if user is not None:
                changes.shown(user, place, items)

    def taken(self) -> PartChanges:
        """Return what was gathered since it was last asked for."""
        changes, self._changes = self._changes, PartChanges()
        rewarded, self._rewarded = self._rewarded, []

        shown = shown_to_each([decision for decision, *_ in rewarded])
        for (decision, slot, now_ms, kind), (user, items) in zip(rewarded, shown, strict=True):
            if user is not None:
                item = items[slot] if slot >= 0 else whole_record(decision).placed_in(-1 - slot)
                changes.happened(user, event_of((now_ms, now_ms, 0, item, kind)))
        return changes

    def _is_profiled(self, digest: str) -> bool:
        if digest not in self._profiled:
            try:
                self._profiled[digest] = self._spec(digest).profile is not msgspec.UNSET
            except RefusedError:
                self._profiled[digest] = False
        return self._profiled[digest]
