"""Records to bytes and back: one version byte, then msgpack. Whatever decodes is valid."""

import hashlib
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, get_args

import msgspec
import numpy as np

from bandits.errors import CodecError, InvalidPmfError, UnknownKindError
from bandits.log.records import (
    SERVED,
    ActivationRecord,
    ActivityRecord,
    Apprentice,
    ControlRecord,
    Credit,
    CutRecord,
    DecisionRecord,
    ErasureRecord,
    ItemsRecord,
    LogEntry,
    LogRecord,
    MergeInput,
    MergeRecord,
    MergeUsersRecord,
    PriorRecord,
    RerankedRecord,
    RewardRecord,
    RollbackRecord,
    RootRecord,
    Ruled,
    TickRecord,
    UnknownRecord,
    WarmStartRecord,
)
from bandits.page import STORED
from bandits.types import check_mass
from bandits.values import (
    MAX_EVENT_ID_BYTES,
    MAX_FEATURE,
    MAX_NUMBER,
    MAX_PLACES,
    MAX_SIGNAL_BYTES,
    MAX_STRENGTH,
    MAX_TIME_MS,
    FeatureMap,
)

VERSION = 1
MALFORMED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises of bytes that are not what they should be."""
POSITION = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")
ITEM_CHANGES = ("put", "patch", "delete")
MAX_COUNT = 1 << 53
"""Whole numbers up to here are exact in Redis's scripts."""

_HEAD = bytes((VERSION,))
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[LogRecord] = msgspec.msgpack.Decoder(LogRecord)
_decision_in: msgspec.msgpack.Decoder[DecisionRecord] = msgspec.msgpack.Decoder(DecisionRecord)
_kind_of: msgspec.msgpack.Decoder[list[Any]] = msgspec.msgpack.Decoder(list[Any])
KINDS = frozenset(str(kind.__struct_config__.tag) for kind in get_args(LogRecord))
"""The names that head the records of this build."""


def encode(record: LogRecord) -> bytes:
    """Return the bytes of a record."""
    return _HEAD + _encoder.encode(record)


def decode(data: bytes) -> LogRecord:
    """Return the record in ``data``. Fields that a later build has appended are passed over.

    Raises:
        UnknownKindError: a well-formed record of another kind or version.
        CodecError: malformed msgpack, or a record that contradicts itself.
    """
    if not data or data[0] != VERSION:
        _demand_known(data)
        raise CodecError(
            f"a record starts with version byte {VERSION}, not {data[:1]!r}", "version"
        )

    try:
        record = _decoder.decode(data[1:])
    except MALFORMED as error:
        _demand_known(data)
        raise CodecError(f"not a record: {error}") from error

    # What a type cannot say: whatever leaves here is valid.
    check = _checks.get(type(record))
    if check is not None:
        check(record)
    return record


def decode_valid(data: bytes) -> LogRecord:
    """Return the record in bytes that are known to be a valid one, without checking it."""
    return _decoder.decode(memoryview(data)[1:])


def _demand_known(data: bytes) -> None:
    """Raise UnknownKindError if this is a record as a later build would write it."""
    try:
        fields = _kind_of.decode(data[1:])
    except MALFORMED:
        return

    kind = fields[0] if fields and isinstance(fields[0], str) else ""
    if kind and (data[0] > VERSION or (data[0] == VERSION and kind not in KINDS)):
        said = f"a record of kind {kind[:40]!r} and version {data[0]} is none that this build knows"
        raise UnknownKindError(said, "kind", kind=kind)


def read_entry(
    entry_id: str, data: bytes, on_undecodable: Callable[[str, CodecError], None]
) -> LogEntry:
    """Return an entry of the log.

    One that does not decode says nothing but that time has passed, and reads as a tick; one of a
    kind that this build does not know reads as an UnknownRecord.

    Args:
        entry_id: its position.
        data: its bytes.
        on_undecodable: is told of an entry that does not decode.
    """
    try:
        return LogEntry(entry_id, decode(data))
    except UnknownKindError as error:
        # Whether it may be passed over, the version of the fold decides.
        on_undecodable(entry_id, error)
        return LogEntry(entry_id, UnknownRecord(error.kind))
    except CodecError as error:
        on_undecodable(entry_id, error)
        return LogEntry(entry_id, TickRecord())


