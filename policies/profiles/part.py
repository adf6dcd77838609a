"""One log's part of what is known of a user: a pure function of the set of the log's entries.

Parts form a join-semilattice. To apply an entry twice, late, or in another order changes nothing,
and nobody has to remember which entries a part holds.

Events are ordered by (time, entry, item, type), of which the time is the user's and the entry the
log's. Of each item and type the newest event is kept, and of those the newest ones. An event that
is dropped is older than all that displaced it, so it is dropped from every union, too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import accumulate, chain, repeat
from operator import add, sub
from typing import Annotated, Any, NamedTuple

import msgspec

from bandits.errors import CodecError
from bandits.log.codec import MALFORMED, digest
from policies.profiles.showings import Showing, Showings

MOST_KEPT = 1_000
"""Events that are kept of each type that ``repeat`` asks about, however many items are kept."""
MOST_SHOWN = 200
"""Showings that are kept."""
_ERASED = msgspec.msgpack.encode(None)
_NO_EVENTS, _NO_SHOWINGS = ((),) * 5, ((),) * 3


class ProfileEvent(NamedTuple):
    """The newest time that a user did something with an item; they sort from old to new.

    ``time_ms``: when, as the caller says it. ``entry_ms``, ``seq``: the entry that brought it.
    ``item``, ``type``: what was done with what.
    """

    time_ms: int
    entry_ms: int
    seq: int
    item: str
    type: str


class CutRule(msgspec.Struct, frozen=True, dict=True):
    """What of a part is kept.

    Attributes:
        items: so many of the newest events, one of each item and type.
        kept: types of each of which the newest MOST_KEPT are kept besides.
    """

    items: int
    kept: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """A name of the rule: parts that were cut by another one are made anew."""
        kept = [(kind, MOST_KEPT) for kind in sorted(set(self.kept))]
        return digest(msgspec.msgpack.encode((self.items, kept, MOST_SHOWN)))[:16]


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What one log says of one pseudonym.

    Attributes:
        events: newest first, one of each item and type.
        shown: newest first.
        erased: nothing is known, and never will be.
    """

    events: tuple[ProfileEvent, ...] = ()
    shown: Sequence[Showing] = ()
    erased: bool = False

    def __bool__(self) -> bool:
        """Whether it says anything."""
        return bool(self.events or self.shown or self.erased)


EMPTY = Part()
ERASED = Part(erased=True)


def join_parts(parts: Iterable[Part], rule: CutRule) -> Part:
    """Return the least part that says what each of these says; it is cut by the rule.

    Args:
        parts: of one log and pseudonym, in any order, with any repetition; cut or not.
        rule: what is kept.
    """
    given = [part for part in parts if part]
    if any(part.erased for part in given):
        return ERASED
    if len(given) == 1:
        (only,) = given
        done = sorted(only.events, reverse=True) if len(only.events) > 1 else only.events
        return Part(newest_events(done, rule), newest_shown(only.shown))
    events = chain.from_iterable(part.events for part in given)
    shown = chain.from_iterable(part.shown for part in given)
    return Part(newest_events(sorted(events, reverse=True), rule), newest_shown(shown))


def newest_events(events: Sequence[ProfileEvent], rule: CutRule) -> tuple[ProfileEvent, ...]:
    """Return what a rule keeps of events, newest first.

    Args:
        events: newest first.
        rule: what is kept.
    """
    if len(events) == 1:
        return tuple(events)
    # What is not more than is kept is only looked through for what was done again.
    if len(events) <= rule.items:
        newest: dict[tuple[Any, ...], ProfileEvent] = {}
        for event in events:
            newest.setdefault(event[3:], event)
        return tuple(newest.values())

    seen: set[tuple[Any, ...]] = set()
    out: list[ProfileEvent] = []
    count, more = 0, dict.fromkeys(rule.kept, MOST_KEPT)
    for event in events:
        key = event[3:]
        if key in seen:
            continue
        seen.add(key)

        # All limits count the newest of each item and type, also those another limit keeps. Each
        # type has its own: whoever looks at much has still bought what they have bought.
        left = more.get(key[1], 0)
        if left:
            more[key[1]] = left - 1
        if count < rule.items or left:
            out.append(event)
        count += 1
        if count >= rule.items and not any(more.values()):
            break
    return tuple(out)


def newest_shown(shown: Iterable[Showing]) -> tuple[Showing, ...]:
    """Return what is kept of showings, newest first."""
    return tuple(sorted(set(shown), reverse=True)[:MOST_SHOWN])


Place = Annotated[int, msgspec.Meta(ge=0)]


