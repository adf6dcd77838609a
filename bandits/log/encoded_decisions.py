"""Decisions as a fold has them: their bytes, and what it asks of every one.

A fold asks little of a decision: what joins it with its rewards, and later the features of what it
chose. The rest stays encoded. Which bytes are a valid record, the codec alone says: what the
compiled scan is not sure of is decoded.
"""

from collections.abc import Callable, Iterator, Sequence

import mmh3
import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import CodecError
from bandits.kernels.hashes import hash_parts
from bandits.kernels.lessons import find_chosen, find_shown
from bandits.kernels.records import (
    DECISION,
    DEFERRED,
    HAS_PLACED,
    HOLDOUT,
    NAMED_BEFORE,
    REWARD,
    scan_records,
)
from bandits.log.codec import VERSION, decode_valid, read_entry
from bandits.log.records import (
    DecisionRecord,
    EncodedDecision,
    LogEntry,
    LogRecord,
    Placed,
    UnknownRecord,
)

Decision = DecisionRecord | EncodedDecision
DECISIONS = (DecisionRecord, EncodedDecision)


def whole_record(decision: Decision) -> DecisionRecord:
    """Return the record of a decision."""
    if isinstance(decision, DecisionRecord):
        return decision
    record = decode_valid(decision.data)
    assert isinstance(record, DecisionRecord)  # noqa: S101 - its bytes were scanned
    return record


class _Choice(msgspec.Struct, array_like=True, tag="decision", gc=False):
    """The fields of a DecisionRecord up to ``chosen``, of which two are decoded."""

    event_id: msgspec.Raw
    policy: msgspec.Raw
    spec: msgspec.Raw
    snapshot_id: msgspec.Raw
    catalogue: msgspec.Raw
    context: msgspec.Raw
    action_ids: list[str]
    features: msgspec.Raw
    scores: msgspec.Raw
    pmf: msgspec.Raw
    chosen: list[int]


_choice = msgspec.msgpack.Decoder(_Choice)


def choice_of(decision: Decision) -> tuple[list[str], list[int]]:
    """Return a decision's actions, and the indices of those that were chosen."""
    if isinstance(decision, DecisionRecord):
        return decision.action_ids, decision.chosen
    choice = _choice.decode(memoryview(decision.data)[1:])
    return choice.action_ids, choice.chosen


def action_hash(action_id: str) -> int:
    """Return 64 bits that stand for an action's id."""
    hashed: int = mmh3.hash64(action_id.encode(errors="surrogatepass"))[0]
    return hashed


