"""Reading the records of decisions that a fold does not keep in memory, from the log behind it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from bandits.errors import BanditloopError, CodecError
from bandits.log.encoded_decisions import DECISIONS, Decision
from bandits.log.positions import log_order, position_before
from bandits.log.records import EncodedDecision, LogEntry
from bandits.log.remembered_decisions import RememberedDecision
from policies.fold.checkpoint import FoldState, Past
from policies.fold.put_by import PutBy

END = f"{2**64 - 1}-{2**64 - 1}"
"""Past every entry."""
PASSED, NEAR = 4000, 200
"""So many entries are read on to the next decision that is wanted; then it is looked for.

The first of a window that closes, the second of a correction.
"""


class ReadBehind:
    """Reads one log behind its fold.

    Windows of one length close in the order of the log. So for each length there is a reader that
    goes through the log once, as far behind the fold as the window is long. What chosen actions
    alone teach is put by before it is forgotten (see put_by.py), and is read from there.

    Args:
        past: the log.
        teaches_alone: whether what decisions of a spec chose is all that is learned of them, by
            digest; then no more is read of them when they close.
    """

    def __init__(
        self, past: Past, teaches_alone: Callable[[str], bool] = lambda _spec: False
    ) -> None:
        self._past, self._teaches_alone = past, teaches_alone
        self._readers: dict[tuple[int, bool], Iterator[LogEntry]] = {}
        self._fetched: dict[str, Decision] = {}
        self._put_by = PutBy(past.aside)

    def put_by(
        self, decisions: Sequence[RememberedDecision], records: Sequence[Decision]
    ) -> NDArray[np.int64] | None:
        """Put by what decisions teach when they close.

        Args:
            decisions: n of them, in the order of the log.
            records: theirs, which are kept no longer.

        Returns:
            The hashes of what they chose, slot by slot, where these were found on the way.
        """
        places: dict[int, list[int]] = {}
        rule, spec, own = None, "", None
        for place, (decision, record) in enumerate(zip(decisions, records, strict=True)):
            if type(record) is not EncodedDecision:
                continue
            if decision.rule is not rule or record.spec != spec:
                rule, spec = decision.rule, record.spec
                # As they arrive, decisions have taught before they close.
                alone = rule.learn == "at_close" and self._teaches_alone(spec)
                own = places.setdefault(rule.window_ms, []) if alone else None
            if own is not None:
                own.append(place)

        hashes = None
        for window_ms, own in places.items():
            positions = [decisions[place].position for place in own]
            whole = [each for place in own if isinstance(each := records[place], EncodedDecision)]
            hashes = self._put_by.add(window_ms, positions, whole)
        return hashes if all(len(own) == len(records) for own in places.values()) else None

    def at_hand(
        self, positions: list[str], window_ms: int, spec: str
    ) -> Sequence[EncodedDecision] | None:
        """Return what decisions teach whose windows close, of the first ones that were put by.

        Args:
            positions: theirs, one or more, that follow each other in the log.
            window_ms: their windows' length.
            spec: the digest of theirs.

        Returns:
            Nothing: the first is to be asked for. None: so is each of them.
        """
        return self._put_by.take_next(window_ms, positions) if self._teaches_alone(spec) else None

    def closing(self, position: str, window_ms: int, spec: str) -> Decision:
        """Return the record of a decision whose window closes, or what of it teaches.

        Args:
            position: the decision's; those of one window come in the order of the log.
            window_ms: the window's length.
            spec: the digest of the decision's.

        Raises:
            CodecError: the log holds no decision there; or whatever reading the log raises.
        """
        alone = self._teaches_alone(spec)
        put_by = self._put_by.take(window_ms, position) if alone else None
        if put_by is not None:
            return put_by

        # A reader that fails, say because files were compacted meanwhile, is made anew once.
        reader, record = self._readers.pop((window_ms, alone), None), None
        if reader is not None:
            with contextlib.suppress(BanditloopError, OSError):
                record = _read_on(reader, position)
        if record is None or reader is None:
            read = self._past.taught if alone else self._past.behind
            reader = iter(read(position_before(position), END))
            record = _demand(_read_on(reader, position), position)

        self._readers[window_ms, alone] = reader
        return record

    def at(self, position: str) -> Decision:
        """Return the record of a decision, wherever it is.

        Raises:
            CodecError: the log holds no decision there; or whatever reading the log raises.
        """
        record = self._fetched.get(position)
        return self._read(position) if record is None else record

    def fetch(self, positions: Iterable[str]) -> None:
        """Have some records at hand, and no others; what cannot be read is left to ``at``.

        Args:
            positions: of the decisions.
        """
        # In the order of the log, so that what is near is read at once.
        self._fetched, reader = {}, None
        with contextlib.suppress(BanditloopError, OSError):
            for position in sorted(set(positions), key=log_order):
                record = None if reader is None else _read_on(reader, position, NEAR)
                if record is None:
                    reader = iter(self._past.behind(position_before(position), END))
                    record = _demand(_read_on(reader, position), position)
                self._fetched[position] = record

    def _read(self, position: str) -> Decision:
        entries = iter(self._past.behind(position_before(position), position))
        return _demand(_read_on(entries, position), position)


def _read_on(reader: Iterator[LogEntry], position: str, limit: int = PASSED) -> Decision | None:
    """Return the decision at a position, if a reader comes upon it within ``limit`` entries."""
    wanted = log_order(position)
    for number, entry in enumerate(reader):
        if entry.id == position:
            return entry.record if isinstance(entry.record, DECISIONS) else None
        if number >= limit or log_order(entry.id) > wanted:
            return None
    return None


def _demand(record: Decision | None, position: str) -> Decision:
    if record is None:
        raise CodecError(f"the log holds no decision at {position}", "position")
    return record


def inherited_records(state: FoldState, past: Past) -> dict[str, Decision]:
    """Return, by position, the records of what an earlier build's checkpoint remembered.

    Args:
        state: a checkpoint's.
        past: the log behind it.
    """
    inherited = state.join.inherited
    needed = None if inherited is None else inherited.needed()
    if inherited is None or needed is None:
        return {}

    positions = {each.position for each in (*inherited.open, *inherited.correctable)}
    return {
        entry.id: entry.record
        for entry in past.entries(position_before(needed), inherited.through)
        if entry.id in positions and isinstance(entry.record, DECISIONS)
    }
