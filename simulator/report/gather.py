"""A policy's decisions with what they earned, a few numbers each, as a report needs them.

They are read from the archive by columns, joined with their rewards as replay joins them. What
follows from them is computed afterwards: a decision takes some 30 bytes, so that ten million fit.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow.fs import FileSystem

from bandits.errors import BanditloopError, ReplayError
from bandits.features.hashing import splitmix64
from bandits.log.positions import START, is_after, log_order
from bandits.types import Float64
from policies.archive.archive import ArchiveReader
from policies.spec import Holdout, PolicySpec, decode_spec
from simulator.logs.actions.columns import FeatureColumns
from simulator.logs.archive.batches import settled_stretches
from simulator.logs.archive.decided import Decided, DecisionReader
from simulator.logs.archive.features import coded
from simulator.logs.archive.joined import ArchiveJoin
from simulator.logs.archive.pieces import policy_pieces
from simulator.logs.archive.read_ahead import read_ahead
from simulator.logs.archive.settled import keys_of
from simulator.logs.rows import NO_WAITING, Waiting
from simulator.report.growing import GrowingColumn, in_places
from simulator.report.numbering import UnitNumbers, text_hashes

Int64 = NDArray[np.int64]
Root: TypeAlias = "str | FileSystem"

READ = ("catalogue", "action", "actions", "holdout", "spec", "user")
"""The columns that every report reads, beside those of the join."""
POLICY, HOLDOUT, UNSERVED, EARLIER = range(4)
"""Groups of decisions. Unserved: the holdout's policy could not serve it. Earlier: of a comparison,
what was decided under a spec with another holdout, which is not compared."""
NO_UNIT = -1
"""The unit of a decision that is one by itself."""
MOST_VALUES = 12
"""Different values that a field of the context may have to divide decisions into segments."""
MOST_FIELDS = 8
"""Fields of the context that are looked at."""


class SignalCount(NamedTuple):
    """Reward events of one signal: how many came, and the sum of their values."""

    events: int
    total: float


@dataclass(slots=True)
class FieldCodes:
    """One field of the context: the codes of its values, by batch, -1 where it has none."""

    values: dict[str, int] = field(default_factory=dict)
    column: GrowingColumn = field(default_factory=lambda: GrowingColumn(np.int8))


@dataclass(slots=True, eq=False)
class PolicyRows:
    """n decisions of a policy, in the order of time.

    Attributes:
        spec: the newest spec in the range; None: no decision names one.
        ms: int64[n], when.
        unit: int32[n], the number of each one's unit, or NO_UNIT.
        group: int8[n], POLICY, HOLDOUT or UNSERVED.
        compared: int8[n], the same, or EARLIER.
        slots: int16[n], how many were filled.
        reward: float64[n], what they earned, all slots together.
        fields: by field of the context, int8[n], the place of its value among the names, or -1.
        units: how many units have a number.
        chosen: by item, how often the policy and the holdout chose it.
        catalogue: the version that the newest decision names; "" without any.
        signals: reward events by signal.
        waiting: decisions whose windows are open, which are no rows yet.
        refused: entries that are no valid rows.
        first_refused: what is wrong with the first of them.
    """

    spec: PolicySpec | None = None
    ms: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    unit: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    group: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    compared: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    slots: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    reward: Float64 = field(default_factory=lambda: np.zeros(0))
    fields: dict[str, tuple[NDArray[np.int8], list[str]]] = field(default_factory=dict)
    units: int = 0
    chosen: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    catalogue: str = ""
    signals: dict[str, SignalCount] = field(default_factory=dict)
    waiting: Waiting = NO_WAITING
    refused: int = 0
    first_refused: str = ""

    def __len__(self) -> int:
        return len(self.ms)


def read_policy(
    root: Root,
    policy: str,
    *,
    after: str = START,
    by: Sequence[str] = (),
    progress: Callable[[int], None] = lambda _rows: None,
    between: Callable[[], None] = lambda: None,
) -> PolicyRows:
    """Read a policy's decisions from its archive, of all partitions.

    Args:
        root: the archive's folder or URI, or a file system.
        policy: its name.
        after: only what comes past this position.
        by: fields of the context to divide decisions by; none: all that have few values.
        progress: told how many decisions were read, again and again.
        between: called when a partition was read, of which nothing but its rows is left.

    Raises:
        ArchiveError: a file is damaged or missing.
        ReplayError: a partition has no archive, or no decision has a field that is asked for.
    """
    gathered = _Gathered(by, progress, after)
    pieces = policy_pieces(root, policy, 1, after=after)
    gathered.spec = _newest_spec([ArchiveReader(root, piece.policy) for piece in pieces])

    for piece in pieces:
        # Threads join, read and gather: each has its own way into the archive.
        join = ArchiveJoin(ArchiveReader(root, piece.policy), piece, gathered.refuse)
        columns = (*READ, *(["context"] if gathered.wants_context else []))
        asked = ArchiveReader(root, piece.policy)
        decisions = DecisionReader(asked, piece.after, piece.through, columns)
        for parts, settled in read_ahead(settled_stretches(decisions, read_ahead(join.spans()))):
            there = [part for part in parts if len(part.places)]
            if there:
                gathered.add(Decided(decisions, there, settled))
        gathered.waiting = gathered.waiting.plus(join.waiting)
        gathered.count_signals(join.came)
        between()
    rows = gathered.rows()
    if unknown := [name for name in by if not rows.fields.get(name, ([], []))[1]]:
        raise ReplayError(
            f"{unknown[0]!r} divides nothing: no decision has it in its context as a text or flag,"
            f" or it has more than {MOST_VALUES} values",
            "by",
        )
    return rows


def _newest_spec(readers: Iterable[ArchiveReader]) -> PolicySpec | None:
    """Return the spec that was entered last; None if there is none that can be read."""
    entered = [
        (position, digest, reader) for reader in readers for position, digest in reader.specs()
    ]
    for _, digest, reader in sorted(entered, key=lambda each: log_order(each[0]), reverse=True):
        try:
            return decode_spec(reader.blob(digest))
        except BanditloopError:
            continue
    return None


class _Gathered:
    """The rows that were read so far, batch by batch."""

    def __init__(self, by: Sequence[str], progress: Callable[[int], None], after: str) -> None:
        self.spec: PolicySpec | None = None
        self.waiting, self.refused, self.first_refused = NO_WAITING, 0, ""
        self._by, self._progress, self._after = tuple(by), progress, after
        self._numbers = UnitNumbers()
        self._ms, self._reward = GrowingColumn(np.int64), GrowingColumn(np.float64)
        self._unit, self._slots = GrowingColumn(np.int32), GrowingColumn(np.int16)
        self._group, self._compared_as = GrowingColumn(np.int8), GrowingColumn(np.int8)
        self._fields: dict[str, FieldCodes | None] = {name: FieldCodes() for name in by}
        self._chosen: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._signals: dict[str, SignalCount] = {}
        self._holdouts: dict[str, Holdout | None] = {}
        self._newest: tuple[int, str] = (-1, "")
        self._count = 0

    @property
    def wants_context(self) -> bool:
        """Whether there is anything to learn from the contexts to come."""
        holdout = self.spec.holdout if self.spec else None
        by_field = holdout is not None and holdout.field != "user_id"
        known = [codes for codes in self._fields.values() if codes is not None]
        return by_field or bool(known) or not self._fields

    def refuse(self, position: str, error: BanditloopError) -> None:
        """Count an entry that is no valid row, unless it is before the range."""
        if not is_after(position, self._after):
            return
        self.refused += 1
        self.first_refused = self.first_refused or f"entry {position}: {error.message}"

    def add(self, decided: Decided) -> None:
        """Add a batch of settled decisions."""
        settled = decided.settled
        context = decided.context if self.wants_context else None
        group = self._groups(decided)
        self._ms.add(settled.ms)
        self._group.add(group)
        self._compared_as.add(self._compared(decided, group))
        self._slots.add(np.diff(settled.begins))
        self._reward.add(_sums(settled.rewards, settled.begins))
        self._unit.add(self._units(decided, context))
        self._add_fields(context, len(group))
        self._count_chosen(decided, group)
        self._keep_newest(decided)
        self._count += len(group)
        self._progress(self._count)

    def _groups(self, decided: Decided) -> NDArray[np.int8]:
        """Return the group of each decision."""
        # False, true, and null where the holdout's policy could not serve it.
        group: NDArray[np.int8] = np.concatenate(
            [
                pc.fill_null(part.group.batch["holdout"].cast(pa.int8()), UNSERVED).to_numpy()[
                    part.places
                ]
                for part in decided.parts
            ]
        )

        return group

    def _compared(self, decided: Decided, group: NDArray[np.int8]) -> NDArray[np.int8]:
        """Return the same groups, but of decisions under another holdout than the newest."""
        wanted, out, at = self.spec.holdout if self.spec else None, group.copy(), 0
        for part in decided.parts:
            names = coded(part.group.batch["spec"])
            codes = pc.fill_null(names.indices, 0).to_numpy()[part.places]
            for code in np.unique(codes).tolist():
                own = self._holdout_of(names.dictionary[code].as_py(), decided.reader.reader)
                if own != wanted:
                    out[at : at + len(codes)][codes == code] = EARLIER
            at += len(codes)
        return out

    def _holdout_of(self, digest: str, reader: ArchiveReader) -> Holdout | None:
        if digest not in self._holdouts:
            try:
                self._holdouts[digest] = decode_spec(reader.blob(digest)).holdout
            except BanditloopError:
                self._holdouts[digest] = None
        return self._holdouts[digest]

    def _units(self, decided: Decided, context: FeatureColumns | None) -> NDArray[np.int32]:
        """Return the number of each decision's unit."""
        holdout = self.spec.holdout if self.spec else None
        out = np.full(len(decided.settled.ms), NO_UNIT, np.int32)
        if holdout is None or holdout.field == "user_id" or context is None:
            hashes, named = _joined(
                [text_hashes(part.group.batch["user"], part.places) for part in decided.parts]
            )
        else:
            hashes, named = _field_hashes(context, holdout.field)
        out[named] = self._numbers.of(hashes[named])
        return out

    def _add_fields(self, context: FeatureColumns | None, count: int) -> None:
        """Add the values of the fields that divide decisions."""
        found = {} if context is None else _texts_of(context)
        if not self._by:
            for name in self._protected_first(found):
                if name not in self._fields and len(self._fields) < MOST_FIELDS:
                    self._fields[name] = fresh = FieldCodes()
                    fresh.column.add(np.full(self._count, -1, np.int8))

        for name, known in self._fields.items():
            if known is None:
                continue
            codes = np.full(count, -1, np.int8)
            for value, places in found.get(name, {}).items():
                code = known.values.setdefault(value, len(known.values))
                if code >= MOST_VALUES:
                    break
                codes[places] = code
            if len(known.values) > MOST_VALUES:
                self._fields[name] = None  # too many to divide by
            else:
                known.column.add(codes)

    def _protected_first(self, names: Iterable[str]) -> list[str]:
        """Return the names of fields in their order, but for those that the spec protects."""
        said = None if self.spec is None else self.spec.protected
        protected = said if isinstance(said, dict) else {}
        return sorted(names, key=lambda name: name not in protected)

    def _keep_newest(self, decided: Decided) -> None:
        """Keep the catalogue that the newest decision names."""
        last, ms = decided.parts[-1], int(decided.settled.ms[-1])
        if ms > self._newest[0]:
            name = last.group.batch["catalogue"][int(last.places[-1])].as_py()
            self._newest = ms, name or ""

    def _count_chosen(self, decided: Decided, group: NDArray[np.int8]) -> None:
        # Where each decision fills one slot, its list of slots is not read.
        alone = len(decided.settled.rewards) == len(group)
        codes, names = decided.first_ids() if alone else decided.chosen_ids()
        of_slots = group if alone else group[decided.decisions]
        for number, counter in enumerate(self._chosen):
            counts = np.bincount(codes[of_slots == number], minlength=len(names))
            for code in np.flatnonzero(counts).tolist():
                counter[names[code]] += int(counts[code])

    def count_signals(self, came: Mapping[str, tuple[int, float]]) -> None:
        """Count the reward events of a partition; see ``ArchiveJoin.came``."""
        for name, (events, total) in came.items():
            before = self._signals.get(name, SignalCount(0, 0.0))
            self._signals[name] = SignalCount(before.events + events, before.total + total)

    def rows(self) -> PolicyRows:
        """Return everything, in the order of time."""
        ms = self._ms.values()
        order: NDArray[np.uint32] | None = None
        if (ms[1:] < ms[:-1]).any():
            order = np.argsort(ms, kind="stable").astype(np.uint32)

        def ordered(column: GrowingColumn) -> NDArray[Any]:
            if order is not None:
                column.put_in_order(order)
            return column.values()

        # The last place is that of those without a unit.
        numbers = np.append(self._numbers.in_order(), np.int32(NO_UNIT))
        del ms  # or what was not in order would stay, too
        return PolicyRows(
            spec=self.spec,
            ms=ordered(self._ms),
            unit=in_places(numbers, ordered(self._unit)),
            group=ordered(self._group),
            compared=ordered(self._compared_as),
            slots=ordered(self._slots),
            reward=ordered(self._reward),
            fields={
                name: (ordered(codes.column), list(codes.values))
                for name, codes in self._fields.items()
                if codes is not None
            },
            units=self._numbers.count,
            chosen=self._chosen,
            catalogue=self._newest[1],
            signals=self._signals,
            waiting=self.waiting,
            refused=self.refused,
            first_refused=self.first_refused,
        )


