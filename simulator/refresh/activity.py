"""A space's log of activity as training data: what users did outside of decisions.

The same log says which pseudonyms are of one person, and of whom nothing is to be known any more;
both hold for what the logs of the space's policies say of them, too.
"""

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bandits.log.positions import position_ms
from bandits.log.records import ActivityRecord, ErasureRecord, LogEntry, MergeUsersRecord
from policies.data.coded import CodedEvents
from simulator.refresh.rewarded import coded_events


@dataclass(slots=True, eq=False)
class SpaceActivity:
    """What users did, by a log of activity: 24 bytes of memory for each event.

    ``into``: of each pseudonym that was merged into another one, that one.

    Args:
        types: what they do, and how strongly each speaks for its item; what speaks for none is no
            event, and what speaks against one undoes what was done with it before.
    """

    types: Mapping[str, float]
    into: dict[str, str] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    _users: dict[str, int] = field(default_factory=dict)
    _items: dict[str, int] = field(default_factory=dict)
    _names: list[str] = field(init=False)
    _user: "array[int]" = field(default_factory=lambda: array("i"))
    _item: "array[int]" = field(default_factory=lambda: array("i"))
    _type: "array[int]" = field(default_factory=lambda: array("h"))
    _time: "array[int]" = field(default_factory=lambda: array("q"))

    def __post_init__(self) -> None:
        self._names = list(self.types)

    @classmethod
    def of(cls, entries: Iterable[LogEntry], types: Mapping[str, float]) -> "SpaceActivity":
        """Return what entries say.

        Args:
            entries: of a log of activity, in order.
            types: see the class.
        """
        said = cls(types)
        for entry in entries:
            said.add(entry)
        return said

    def add(self, entry: LogEntry) -> None:
        """Add what an entry says; its time is the log's, as for all that is learned."""
        record = entry.record
        if isinstance(record, MergeUsersRecord):
            self.into[record.user] = record.into
        elif isinstance(record, ErasureRecord):
            self.erased.add(record.user)
        elif isinstance(record, ActivityRecord) and self.types.get(record.event_type):
            self._user.append(self._users.setdefault(record.user, len(self._users)))
            self._item.append(self._items.setdefault(record.item, len(self._items)))
            self._type.append(self._names.index(record.event_type))
            self._time.append(position_ms(entry.id))

    def person(self, user: str) -> str:
        """Return the pseudonym that everything of a person is logged under, of one of theirs."""
        seen: set[str] = set()
        while user in self.into and user not in seen:
            seen.add(user)
            user = self.into[user]
        return user

    def persons(self) -> dict[str, str]:
        """Return, of each pseudonym that was merged into another one, ``person``."""
        return {user: self.person(user) for user in self.into}

    def coded(self) -> CodedEvents:
        """Return the events as training takes them: by pseudonym, with the weights of types."""
        weights = np.array([self.types[name] for name in self._names], np.float32)
        user, item = np.array(self._user, np.int64), np.array(self._item, np.int64)
        kind, time = np.array(self._type, np.int64), np.array(self._time, np.int64)

        # The entries stand in the order of time, so places can be compared.
        against = np.flatnonzero(weights[kind] < 0)
        _, cell = np.unique(user * max(1, len(self._items)) + item, return_inverse=True)
        undone = np.full(len(kind), -1)
        np.maximum.at(undone, cell[against], against)
        kept = (weights[kind] > 0) & (np.arange(len(kind)) > undone[cell])
        events = coded_events(
            list(self._users),
            list(self._items),
            tuple(self._names),
            user[kept],
            item[kept],
            kind[kept],
            time[kept],
            np.full(int(kept.sum()), np.nan),
            weights[kind[kept]],
        )
        return events.compact()

    def of_persons(self, events: CodedEvents) -> CodedEvents:
        """Return events of persons instead of pseudonyms, without those who were erased.

        Args:
            events: of this log, of any other of the space, or of a data set.
        """
        persons = [self.person(user) for user in events.user_ids]
        if persons == list(events.user_ids) and self.erased.isdisjoint(persons):
            return events

        places: dict[str, int] = {}
        codes = [places.setdefault(person, len(places)) for person in persons]
        gone = [
            user in self.erased or person in self.erased
            for user, person in zip(events.user_ids, persons, strict=True)
        ]
        kept = ~np.array(gone, np.bool_)[events.user]
        merged = coded_events(
            list(places),
            list(events.item_ids),
            events.types,
            np.array(codes, np.int64)[events.user][kept],
            *(getattr(events, name)[kept] for name in ("item", "type", "time", "value", "weight")),
        )
        return merged.compact()