def digest(data: bytes) -> str:
    """Return the name of a blob: 32 hex digits of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _no_position(position: str) -> CodecError:
    return CodecError(f"a log position is milliseconds-sequence, not {position!r}", "position")


def _check_rollback(record: RollbackRecord | RootRecord) -> None:
    if not POSITION.fullmatch(record.position):
        raise _no_position(record.position)


def _check_warm_start(record: WarmStartRecord) -> None:
    if record.through is not None and not POSITION.fullmatch(record.through):
        raise _no_position(record.through)


def _check_prior(record: PriorRecord) -> None:
    if not 0.0 < record.strength <= MAX_STRENGTH:
        raise CodecError(f"a strength is above 0, at most {MAX_STRENGTH:g}", "strength")


def _check_merge(record: CutRecord | MergeRecord) -> None:
    """Demand that numbers count from 1, and that each input names a position."""
    inputs: list[MergeInput] = []
    if isinstance(record, MergeRecord):
        inputs = [given for given in record.inputs if given is not None]

    numbers = (record.number, *(given.number for given in inputs))
    if not all(0 < number < MAX_COUNT for number in numbers):
        raise CodecError(f"a merge's number is from 1 on, below {MAX_COUNT}", "number")
    for given in inputs:
        if not POSITION.fullmatch(given.position):
            raise _no_position(given.position)


def _check_changes(record: ItemsRecord) -> None:
    if not record.changes:
        raise CodecError("at least one change", "changes")
    for at, change in enumerate(record.changes):
        if change.op not in ITEM_CHANGES:
            raise CodecError(
                f"an item is changed by {', '.join(ITEM_CHANGES)}, not by {change.op!r}",
                f"changes[{at}].op",
            )
        if not change.id:
            raise CodecError("an item's id is not empty", f"changes[{at}].id")


def _check_activity(record: ActivityRecord) -> None:
    if not (record.user and record.item and record.event_type):
        empty = next(each for each in ("user", "item", "event_type") if not getattr(record, each))
        raise CodecError("a text that is not empty", empty)
    if record.value is not None and not abs(record.value) <= MAX_NUMBER:  # also catches NaN
        raise CodecError(f"a number up to {MAX_NUMBER:g}, not {record.value}", "value")
    if record.time_ms is not None and not 0 <= record.time_ms <= MAX_TIME_MS:
        raise CodecError("milliseconds since 1970, before the year 10000", "time_ms")


def _check_pseudonyms(record: MergeUsersRecord | ErasureRecord) -> None:
    if not record.user or (isinstance(record, MergeUsersRecord) and not record.into):
        raise CodecError("a pseudonym is not empty", "user" if not record.user else "into")
    if isinstance(record, MergeUsersRecord) and record.user == record.into:
        raise CodecError("a user is merged into another, not into themselves", "into")


def _check_reranked(record: RerankedRecord) -> None:
    data = record.decision
    try:
        decision = _decision_in.decode(data[1:])
    except MALFORMED as error:
        raise CodecError(f"not a decision: {error}", "decision") from error
    if data[:1] != bytes((VERSION,)) or decision.event_id != record.event_id:
        raise CodecError("the bytes of a decision of this event_id", "decision")
    _check_decision(decision)


def _check_control(record: ControlRecord) -> None:
    for name, price in record.prices.items():
        if not abs(price) <= MAX_NUMBER:  # also catches NaN
            raise CodecError(f"a number up to {MAX_NUMBER:g}, not {price}", f"prices.{name}")


def _check_activation(record: ActivationRecord) -> None:
    _check_event_id(record.event_id)


def _check_event_id(event_id: str) -> None:
    size = len(event_id) if event_id.isascii() else len(event_id.encode(errors="replace"))
    if not 0 < size <= MAX_EVENT_ID_BYTES:
        raise CodecError(f"an event_id has 1 to {MAX_EVENT_ID_BYTES} bytes", "event_id")


def _check_reward(record: RewardRecord) -> None:
    _check_event_id(record.event_id)
    if not abs(record.value) <= MAX_NUMBER:  # also catches NaN
        raise CodecError(f"a reward is a number up to {MAX_NUMBER:g}, not {record.value}", "value")
    if record.slot is not None and record.slot < 0:
        raise CodecError("a slot is not negative", "slot")
    if record.signal is not None:
        size = len(record.signal.encode(errors="replace"))
        if not 0 < size <= MAX_SIGNAL_BYTES:
            raise CodecError(f"a signal has 1 to {MAX_SIGNAL_BYTES} bytes", "signal")


def _check_decision(record: DecisionRecord) -> None:
    _check_event_id(record.event_id)
    count, slots = len(record.action_ids), len(record.chosen)
    _check_chosen(record.action_ids, record.chosen, nothing_drawn=len(record.placed) > 0)

    if record.features is not None and len(record.features) != count:
        raise CodecError(f"features for {count} actions, not {len(record.features)}", "features")
    for source, data in record.scores.items():
        if len(data) != 4 * count or np.isinf(np.frombuffer(data, "<f4")).any():
            raise CodecError(f"{count} float32 scores, none infinite", f"scores.{source}")

    # A propensity is never repaired: what is not the PMF of a choice that can be is refused.
    _check_pmfs(record.pmf, slots, count, "pmf")
    for slot in range(slots):
        if not record.propensity(slot) > 0.0:
            raise CodecError("a chosen action has a positive propensity", "pmf")

    if record.credit is not None:
        _check_credit(record.credit, slots)
    if record.rules is not None:
        _check_rules(record.rules, slots, count)
    if record.apprentice is not None:
        _check_apprentice(record.apprentice, slots, count)
    _check_features(record)


def _check_chosen(ids: list[str], chosen: list[int], *, nothing_drawn: bool) -> None:
    """Demand actions, and a choice among them, unless nothing needs to have been drawn."""
    if not (ids or chosen) and nothing_drawn:
        return
    count, slots = len(ids), len(chosen)
    if count == 0 or len(set(ids)) != count:
        raise CodecError("actions are distinct, at least one", "action_ids")
    if slots == 0 or min(chosen) < 0 or max(chosen) >= count or len(set(chosen)) != slots:
        raise CodecError("at least one chosen index, distinct, within the actions", "chosen")


def _check_features(record: DecisionRecord) -> None:
    maps: Iterable[FeatureMap | None] = (
        (record.context, *record.features) if record.features else (record.context,)
    )
    for features in maps:
        if features:
            for name, value in features.items():
                if type(value) is float and not abs(value) <= MAX_FEATURE:
                    raise CodecError(f"features are numbers up to {MAX_FEATURE:g}", name)


def _check_credit(credit: Credit, slots: int) -> None:
    if len(credit.credited) != slots or not all(
        0 <= index < len(credit.sources) for index in credit.credited
    ):
        raise CodecError("one credited source per slot", "credit.credited")

    _check_pmfs(credit.pmf, slots, len(credit.sources), "credit.pmf")
    if not all(pmf[index] > 0.0 for pmf, index in zip(credit.pmfs(), credit.credited, strict=True)):
        raise CodecError("a credited source has a positive propensity", "credit.pmf")


def _check_rules(rules: Ruled, slots: int, count: int) -> None:
    if rules.now_ms is not None and not 0 <= rules.now_ms <= MAX_TIME_MS:
        raise CodecError("milliseconds since 1970, before the year 10000", "rules.now_ms")
    if not all(len(each.ids) <= each.count < MAX_COUNT for each in rules.removed.values()):
        raise CodecError("no more removed actions are named than were removed", "rules.removed")

    boosts = np.frombuffer(rules.boosts, np.uint8)
    if boosts.size not in (0, 4 * count) or not np.isfinite(boosts.view("<f4")).all():
        raise CodecError(f"{count} float32 boosts, each finite, or none", "rules.boosts")
    offsets = np.frombuffer(rules.page, np.uint8)
    rows, over = divmod(offsets.size, STORED.itemsize * max(count, 1))
    if over or rows > slots or np.isinf(offsets.view(STORED)).any():
        raise CodecError(
            f"{count} float16 for each of up to {slots} slots, none infinite", "rules.page"
        )

    places = [-1, *(placed.slot for placed in rules.placed), MAX_PLACES]
    if any(slot <= before for before, slot in pairwise(places)):
        raise CodecError(f"placed slots go upwards, below {MAX_PLACES}", "rules.placed")
    if not all(0 <= unplaced.slot < MAX_PLACES for unplaced in rules.unplaced):
        raise CodecError(f"slots are not negative, and below {MAX_PLACES}", "rules.unplaced")


def _check_apprentice(own: Apprentice, slots: int, count: int) -> None:
    """Demand that what the policy would have chosen is a choice that can be, of as many slots."""
    if own.served not in SERVED:
        raise CodecError(f"one of {', '.join(SERVED)}, not {own.served!r}", "apprentice.served")
    chosen = own.chosen
    indices = all(0 <= index < count for index in chosen)
    if len(chosen) != slots or len(set(chosen)) != slots or not indices:
        raise CodecError("one index per slot, distinct, within the actions", "apprentice.chosen")

    _check_pmfs(own.pmf, slots, count, "apprentice.pmf")
    pmfs = np.frombuffer(own.pmf, "<f8").reshape(slots, count)
    if not all(pmf[index] > 0.0 for pmf, index in zip(pmfs, chosen, strict=True)):
        raise CodecError("a chosen action has a positive propensity", "apprentice.pmf")


def _check_pmfs(data: bytes, rows: int, columns: int, target: str) -> None:
    """Demand that they are float64[rows, columns], each row a PMF."""
    if len(data) != 8 * rows * columns:
        raise CodecError(f"{rows} x {columns} float64, not {len(data)} bytes", target)

    for row in range(rows):
        try:
            check_mass(np.frombuffer(data, "<f8", columns, 8 * columns * row))
        except InvalidPmfError as error:
            raise CodecError(error.message, target) from error


_checks: dict[type, Callable[[Any], None]] = {
    DecisionRecord: _check_decision,
    RewardRecord: _check_reward,
    ActivationRecord: _check_activation,
    RollbackRecord: _check_rollback,
    RootRecord: _check_rollback,
    PriorRecord: _check_prior,
    WarmStartRecord: _check_warm_start,
    CutRecord: _check_merge,
    MergeRecord: _check_merge,
    ItemsRecord: _check_changes,
    ActivityRecord: _check_activity,
    MergeUsersRecord: _check_pseudonyms,
    ErasureRecord: _check_pseudonyms,
    ControlRecord: _check_control,
    RerankedRecord: _check_reranked,
}
