"""An archive's entries as a join takes them: the light columns of a piece, in order."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bandits.errors import BanditloopError, SpecError
from bandits.kernels import joins
from bandits.log.join import JoinRule
from bandits.log.join_rule import UNNAMED
from bandits.log.positions import START, log_order, position_before
from bandits.log.records import BuildRecord, slots_between
from bandits.log.versions import SIGNALS_SINCE, fold_version
from bandits.types import Float64
from policies.archive.archive import ArchiveReader
from policies.fold.checkpoint import Relearned
from policies.fold.relearning import weighed_by
from policies.spec import PolicySpec, decode_spec
from simulator.logs.archive.entries import (
    UNKNOWN_ACTION,
    Bools,
    Int32,
    Int64,
    JoinEntries,
    offsets_of,
)
from simulator.logs.archive.features import coded
from simulator.logs.archive.rules import evaluation_rule, relearned_in, spec_in_force
from simulator.logs.archive.settled import EVERYTHING, keys_of

LIGHT = [
    *("ms", "kind", "event_id", "spec", "slots", "deferred"),
    *("reward", "reward_id", "slot", "action_id", "signal", "placed"),
]
"""The columns that a join reads; positions beside them only where a piece begins or ends."""
Ids = Callable[[], pa.StringArray]
"""Gives the positions of the entries of a batch."""
BEFORE_PIECE = -(1 << 62)
"""Where numbers begin of entries before a piece."""
INT32_MAX = 2**31 - 1
KINDS = {
    "decision": joins.DECISION,
    "reward": joins.REWARD,
    "activation": joins.ACTIVATION,
    "spec": -1,
    "build": -2,
    "undecodable": -3,
}
"""Kinds that matter to a join; negative ones change what follows, or are refused."""
NOBODY_WAITS = 0
"""The number of the rule by which nothing waits for its decision."""
_NO_WINDOW = JoinRule(window_s=0.0)


class PieceBounds(Protocol):
    """The piece that is read: see ArchivePiece."""

    after: str
    through: str | None
    start: str
    rule: JoinRule
    window_s: float | None
    fold: int
    columns: Sequence[str]
    weigh_by: PolicySpec | None


@dataclass(slots=True, eq=False)
class EntryReader:
    """Reads the entries of a piece, two windows before it and until its windows are closed.

    Attributes:
        refuse: Told the position and the error of each entry that is no valid row.
        now: Time of the last entry that was read.
        next: The number of the next.
        end: The number of the first entry past the piece, once it was read.
        era: How often those that waited for their decision were given up.
        last_close: When the last window of the piece closes, of those that were read.
        rules: By number; the first is of those that do not wait.
        signals: The numbers of signals that rewards have named; that of naming none is 0.
        came: float64[2, signals or fewer], of the piece's rewards, by signal: how many came, and
            the sum of their values.
    """

    reader: ArchiveReader
    piece: PieceBounds
    refuse: Callable[[str, BanditloopError], None]
    now: int = 0
    next: int = BEFORE_PIECE
    end: int = EVERYTHING
    era: int = 0
    last_close: int = 0
    rules: list[JoinRule] = field(default_factory=lambda: [_NO_WINDOW])
    signals: dict[str, int] = field(default_factory=lambda: {UNNAMED: 0})
    came: Float64 = field(default_factory=lambda: np.zeros((2, 1)))
    _in_force: int = NOBODY_WAITS
    _fold: int = 1
    _relearned: Relearned | None = None
    _looked: bool = False

    # The numbers of rules by spec, as decisions name it and as an entry says it.
    _named: dict[str, int | SpecError] = field(default_factory=dict)
    _entered: dict[str, int | None] = field(default_factory=dict)
    _actions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with what is in force where the piece is first read."""
        self._in_force, self._fold = self._numbered(self.piece.rule), self.piece.fold

    def _numbered(self, rule: JoinRule) -> int:
        if rule not in self.rules:
            self.rules.append(rule)
        return self.rules.index(rule)

    def _number_of(self, digest: str) -> int | SpecError:
        """Return the rule of the decisions that name a spec, or why it is none."""
        if digest not in self._named:
            try:
                spec = decode_spec(self.reader.blob(digest))
                self._named[digest] = self._numbered(self._shortened(self._rule_of(digest, spec)))
            except SpecError as error:
                self._named[digest] = error
        return self._named[digest]

    def _rule_of(self, digest: str, spec: PolicySpec) -> JoinRule:
        """Return how rewards join the decisions of a spec, as whoever learned the log last says.

        Or whoever asks.
        """
        if self.piece.weigh_by is not None:
            return weighed_by(spec, self.piece.weigh_by)

        # Where a spec weighs no signals, none came that another would weigh.
        if spec.signals is msgspec.UNSET:
            return spec.rule
        if not self._looked:
            self._relearned, self._looked = relearned_in(self.reader), True
        relearned = self._relearned
        if relearned is None or digest not in relearned.specs:
            return spec.rule
        return weighed_by(spec, decode_spec(self.reader.blob(relearned.by)))

    def _shortened(self, rule: JoinRule) -> JoinRule:
        return evaluation_rule(rule, self.piece.window_s)

    @property
    def light(self) -> list[str]:
        """The columns to read: positions tell what is of the piece, unless it is all of the log."""
        is_all = self.piece.after == START and self.piece.through is None
        return LIGHT if is_all else ["id", *LIGHT]

    def sequence(self, first: int, count: int, ids: Ids) -> Int64:
        """Number entries from ``first`` on; the piece's first is 0.

        Args:
            first: the number of the first, if it is not before the piece.
            count: how many there are.
            ids: gives their positions.
        """
        out = first + np.arange(count)
        if first < 0:
            before = 0
            if self.piece.after != START:
                before = _places_through(ids(), self.piece.after)
            out[before:] = np.arange(count - before)
        return out

    def read(self, batch: pa.RecordBatch, ids: Ids) -> JoinEntries:
        """Return the entries of a batch that matter to the join.

        Args:
            batch: the columns of ``light``.
            ids: gives the positions of its entries.
        """
        count, names = len(batch), coded(batch["kind"])
        sequence = self.sequence(self.next, count, ids)
        if self.end == EVERYTHING and self.piece.through is not None:
            owned = _places_through(ids(), self.piece.through)
            if owned < count:
                self.end = int(sequence[owned]) if sequence[owned] > 0 else 0
        self.next = int(sequence[-1]) + 1

        kinds = np.array([KINDS.get(name, 0) for name in names.dictionary.to_pylist()], np.int8)
        kind: NDArray[np.int8] = kinds[names.indices.to_numpy()]
        ms = batch["ms"].to_numpy()
        self.now = int(ms[-1])

        # A decision has its spec's rule; what waits for a decision does so by the rule in force.
        own, refused = self._rules_of(batch["spec"], kind == joins.DECISION)
        rule, era, fold = (np.zeros(count, np.int32) for _ in range(3))
        at = 0
        for row in np.flatnonzero((kind < 0) | (own < 0)).tolist():
            rule[at : row + 1], era[at : row + 1], fold[at : row + 1] = self._in_state()
            at = row + 1
            if own[row] < 0:
                # It says only that time has passed.
                self.refuse(ids()[row].as_py(), refused[int(own[row])])
                kind[row] = 0
            else:
                self._change(int(kind[row]), ids()[row].as_py(), batch["spec"][row].as_py())
        rule[at:], era[at:], fold[at:] = self._in_state()

        # By fold 1 no activation waits.
        rule[(kind == joins.ACTIVATION) & (fold == 1)] = NOBODY_WAITS
        rule = np.where(kind == joins.DECISION, own, rule)
        # What it names, no build of before read.
        signal = _numbered(coded(batch["signal"]), self.signals, UNNAMED)
        self._count(signal, (kind == joins.REWARD) & self._mine(sequence), batch["reward"])
        signal[fold < SIGNALS_SINCE] = 0
        return self._entries(batch, kind, ms, sequence, rule, era, signal)

    def _mine(self, sequence: Int64) -> Bools:
        """Return which entries are of the piece."""
        mine: Bools = (sequence >= 0) & (sequence < self.end)
        return mine

    def _count(self, signal: Int32, counted: Bools, values: pa.Array) -> None:
        """Count rewards by signal."""
        if len(self.signals) > self.came.shape[1]:
            self.came = np.pad(self.came, ((0, 0), (0, len(self.signals) - self.came.shape[1])))
        named, size = signal[counted], self.came.shape[1]
        self.came[0] += np.bincount(named, minlength=size)
        self.came[1] += np.bincount(named, _numbers_of(values, 0.0)[counted], size)

    def _in_state(self) -> tuple[int, int, int]:
        return self._in_force, self.era, self._fold

    def _rules_of(
        self, specs: pa.StringArray, decisions: Bools
    ) -> tuple[Int32, dict[int, SpecError]]:
        """Return the rules of decisions, 0 for other entries, and the errors of negative ones."""
        out, refused = np.zeros(len(specs), np.int32), dict[int, SpecError]()
        named = coded(specs)
        codes = pc.fill_null(named.indices, -1).to_numpy()[decisions]
        numbers = np.zeros(len(named.dictionary), np.int32)
        for code in np.unique(codes).tolist():
            number = self._number_of(named.dictionary[code].as_py())
            if isinstance(number, SpecError):
                refused[-1 - len(refused)] = number
                number = -len(refused)
            numbers[code] = number
        out[decisions] = numbers[codes]
        return out, refused

    def _change(self, kind: int, position: str, digest: str | None) -> None:
        """Note what an entry changes for those that follow."""
        if kind == KINDS["spec"] and digest is not None:
            # A spec that the learner refused changes nothing: the one before stays in force.
            if digest not in self._entered:
                spec = spec_in_force(self.reader, digest)
                number = None if spec is None else self._numbered(self._shortened(spec.rule))
                self._entered[digest] = number
            number = self._entered[digest]
            self._in_force = self._in_force if number is None else number
            return

        # Only these are decoded: the build that the log says, and why an entry cannot be read.
        kinds = ["build"] if kind == KINDS["build"] else None
        for entry in self.reader.entries(
            position_before(position), position, kinds=kinds, on_undecodable=self.refuse
        ):
            if isinstance(entry.record, BuildRecord):
                version = fold_version(entry.record.build)
                self.era += version == 1 < self._fold
                self._fold = version

    def _entries(
        self,
        batch: pa.RecordBatch,
        kind: NDArray[np.int8],
        ms: Int64,
        sequence: Int64,
        rule: Int32,
        era: Int32,
        signal: Int32,
    ) -> JoinEntries:
        """Return the decisions, rewards and activations of a batch."""
        # Mostly there is nothing else.
        joined = kind > 0
        if not joined.all():
            batch, era = batch.filter(pa.array(joined)), era[joined]
            kind, ms, sequence, rule = kind[joined], ms[joined], sequence[joined], rule[joined]
            signal = signal[joined]
        decisions = kind == joins.DECISION

        mine = decisions & self._mine(sequence)
        closes = ms[mine] + self.windows()[rule[mine]]
        self.last_close = max(self.last_close, int(closes.max(initial=0)))

        slots = np.where(decisions, _numbers_of(batch["slots"], 0), 0).astype(np.int32)
        slot = np.minimum(_numbers_of(batch["slot"], joins.NO_SLOT), INT32_MAX)
        named = coded(batch["action_id"])
        return JoinEntries(
            sequence=sequence,
            kind=kind,
            ms=ms,
            rule=rule,
            era=era,
            deferred=_numbers_of(batch["deferred"], False).astype(np.bool_),
            done=np.zeros(len(kind), np.bool_),
            slots=slots,
            value=_numbers_of(batch["reward"], 0.0),
            signal=signal,
            slot=slot.astype(np.int32),
            action=self.actions_of(named),
            event=batch["event_id"],
            key=keys_of(batch["event_id"]),
            reward=batch["reward_id"],
            chosen=np.full(int(slots.sum()), UNKNOWN_ACTION, np.int32),
            on_page=_on_page(slots, batch["placed"]),
        )

    def actions_of(self, named: pa.DictionaryArray) -> Int32:
        """Return the numbers of actions, -1 for null."""
        return _numbered(named, self._actions)

    def windows(self) -> Int64:
        """Return the windows by rule, in milliseconds."""
        return np.array([rule.window_ms for rule in self.rules], np.int64)


