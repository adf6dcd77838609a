"""What entries of a log change in the profiles of its users."""

from collections.abc import Iterable, Iterator

from bandits.log.records import ActivityRecord, ErasureRecord, LogEntry
from policies.profiles.part import EMPTY, ERASED, Part, ProfileEvent, event_of
from policies.profiles.showings import Showing, showing_of


class PartChanges:
    """What some entries of one log say of its users, by pseudonym; in any order.

    Its length is how many changes it holds.
    """

    def __init__(self) -> None:
        self._events: dict[str, list[ProfileEvent]] = {}
        self._shown: dict[str, list[Showing]] = {}
        self._erased: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def happened(self, user: str, event: ProfileEvent) -> None:
        """Note what a user did.

        Args:
            user: the pseudonym.
            event: what, with what, and when.
        """
        self._events.setdefault(user, []).append(event)
        self._count += 1

    def shown(self, user: str, position: str, items: Iterable[str]) -> None:
        """Note what a decision chose for a user.

        Args:
            user: the pseudonym.
            position: the decision's.
            items: what it chose.
        """
        ms, _, number = position.partition("-")
        entry_ms, seq = int(ms), int(number or 0)
        known = self._shown.get(user)
        if known is None:
            known = self._shown[user] = []
        before = len(known)
        known += [showing_of((entry_ms, seq, item)) for item in items]
        self._count += len(known) - before

    def erased(self, user: str) -> None:
        """Note that nothing is known of a user any more.

        Args:
            user: the pseudonym.
        """
        self._erased.add(user)
        self._count += 1

    def known(self, user: str, part: Part) -> None:
        """Note all that a part says, as of entries that need not be read again.

        Args:
            user: the pseudonym.
            part: of the same log.
        """
        if part.erased:
            self.erased(user)
            return
        self._events.setdefault(user, []).extend(part.events)
        self._shown.setdefault(user, []).extend(part.shown)
        self._count += len(part.events) + len(part.shown)

    def read(self, entry: LogEntry) -> None:
        """Note what an entry of a log of activity says, or of any log an erasure."""
        record = entry.record
        if isinstance(record, ActivityRecord):
            ms, _, number = entry.id.partition("-")
            entry_ms, seq = int(ms), int(number or 0)
            time_ms = entry_ms if record.time_ms is None else record.time_ms
            event = event_of((time_ms, entry_ms, seq, record.item, record.event_type))
            self._events.setdefault(record.user, []).append(event)
            self._count += 1
        elif isinstance(record, ErasureRecord):
            self.erased(record.user)

    def take(self, other: "PartChanges") -> None:
        """Take in what other entries change."""
        events, shown = self._events, self._shown
        for user, more in other._events.items():  # noqa: SLF001 - of the same kind
            events.setdefault(user, []).extend(more)
        for user, others in other._shown.items():  # noqa: SLF001
            shown.setdefault(user, []).extend(others)
        self._erased |= other._erased  # noqa: SLF001
        self._count += len(other)

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Yield each user with a part that says it all, and is not cut."""
        shown = self._shown
        for user, events in self._events.items():
            if user not in self._erased:
                yield user, Part(tuple(events), tuple(shown[user]) if user in shown else ())
        for user, some in shown.items():
            if user not in self._events and user not in self._erased:
                yield user, Part((), tuple(some))
        for user in self._erased:
            yield user, ERASED

    def part(self, user: str) -> Part:
        """Return a part that says all of one user, and is not cut."""
        if user in self._erased:
            return ERASED
        events, shown = self._events.get(user, ()), self._shown.get(user, ())
        return Part(tuple(events), tuple(shown)) if events or shown else EMPTY
