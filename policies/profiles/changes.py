"""What entries of a log change in the profiles of its users."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np

from bandits.log.records import ActivityRecord, ErasureRecord, LogEntry
from policies.profiles.encoded_parts import encode_parts
from policies.profiles.part import (
    ERASED,
    CutRule,
    Part,
    ProfileEvent,
    encode_part,
    event_of,
    join_parts,
)
from policies.profiles.showings import showing_of


class PartChanges:
    """What some entries of one log say of its users, by pseudonym; in any order.

    It lies side by side as it came, and is grouped by user when somebody asks: most users are named
    by few entries.

    Its length is how many changes it holds.
    """

    def __init__(self) -> None:
        # The user, and each field of a ProfileEvent; likewise of a Showing.
        self._done: list[list[Any]] = [[], [], [], [], [], []]
        self._seen: list[list[Any]] = [[], [], [], []]
        self._erased: list[str] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self._done[0]) + len(self._seen[0]) + len(self._erased)

    def happened(self, user: str, event: ProfileEvent) -> None:
        """Note what a user did.

        Args:
            user: the pseudonym.
            event: what, with what, and when.
        """
        _add(self._done, user, event)

    def shown(self, user: str, position: str, items: Sequence[str]) -> None:
        """Note what a decision chose for a user.

        Args:
            user: the pseudonym.
            position: the decision's.
            items: what it chose.
        """
        ms, _, number = position.partition("-")
        users, times, seqs, shown = self._seen
        users += [user] * len(items)
        times += [int(ms)] * len(items)
        seqs += [int(number or 0)] * len(items)
        shown += items

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
        for event in part.events:
            _add(self._done, user, event)
        for showing in part.shown:
            _add(self._seen, user, showing)

    def read(self, entries: Iterable[LogEntry]) -> None:
        """Note what entries of a log of activity say, or of any log erasures."""
        users, times, entered, seqs, items, types = self._done
        for entry in entries:
            record = entry.record
            if isinstance(record, ActivityRecord):
                ms, _, number = entry.id.partition("-")
                entry_ms = int(ms)
                users.append(record.user)
                times.append(entry_ms if record.time_ms is None else record.time_ms)
                entered.append(entry_ms)
                seqs.append(int(number or 0))
                items.append(record.item)
                types.append(record.event_type)
            elif isinstance(record, ErasureRecord):
                self.erased(record.user)

    def take(self, other: "PartChanges") -> None:
        """Take in what other entries change."""
        for mine, more in zip(self._columns(), other._columns(), strict=True):  # noqa: SLF001
            mine.extend(more)

    def _columns(self) -> Iterator[list[Any]]:
        return chain(self._done, self._seen, (self._erased,))

    def parts(self) -> Iterator[tuple[str, Part]]:
        """Yield each user with a part that says it all, and is not cut."""
        done, seen = _grouped(self._done, event_of), _grouped(self._seen, showing_of)
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

    def encoded(self, rule: CutRule) -> Iterator[tuple[str, bytes]]:
        """Yield each user with the bytes of a part that says it all.

        Args:
            rule: what cuts it.
        """
        try:
            yield from encode_parts(self._done, self._seen, self._erased, rule)
        except OverflowError:  # a number of more than 64 bits
            for user, part in self.parts():
                yield user, encode_part(join_parts([part], rule))

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
        named = self._done[0], self._seen[0], self._erased
        done, seen, erased = (_places(users, count) for users in named)
        for group in range(count):
            columns = (
                [_at(column, done[group]) for column in self._done],
                [_at(column, seen[group]) for column in self._seen],
                _at(self._erased, erased[group]),
            )
            if columns[0][0] or columns[1][0] or columns[2]:
                yield group, msgspec.msgpack.encode(columns)

    @classmethod
    def decoded(cls, data: bytes) -> "PartChanges":
        """Return the changes of a group.

        Args:
            data: what ``encode_groups`` has made in this process.
        """
        changes = cls()
        changes._done, changes._seen, changes._erased = msgspec.msgpack.decode(data)
        return changes


def _add(columns: list[list[Any]], user: str, row: tuple[Any, ...]) -> None:
    for column, value in zip(columns, (user, *row), strict=True):
        column.append(value)


def _grouped(columns: list[list[Any]], make: Any) -> dict[str, list[Any]]:
    """Return by user what is made of the other columns."""
    found: defaultdict[str, list[Any]] = defaultdict(list)
    users, *fields = columns
    for user, each in zip(users, map(make, zip(*fields, strict=True)), strict=True):
        found[user].append(each)
    return found


def _places(users: list[str], count: int) -> list[list[int]]:
    """Return of each group of users where they are named."""
    groups = np.fromiter(map(hash, users), np.int64, len(users)) % count
    order, ends = np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups, minlength=count))
    return [each.tolist() for each in np.split(order, ends[:-1])]


def _at(values: list[Any], places: list[int]) -> list[Any]:
    return [values[place] for place in places]