def _sums(values: Float64, begins: Int64) -> Float64:
    """Return the sum of each decision's slots; 0 where a page has none of its own."""
    counts = np.diff(begins)
    if len(values) == len(counts) and (counts == 1).all():
        return values
    sums = np.bincount(np.repeat(np.arange(len(counts)), counts), values, len(counts))
    return np.asarray(sums, np.float64)


def _joined(parts: Sequence[tuple[Any, Any]]) -> tuple[Any, Any]:
    return np.concatenate([each for each, _ in parts]), np.concatenate([each for _, each in parts])


def _field_hashes(context: FeatureColumns, name: str) -> tuple[Any, Any]:
    """Return a hash of the value of a field, and whether there is one: of m contexts."""
    hashes, named = np.zeros(len(context), np.uint64), np.zeros(len(context), np.bool_)
    owners = np.repeat(np.arange(len(context)), np.diff(context.offsets))
    for code, term in enumerate(context.terms):
        if term.name != name or (term.kind == "text" and term.text == ""):
            continue
        entries = np.flatnonzero(context.codes == code)
        at = owners[entries]
        if term.kind == "text":
            hashes[at] = keys_of(pa.array([term.text], pa.string()))[0]
        else:
            hashes[at] = splitmix64(context.values[entries].view(np.uint64))
        named[at] = True
    return hashes, named


def _texts_of(context: FeatureColumns) -> Mapping[str, Mapping[str, Int64]]:
    """Return by field, then by value, which of m contexts have it; texts, and yes and no."""
    owners = np.repeat(np.arange(len(context)), np.diff(context.offsets))
    wanted = [code for code, term in enumerate(context.terms) if term.kind in {"text", "flag"}]
    out: dict[str, dict[str, Int64]] = {}
    for code in wanted:
        term = context.terms[code]
        entries = np.flatnonzero(context.codes == code)
        values = out.setdefault(term.name, {})
        if term.kind == "text":
            values[term.text] = owners[entries]
            continue
        for said, name in ((0.0, "false"), (1.0, "true")):
            here = owners[entries[context.values[entries] == said]]
            if len(here):
                values[name] = here
    return out
