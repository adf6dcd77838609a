"""The states of the controller of quotas, as the log of partition 0 says them."""

from bandits.log.positions import log_order
from bandits.log.records import ControlRecord, LogEntry
from policies.rules.quotas.quota import Control

STATES_KEPT = 10_000
"""At most one is said in a second, so these are some hours."""


class ControlStates:
    """The newest states that were read. The logs of all partitions are asked of those of one."""

    def __init__(self) -> None:
        """Begin with none."""
        self._states: dict[str, Control] = {}
        self._newest = (0, 0)

    def add(self, entry: LogEntry) -> None:
        """Take in an entry, if it says a state."""
        if not isinstance(entry.record, ControlRecord):
            return
        self._states[entry.id] = Control(entry.id, entry.record.prices)
        self._newest = max(self._newest, log_order(entry.id))
        if len(self._states) > STATES_KEPT:
            del self._states[next(iter(self._states))]

    def state(self, entry: str) -> Control | None:
        """Return the state that an entry said; None: it is not known."""
        return self._states.get(entry)

    def has_none(self, entry: str) -> bool:
        """Return whether there was no such state, where all from before it on are known."""
        if not self._states or entry in self._states:
            return False
        oldest = log_order(next(iter(self._states)))
        return oldest <= log_order(entry) <= self._newest
