"""The newest decisions of a policy, a page at a time."""

import heapq
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from banditloop_client.console_schemas import DecisionsPage, DecisionSummary
from bandits.errors import InvalidFieldError
from bandits.log.encoded_decisions import DECISIONS, whole_record
from bandits.log.positions import log_order, position_after
from bandits.log.records import DecisionRecord, EncodedDecision
from policies.explain.looked_at import chosen_slots, placed_items
from serve_app.admin.decided.joining import CameOf, came_of
from serve_app.store.history import History

MOST_LOOKED = 50_000
"""Entries that are looked at for one page, where hardly any are of the user who is asked about."""
MOST_JOINED = 20_000
"""Entries that are looked at for the rewards of a page."""
_PLACE = re.compile(r"([0-9]{1,15}-[0-9]{1,19})(?:\.([0-9]{1,5}))?")


class _Place(NamedTuple):
    """Where an entry is: its partition breaks ties of logs that have the same position."""

    ms: int
    sequence: int
    partition: int

    @classmethod
    def of(cls, position: str, partition: int) -> "_Place":
        return cls(*log_order(position), partition)

    def __str__(self) -> str:
        return f"{self.ms}-{self.sequence}.{self.partition}"


class _Listed(NamedTuple):
    place: _Place
    entry: str
    record: DecisionRecord


def decisions_page(
    histories: Sequence[History],
    *,
    limit: int,
    before: str = "",
    users: Collection[str] | None = None,
) -> DecisionsPage:
    """Return the newest decisions, with what has come of them.

    Args:
        histories: the policy's logs, by partition.
        limit: how many at most.
        before: the ``next`` of the page before; "": from the newest on.
        users: only decisions of these pseudonyms; None: of anybody.

    Raises:
        InvalidFieldError: ``before`` is none.
        LogGapError, ArchiveError: a log cannot be read.
    """
    until = None if not before else _place_of(before)
    logs = [_backwards(history, partition, until) for partition, history in enumerate(histories)]
    needles = None if users is None else [name.encode() for name in users]

    found: list[_Listed] = []
    last: _Place | None = None
    looked, more = 0, False
    for place, entry, record in heapq.merge(*logs, key=lambda each: each[0], reverse=True):
        if len(found) == limit or looked == MOST_LOOKED:
            more = True
            break
        looked, last = looked + 1, place
        if record is not None and _is_of(record, needles):
            whole = whole_record(record)
            if users is None or whole.user in users:
                found.append(_Listed(place, entry, whole))

    came = _came_of(histories, found)
    summaries = [_summary(each, came[each.place]) for each in found]
    return DecisionsPage(summaries, str(last) if more and last is not None else None)


def _place_of(text: str) -> _Place:
    match = _PLACE.fullmatch(text)
    if match is None:
        raise InvalidFieldError("give the `next` of the page before, as it is", "before")
    return _Place.of(match[1], int(match[2] or 0))


def _backwards(
    history: History, partition: int, until: _Place | None
) -> Iterator[tuple[_Place, str, DecisionRecord | EncodedDecision | None]]:
    before = None
    if until is not None:
        before = f"{until.ms}-{until.sequence}"
        before = position_after(before) if partition < until.partition else before
    for entry in history.backwards(before):
        record = entry.record if isinstance(entry.record, DECISIONS) else None
        yield _Place.of(entry.id, partition), entry.id, record


def _is_of(record: DecisionRecord | EncodedDecision, needles: Sequence[bytes] | None) -> bool:
    """Return whether a decision may be of somebody, by its bytes: few have to be decoded."""
    if needles is None or isinstance(record, DecisionRecord):
        return True
    return any(each in record.data for each in needles)


def _came_of(histories: Sequence[History], found: Sequence[_Listed]) -> dict[_Place, CameOf]:
    out: dict[_Place, CameOf] = {}
    for partition, history in enumerate(histories):
        mine = [each for each in found if each.place.partition == partition]
        entries = {each.entry: (each.record.event_id, each.record.spec) for each in mine}
        came = came_of(history, entries, most=MOST_JOINED)
        out |= {each.place: came[each.entry] for each in mine}
    return out


def _summary(listed: _Listed, came: CameOf) -> DecisionSummary:
    record = listed.record
    return DecisionSummary(
        record.event_id,
        listed.entry,
        datetime.fromtimestamp(listed.place.ms / 1000, UTC),
        chosen_slots(record),
        came.outcome,
        came.reward,
        placed_items(record),
        record.holdout,
        listed.place.partition,
    )
