"""What entries of a log change in the profiles of its users."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from bandits.log.records import ActivityRecord, ErasureRecord, LogEntry
from policies.profiles.part import ERASED, CutRule, Part, ProfileEvent, event_of, join_parts
from policies.profiles.showings import Showing, showing_of


class PartChanges:
    """What some entries of one log say of its users, by pseudonym; in any order.

    They lie side by side as they came, and are grouped by user when somebody asks: most users are
    named by few of them.

    Its length is how many changes it holds.
    """

    def __init__(self) -> None:
        # Who did what, and who was shown what, each of one length.
        self._doers: list[str] = []
        self._done: list[ProfileEvent] = []
        self._seers: list[str] = []
        self._seen: list[Showing] = []
        self._erased: list[str] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._done) + len(self._seen) + len(self._erased)

    def happened(self, user: str, event: ProfileEvent) -> None:
        """Note what a user did.

        Args:
            user: the pseudonym.
            event: what, with what, and when.
        """
        self._doers.append(user)
        self._done.append(event)

    def shown(self, user: str, position: str, items: Sequence[str]) -> None:
        """Note what a decision chose for a user.

        Args:
            user: the pseudonym.
            position: the decision's.
            items: what it chose.
        """
        ms, _, number = position.partition("-")
        entry_ms, seq = int(ms), int(number or 0)
        for item in items:
            self._seers.append(user)
            self._seen.append(showing_of((entry_ms, seq, item)))

    def erased(self, user: str) -> None:
        """Note that nothing is known of a user any more.

        Args:
            user: the pseudonym.
        """
        self._erased.append(user)

    def known(self, user: str, part: Part) -> None:
        """Note all that a part says, as of entries that need not be read again.

        Args:
            user: the pseudonym.
            part: of the same log.
        """
        if part.erased:
            self.erased(user)
            return
        self._doers += [user] * len(part.events)
        self._done += part.events
        self._seers += [user] * len(part.shown)
        self._seen += part.shown

    def read(self, entries: Iterable[LogEntry]) -> None:
        """Note what entries of a log of activity say, or of any log erasures."""
        doers, done = self._doers, self._done
        for entry in entries:
            record = entry.record
            if isinstance(record, ActivityRecord):
                ms, _, number = entry.id.partition("-")
                entry_ms, seq = int(ms), int(number or 0)
                time_ms = entry_ms if record.time_ms is None else record.time_ms
                doers.append(record.user)
                done.append(event_of((time_ms, entry_ms, seq, record.item, record.event_type)))
            elif isinstance(record, ErasureRecord):
                self.erased(record.user)

    def take(self, other: "PartChanges") -> None:
        """Take in what other entries change."""
        for mine, more in zip(self._columns(), other._columns(), strict=True):  # noqa: SLF001
            mine.extend(more)

    def _columns(self) -> tuple[list[Any], ...]:
        return self._doers, self._done, self._seers, self._seen, self._erased

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Yield each user with a part that says it all, and is not cut."""
        done, seen = _grouped(self._doers, self._done), _grouped(self._seers, self._seen)
        erased = dict.fromkeys(self._erased)
        for user in erased:
            done.pop(user, None)
            seen.pop(user, None)

        for user, events in done.items():
            yield user, Part(tuple(events), tuple(seen.pop(user, ())))
        for user, shown in seen.items():
            yield user, Part((), tuple(shown))
        for user in erased:
            yield user, ERASED

    def cut(self, rule: CutRule) -> "PartChanges":
        """Return what a rule keeps of each user's.

        Args:
            rule: what is kept.
        """
        kept = PartChanges()
        for user, part in self.parts():
            kept.known(user, join_parts([part], rule))
        return kept

    def encode_groups(self, count: int) -> Iterator[tuple[int, bytes]]:
        """Yield groups of users, each with the bytes of all changes of these.

        Args:
            count: how many groups there are; those of whom nothing is said are left out.
        """
        doers, seers = _places(self._doers, count), _places(self._seers, count)
        erased = _places(self._erased, count)
        for group in range(count):
            columns = (
                _at(self._doers, doers[group]),
                _at(self._done, doers[group]),
                _at(self._seers, seers[group]),
                _at(self._seen, seers[group]),
                _at(self._erased, erased[group]),
            )
            if any(columns):
                names, done, viewers, seen, gone = columns
                flat = names, [*zip(*done, strict=True)], viewers, [*zip(*seen, strict=True)], gone
                yield group, msgspec.msgpack.encode(flat)

    @classmethod
    def decoded(cls, data: bytes) -> "PartChanges":
        """Return the changes of a group.

        Args:
            data: what ``encode_groups`` has made in this process.
        """
        changes = cls()
        doers, done, seers, seen, erased = msgspec.msgpack.decode(data)
        changes._doers, changes._done = doers, list(map(event_of, zip(*done, strict=True)))
        changes._seers, changes._seen = seers, list(map(showing_of, zip(*seen, strict=True)))
        changes._erased = erased
        return changes


def _grouped(users: list[str], what: list[Any]) -> dict[str, list[Any]]:
    found: defaultdict[str, list[Any]] = defaultdict(list)
    for user, each in zip(users, what, strict=True):
        found[user].append(each)
    return found


def _places(users: list[str], count: int) -> list[list[int]]:
    """Return of each group of users where they are named."""
    groups = np.fromiter(map(hash, users), np.int64, len(users)) % count
    order, ends = np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups, minlength=count))
    return [each.tolist() for each in np.split(order, ends[:-1])]


def _at(values: list[Any], places: list[int]) -> list[Any]:
    return [values[place] for place in places]