class _Columns(msgspec.Struct, frozen=True, array_like=True):
    """A part as it is stored.

    Items and types are numbered by their first use; ``items`` are without the ``prefix`` that all
    begin with. Where an item is used for the first time its column says 0, else one more than its
    number. Times are the newest, and then how much older each is than the one before. A column that
    would hold nothing but zeros is empty.
    """

    prefix: str
    items: list[str]
    types: list[str]
    event_items: list[Place]
    event_types: list[int]
    event_times: list[int]
    event_lags: list[int]
    event_seqs: list[int]
    shown_items: list[Place]
    shown_times: list[int]
    shown_seqs: list[int]


_decoder = msgspec.msgpack.Decoder(_Columns | None)
_encoder = msgspec.msgpack.Encoder()
# What ``_make`` does, in a third of the time: whoever ranks reads a profile.
event_of: Callable[[Iterable[Any]], ProfileEvent] = partial(tuple.__new__, ProfileEvent)


def encode_part(part: Part) -> bytes:
    """Return a part's bytes; equal parts have equal bytes."""
    if part.erased:
        return _ERASED

    columns: Any = [*zip(*part.events, strict=True)] or _NO_EVENTS
    times, entries, seqs, done_with, done = columns
    columns = [*zip(*part.shown, strict=True)] or _NO_SHOWINGS
    shown_times, shown_seqs, shown = columns
    # Often each item comes once, and all was done in one way.
    items: dict[str, int] = dict(zip(done_with, range(len(done_with)), strict=True))
    event_items: list[int] = []
    if len(items) < len(done_with):
        items = {}
        event_items = _numbered(done_with, items)
    shown_items = _numbered(shown, items)
    types = {kind: number for number, kind in enumerate(dict.fromkeys(done))}
    event_types = list(map(types.__getitem__, done)) if len(types) > 1 else []

    prefix = _common_beginning(items)
    stored = _Columns(
        prefix,
        [item[len(prefix) :] for item in items] if prefix else list(items),
        list(types),
        event_items,
        event_types,
        _differences(times),
        _unless_zero(list(map(sub, entries, times))),
        _unless_zero(list(seqs)),
        shown_items,
        _differences(shown_times),
        _unless_zero(list(shown_seqs)),
    )
    return _encoder.encode(stored)


def _number(name: str, known: dict[str, int]) -> int:
    """Return 0 for a name that is not known yet, else one more than its number."""
    number = known.get(name)
    if number is None:
        known[name] = len(known)
        return 0
    return number + 1


def decode_part(data: bytes) -> Part:
    """Return the part that these bytes are of.

    Raises:
        CodecError: they are no part's.
    """
    try:
        columns = _decoder.decode(data)
        if columns is None:
            return ERASED

        prefix, types = columns.prefix, columns.types
        if not columns.event_times:  # a log that only shows says nothing else
            return Part((), _showings(columns, 0))
        times, known = list(accumulate(columns.event_times, sub)), columns.event_items
        new = known.count(0) if known else len(times)
        items = [prefix + item for item in columns.items[:new]]
        fresh = iter(items)
        lags, seqs = columns.event_lags, columns.event_seqs or repeat(0)
        events = tuple(
            map(
                event_of,
                zip(
                    times,
                    map(add, times, lags) if lags else times,
                    seqs,
                    _named(known, items, fresh),
                    _typed(columns.event_types, types),
                    strict=False,
                ),
            )
        )

        shown = _showings(columns, new)

    except (*MALFORMED, IndexError, RuntimeError) as error:
        raise CodecError(f"this is no part of a profile: {error}", "profile") from error

    if len(events) != len(times):
        raise CodecError("this is no part of a profile: items are missing", "profile")
    return Part(events, shown)


def _showings(columns: _Columns, first: int) -> Showings:
    """Return what was shown; the first place of items that no event names is given."""
    return Showings(
        columns.shown_times,
        columns.shown_seqs,
        columns.shown_items,
        columns.items,
        first=first,
        prefix=columns.prefix,
    )


def _differences(values: Sequence[int]) -> list[int]:
    """Return the first value, and then how much less each is than the one before."""
    return [*values[:1], *map(sub, values, values[1:])]


def _numbered(names: Iterable[str], known: dict[str, int]) -> list[int]:
    """Return for each name 0 if it is not known yet, else one more than its number."""
    return _unless_zero([_number(name, known) for name in names])


def _named(numbers: list[int], items: list[str], fresh: Iterator[str]) -> Iterable[str]:
    """Return the names of numbers; of no numbers all that are new."""
    if not numbers:
        return fresh
    return [items[number - 1] if number else next(fresh) for number in numbers]


def _common_beginning(names: Iterable[str]) -> str:
    """Return what all names begin with."""
    first, last = min(names, default=""), max(names, default="")
    if first == last:
        return first
    length = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        length += 1
    return first[:length]


def _typed(numbers: list[int], types: list[str]) -> Iterator[str]:
    """Return the types of numbers; of no numbers the first, always."""
    return map(types.__getitem__, numbers) if numbers else repeat(types[0] if types else "")


def _unless_zero(values: list[int]) -> list[int]:
    return values if any(values) else []