def hashes_at(data: NDArray[np.uint8], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the hashes of ids, see ``action_hash``, that lie in some bytes, int64[n].

    Args:
        data: the bytes.
        bounds: int64[n, 2], where each id begins and ends.
    """
    out = np.empty(len(bounds), np.uint64)
    hash_parts(data, bounds, out)
    return out.view(np.int64)


def chosen_hashes(records: Sequence[Decision]) -> NDArray[np.int64]:
    """Return the hashes of what some decisions chose, slot by slot, one decision after the other.

    See ``action_hash``.
    """
    encoded = [each for each in records if isinstance(each, EncodedDecision)]
    if not encoded or len(encoded) < len(records):
        chosen = (choice_of(each) for each in records)
        hashes = [action_hash(ids[index]) for ids, indices in chosen for index in indices]
        return np.array(hashes, np.int64)

    parts, counts = [each.data for each in encoded], np.array([each.slots for each in encoded])
    of_slots = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    data = np.frombuffer(b"".join(parts), np.uint8)
    found, _ = find_chosen(data, np.repeat(starts_of(parts)[:-1], counts), of_slots)
    return hashes_at(data, found[:, :2])


def shown_to(decision: Decision) -> tuple[str | None, list[str]]:
    """Return the pseudonym of the user that a decision is for, if any, and what was shown.

    What it chose comes first, slot by slot, then what was placed on its page.
    """
    (shown,) = shown_to_each([decision])
    return shown


def shown_to_each(decisions: Sequence[Decision]) -> list[tuple[str | None, list[str]]]:
    """Return of each decision what ``shown_to`` does of one."""
    plain = [
        each for each in decisions if isinstance(each, EncodedDecision) and not each.has_placed
    ]
    found = iter(_shown_by_plain(plain) if plain else ())
    if len(plain) == len(decisions):
        return list(found)
    return [
        next(found)
        if isinstance(each, EncodedDecision) and not each.has_placed
        else _shown_by_record(whole_record(each))
        for each in decisions
    ]


def _shown_by_record(record: DecisionRecord) -> tuple[str | None, list[str]]:
    return record.user, [] if record.user is None else record.shown()


def _shown_by_plain(
    decisions: Sequence[EncodedDecision],
) -> Iterator[tuple[str | None, list[str]]]:
    parts, slots = [each.data for each in decisions], [each.slots for each in decisions]
    joined, starts = b"".join(parts), starts_of(parts)[:-1]
    users, chosen = find_shown(np.frombuffer(joined, np.uint8), starts, np.array(slots))

    # One text of which the others are cut; what is not ASCII is cut of the bytes.
    text = joined.decode("latin-1") if joined.isascii() else ""
    texts = [
        text[begins:ends] if text else joined[begins:ends].decode()
        for begins, ends in chosen.tolist()
    ]
    at = 0
    for (begins, ends), count in zip(users.tolist(), slots, strict=True):
        if not ends:
            yield None, []
        elif text:
            yield text[begins:ends], texts[at : at + count]
        else:
            yield joined[begins:ends].decode(), texts[at : at + count]
        at += count


def placed_of(decision: Decision) -> Sequence[Placed]:
    """Return what was placed on a decision's page."""
    if isinstance(decision, EncodedDecision) and not decision.has_placed:
        return ()
    return whole_record(decision).placed


def starts_of(parts: Sequence[bytes]) -> NDArray[np.int64]:
    """Return where each of R parts begins when they are joined, and the end, int64[R + 1]."""
    starts = np.zeros(len(parts) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, parts), np.int64, len(parts)), out=starts[1:])
    return starts


def read_entries(
    entries: Sequence[tuple[str, bytes]], on_undecodable: Callable[[str, CodecError], None]
) -> list[LogEntry]:
    """Return entries of the log, decisions encoded; else as ``read_entry`` of each.

    Args:
        entries: the position and the bytes of each.
        on_undecodable: is told of an entry that does not decode.
    """
    parts = [data for _, data in entries]
    joined = b"".join(parts)
    if not joined:
        return [read_entry(entry_id, data, on_undecodable) for entry_id, data in entries]

    kinds, said = scan_records(np.frombuffer(joined, np.uint8), starts_of(parts), VERSION)
    names: dict[str, str] = {}
    spec = catalogue = ""

    made: list[LogEntry] = []
    columns = (said[:, column].tolist() for column in (0, 1, 6, 7))
    for row, ((entry_id, data), kind, begins, ends, slots, flags) in enumerate(
        zip(entries, kinds.tolist(), *columns, strict=True)
    ):
        record: LogRecord | UnknownRecord | EncodedDecision
        if kind == DECISION:
            event_id = joined[begins:ends].decode()
            # Few specs and catalogues are in force at a time: each name is kept once.
            if not flags & NAMED_BEFORE:
                bounds = said[row, 2:6].tolist()
                spec = _cut(joined, bounds[0], bounds[1], names)
                catalogue = _cut(joined, bounds[2], bounds[3], names)
            record = EncodedDecision(
                data,
                event_id,
                spec,
                catalogue,
                slots,
                flags & DEFERRED > 0,
                flags & HOLDOUT > 0,
                flags & HAS_PLACED > 0,
            )
        elif kind == REWARD:
            record = decode_valid(data)
        else:
            made.append(read_entry(entry_id, data, on_undecodable))
            continue
        made.append(LogEntry(entry_id, record))
    return made


def _cut(data: bytes, begins: int, ends: int, names: dict[str, str]) -> str:
    """Return the text between two places; equal ones are one object."""
    name = data[begins:ends].decode()
    return names.setdefault(name, name)