def _numbered(named: pa.DictionaryArray, known: dict[str, int], null: str | None = None) -> Int32:
    """Return the numbers of texts, those of new ones added.

    Args:
        named: the texts.
        known: numbers by text.
        null: the text that null stands for; None: its number is -1.
    """
    codes = pc.fill_null(named.indices, -1).to_numpy()
    last = -1 if null is None else known[null]
    numbers: Int32 = np.full(len(named.dictionary) + 1, last, np.int32)
    for code in np.unique(codes[codes >= 0]).tolist():
        numbers[code] = known.setdefault(named.dictionary[code].as_py(), len(known))
    found: Int32 = numbers[codes]
    return found


def _on_page(slots: Int32, placed: pa.Array) -> Int32:
    """Return of each slot that was drawn which of its page it is, int32[S]; see JoinEntries.

    Args:
        slots: int32[n], how many each entry has.
        placed: what was placed on its page.
    """
    if placed.null_count == len(placed):
        return np.empty(0, np.int32)
    begins = offsets_of(slots)
    on_page = np.arange(begins[-1]) - np.repeat(begins[:-1], slots)
    for row in pc.indices_nonzero(placed.is_valid()).to_pylist():
        taken = [each["slot"] for each in placed[row].as_py()]
        on_page[begins[row] : begins[row + 1]] = slots_between(taken, int(slots[row]))
    return on_page.astype(np.int32)


def _places_through(ids: pa.StringArray, position: str) -> int:
    """Return how many entries lie up to a position, itself included."""
    return bisect_right(
        range(len(ids)), log_order(position), key=lambda i: log_order(ids[i].as_py())
    )


def _numbers_of(column: pa.Array, otherwise: Any) -> NDArray[Any]:
    """Return a column of numbers, and something else where there is none."""
    filled = pc.fill_null(column, otherwise)
    values: NDArray[Any] = filled.to_numpy(zero_copy_only=False)
    return values
