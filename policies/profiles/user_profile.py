"""What is known of one person: the parts of all logs, and of all their pseudonyms, joined."""

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from threading import Lock

import msgspec

from bandits.log.codec import digest
from policies.profiles.part import (
    MOST_SHOWN,
    CutRule,
    Part,
    ProfileEvent,
    decode_part,
    join_parts,
    newest_events,
)
from policies.profiles.showings import Showing, Showings

PARTS_REMEMBERED = 1_000
"""Parts that stay decoded, some 10 MB: what a user did is the same on most pages of a visit."""


class UserProfile(msgspec.Struct, frozen=True):
    """What is known of one person.

    Attributes:
        events: newest first, one of each item and type.
        shown: newest first.
        version: a name of what it was made of; empty: of nothing.
    """

    events: tuple[ProfileEvent, ...] = ()
    shown: Sequence[Showing] = ()
    version: str = ""

    def done(self, types: Collection[str]) -> frozenset[str]:
        """Return the items that one of these things was done with.

        Args:
            types: what was done.
        """
        return frozenset(event.item for event in self.events if event.type in types)

    def shown_often(self, times: int, since_ms: int) -> list[str]:
        """Return the items that were shown at least so often, each once.

        Args:
            times: how often.
            since_ms: counted from this time of the log's clock on.
        """
        if isinstance(self.shown, Showings):
            return self.shown.often(times, since_ms)
        counts = Counter(each.item for each in self.shown if each.entry_ms >= since_ms)
        return [item for item, count in counts.items() if count >= times]


UNKNOWN_USER = UserProfile()
"""Of a user of whom no log says anything."""


class _DecodedParts:
    """Parts that were decoded of late, by their bytes.

    What a user was shown is another with every decision for them: such a part does not come again,
    and would only take the place of one that does.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Part] = OrderedDict()
        self._lock = Lock()

    def __call__(self, data: bytes) -> Part:
        with self._lock:
            part = self._kept.get(data)
            if part is not None:
                self._kept.move_to_end(data)
                return part
        part = decode_part(data)
        if not part.shown:
            with self._lock:
                self._kept[data] = part
                if len(self._kept) > PARTS_REMEMBERED:
                    self._kept.popitem(last=False)
        return part


_decoded = _DecodedParts()


def read_profile(hashes: Iterable[Mapping[bytes, bytes]], rule: CutRule) -> UserProfile:
    """Return the profile of a person.

    A pseudonym of which one part is erased is as if it had no part at all.

    Args:
        hashes: of each of their pseudonyms the parts' bytes by the parts' names.
        rule: what is kept; with fewer items than the parts were cut by, fewer are read.

    Raises:
        CodecError: these are no parts.
    """
    by_log: dict[bytes, list[Part]] = {}
    read: list[tuple[bytes, bytes]] = []
    every = list(hashes)
    if len(every) == 1:  # nearly everybody has one pseudonym
        read = sorted(every[0].items())
        joined = [_decoded(data) for _, data in reversed(read)]
        if not joined or any(part.erased for part in joined):
            return UNKNOWN_USER
        return _profile(joined, read, rule)
    for stored in every:
        parts = {name: _decoded(data) for name, data in stored.items()}
        if any(part.erased for part in parts.values()):
            continue
        for name, part in parts.items():
            by_log.setdefault(name, []).append(part)
        read += stored.items()
    if not by_log:
        return UNKNOWN_USER

    # Of equal times the log with the greater name has the newer, so that all readers agree.
    logs = [by_log[name] for name in sorted(by_log, reverse=True)]
    joined = [join_parts(parts, rule) if len(parts) > 1 else parts[0] for parts in logs]
    return _profile(joined, sorted(read), rule)


def _profile(
    joined: Sequence[Part], read: Sequence[tuple[bytes, bytes]], rule: CutRule
) -> UserProfile:
    """Return the profile that the parts of all logs make.

    Args:
        joined: the parts, of the log with the greatest name first.
        read: the bytes that they were made of, by the names of the logs, in order.
        rule: what is kept.
    """
    version = digest(msgspec.msgpack.encode(read))[:16]
    return UserProfile(_events(joined, rule), _shown(joined), version)


def _events(joined: Iterable[Part], rule: CutRule) -> tuple[ProfileEvent, ...]:
    some = [part.events for part in joined if part.events]
    # The events of one log are in order, one of each item and type: often there is nothing to do.
    if len(some) == 1:
        return some[0] if len(some[0]) <= rule.items else newest_events(some[0], rule)
    return newest_events(sorted(chain.from_iterable(some), key=_when, reverse=True), rule)


def _shown(joined: Iterable[Part]) -> Sequence[Showing]:
    some = [part.shown for part in joined if part.shown]
    if len(some) == 1:
        return some[0]
    return tuple(sorted(chain.from_iterable(some), reverse=True)[:MOST_SHOWN])


def _when(event: ProfileEvent) -> tuple[int, int]:
    return event[:2]
