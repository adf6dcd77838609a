"""Rows of entries whose decisions were taken apart by compiled code, not decoded."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bandits.kernels.compiled import Int64
from bandits.log.codec import VERSION
from bandits.log.records import Apprentice, DecisionRecord, Ruled
from policies.archive.arrays import offsets_column
from policies.archive.columns import COLUMNS, CREDIT, FEATURE, FEATURES, EntryRows, decoded
from policies.archive.parts.assembled import NIL, encode_part
from policies.archive.parts.assembling import (
    BEFORE_ARTIFACT,
    ELEMENTS,
)
from policies.archive.parts.rest import emptied_decision
from policies.archive.parts.ruled import fits
from policies.archive.parts.shredding import (
    ACTIONS,
    ARTIFACT,
    CATALOGUE,
    FLAG,
    FULL,
    KEYS,
    LIST,
    LISTED,
    N_ENTRIES,
    N_LISTED,
    NUMBER,
    POLICY,
    PROFILE,
    SIZES,
    SNAPSHOT,
    SOURCES,
    SPEC,
    TAKEN,
    TEXT,
    TEXTS,
    USER,
    VOCABULARIES,
    shred,
)

HEADS = tuple(
    bytes([VERSION, 0xDC, 0, count, 0xA8]) + b"decision"
    for count in range(BEFORE_ARTIFACT, ELEMENTS + 1)
)
"""How a decision begins: the version, how many elements, the kind."""
COUNT_AT = 3
"""Where in a head the number of elements stands."""
WORDS = 1 << 13
_rules = msgspec.msgpack.Decoder(Ruled)
_apprentice = msgspec.msgpack.Decoder(Apprentice)
NAMED = {
    "policy": POLICY,
    "spec": SPEC,
    "snapshot_id": SNAPSHOT,
    "catalogue": CATALOGUE,
    "user": USER,
    "artifact": ARTIFACT,
    "profile": PROFILE,
}
TRUTHS = {"deferred": 9, "holdout": 10, "unserved": 11}
"""By name, the vocabulary, and the column of ``heads`` in shredding.py."""


def rows_of(ids: Sequence[str], data: Sequence[bytes]) -> EntryRows:
    """Return n entries, whose columns can be asked for.

    Args:
        ids: their positions, [n].
        data: their bytes, [n].
    """
    places = [row for row, each in enumerate(data) if each.startswith(HEADS)]
    parts = _Parts.of([data[row] for row in places]) if places else None
    if parts is None:
        return EntryRows(ids, list(map(decoded, data)))

    records = [None if each.startswith(HEADS) else decoded(each) for each in data]
    # Decisions as other builds write them have all been decoded.
    if any(type(record) is DecisionRecord for record in records):
        return EntryRows(ids, list(map(decoded, data)))
    return ShreddedRows(ids, records, np.array(places), parts)


class ShreddedRows(EntryRows):
    """Entries of which those at ``places`` are decisions in parts."""

    def __init__(
        self, ids: Sequence[str], records: Sequence[Any], places: Int64, parts: "_Parts"
    ) -> None:
        """Take entries.

        Args:
            ids: their positions, [n].
            records: what they say, [n]; None of decisions, and of one that does not decode.
            places: which are decisions.
            parts: of these.
        """
        super().__init__(ids, records)
        self._places = places
        self._parts = parts

    def of_decisions(self, name: str) -> list[Any]:
        """See EntryRows."""
        values = np.full(len(self.ids), None, object)
        values[self._places] = self._parts.values(name)
        found: list[Any] = values.tolist()
        return found

    @cached_property
    def kinds(self) -> list[str]:
        """See EntryRows."""
        kinds = super().kinds
        for row in self._places.tolist():
            kinds[row] = "decision"
        return kinds

    def rest(self, data: Sequence[bytes]) -> list[bytes]:
        """See EntryRows."""
        rest = super().rest(data)
        names = ("policy", "holdout", "unserved", "rules")
        columns = zip(*(self._parts.values(name) for name in names), strict=True)
        for row, (policy, holdout, unserved, rules) in zip(
            self._places.tolist(), columns, strict=True
        ):
            if (holdout or not unserved) and fits(rules):
                rest[row] = emptied_decision(policy, data[row][COUNT_AT])
        return rest

    def _by_row(self, lengths: Int64, has: Any = True) -> tuple[pa.Array, pa.Array]:
        """Return offsets of lists by entry, and which entries have none."""
        by_row = np.zeros(len(self.ids), np.int64)
        by_row[self._places] = lengths
        mask = np.ones(len(self.ids), bool)
        mask[self._places] = ~np.broadcast_to(has, lengths.shape)
        return offsets_column(by_row), pa.array(mask)

    def _lists(self, name: str, lengths: Int64, flat: pa.Array, has: Any = True) -> pa.Array:
        offsets, mask = self._by_row(lengths, has)
        return pa.ListArray.from_arrays(offsets, flat, type=COLUMNS.field(name).type, mask=mask)

    @cached_property
    def chosen(self) -> pa.Array:
        """See EntryRows."""
        return self._lists("chosen", self._parts.slots, pa.array(self._parts.chosen))

    @cached_property
    def action_ids(self) -> pa.Array:
        """See EntryRows."""
        flat = self._parts.coded(ACTIONS, self._parts.action_ids)
        return self._lists("action_ids", self._parts.actions, flat)

    @cached_property
    def pmf(self) -> pa.Array:
        """See EntryRows."""
        parts = self._parts
        return self._lists("pmf", parts.slots * parts.actions, pa.array(parts.pmf))

    @cached_property
    def scores(self) -> pa.Array:
        """See EntryRows."""
        parts, kind = self._parts, COLUMNS.field("scores").type
        lists = pa.ListArray.from_arrays(
            offsets_column(np.repeat(parts.actions, parts.sources)),
            pa.array(parts.scores),
            type=kind.item_type,
        )
        offsets, mask = self._by_row(parts.sources)
        keys = parts.coded(SOURCES, parts.source_words)
        return pa.MapArray.from_arrays(offsets, keys, lists, type=kind, mask=mask)

    @cached_property
    def failed(self) -> pa.Array:
        """See EntryRows."""
        return pa.nulls(len(self.ids), COLUMNS.field("failed").type)

    @cached_property
    def credit(self) -> pa.Array:
        """See EntryRows."""
        return pa.nulls(len(self.ids), CREDIT)

    @cached_property
    def context(self) -> pa.Array:
        """See EntryRows."""
        offsets, mask = self._by_row(self._parts.context)
        keys, values = self._parts.features(0)
        return pa.MapArray.from_arrays(offsets, keys, values, type=FEATURES, mask=mask)

    @cached_property
    def features(self) -> pa.Array:
        """See EntryRows."""
        parts = self._parts
        keys, values = parts.features(1)
        maps = pa.MapArray.from_arrays(
            offsets_column(np.maximum(parts.maps, 0)),
            keys,
            values,
            type=FEATURES,
            mask=pa.array(parts.maps < 0),
        )
        lengths = np.where(parts.has_features, parts.actions, 0)
        return self._lists("features", lengths, maps, parts.has_features)


class _Parts:
    """The parts of n decisions, one after the other."""

    def __init__(self, data: NDArray[np.uint8], count: int) -> None:
        """Make room for as many parts as their bytes can hold: memory is taken as it is filled."""
        most = len(data)
        self.rows = np.zeros((count, 5), np.int64)
        self._heads = np.zeros((count, 15), np.int64)
        self._event_ids: list[str] = []
        self._rules: list[Ruled | None] = []
        self._apprentices: list[Apprentice | None] = []
        self._texts: list[list[str]] = [[] for _ in range(VOCABULARIES)]
        self.action_ids = np.empty(most, np.int32)
        self.chosen = np.empty(most // 8, np.int32)
        self.pmf = np.empty(most // 8)
        self.source_words = np.empty(most // 4, np.int32)
        self.scores = np.empty(most // 4, np.float32)
        self.maps = np.empty(most, np.int32)
        self._entries = (
            np.empty((2, most // 2), np.int32),
            np.empty((2, most // 2), np.uint8),
            np.empty((2, most // 2), np.int64),
        )
        self._listed = np.empty((2, most), np.int32)
        self._sizes = np.zeros(SIZES, np.int64)
        self._data = data
        self._vocabularies: list[pa.Array] = []

    @classmethod
    def of(cls, records: Sequence[bytes]) -> "_Parts | None":
        """Return the parts of decisions, None if any is not as this build writes it."""
        whole = b"".join([*records, bytes(16)])
        parts = cls(np.frombuffer(whole, np.uint8), len(records))
        bounds = np.zeros(len(records) + 1, np.int64)
        np.cumsum([len(each) for each in records], out=bounds[1:])

        outcome, most = FULL, WORDS
        while outcome == FULL:
            most *= 2
            outcome, words, known = parts._shred(bounds, most)
        if outcome != TAKEN:
            return None

        parts._cut()
        try:
            parts._name(whole, words[: known[VOCABULARIES]])
        except UnicodeDecodeError:
            return None
        return parts if parts._read_rare(whole) else None

    def _shred(self, bounds: Int64, most: int) -> tuple[int, Int64, Int64]:
        """Take the parts, with room for so many words; see shredding.py."""
        table, words = np.full(2 * most, -1, np.int32), np.empty((most, 6), np.int64)
        known = np.zeros(VOCABULARIES + 1, np.int64)
        self._sizes[:] = 0
        arguments: list[Any] = [
            *(self._data, bounds, table, words, known, self._sizes, *self._entries, self._listed),
            *(self.rows, self._heads, self.action_ids, self.chosen),
            *(self.pmf.view(np.uint8), self.pmf),
            *(self.source_words, self.scores.view(np.uint8), self.maps),
        ]
        return shred(*arguments), words, known

    def _cut(self) -> None:
        """Keep what was taken of each."""
        actions, slots, pmf, sources, scores, maps = self._sizes[:N_ENTRIES]
        self.action_ids, self.chosen = self.action_ids[:actions], self.chosen[:slots]
        self.pmf, self.scores = self.pmf[:pmf], self.scores[:scores]
        self.source_words, self.maps = self.source_words[:sources], self.maps[:maps]

    def _name(self, data: bytes, words: Int64) -> None:
        """Read the distinct texts of each vocabulary, in the order of their codes; and event_ids.

        Raises:
            UnicodeDecodeError: one is none.
        """
        for start, size, vocabulary in words[:, :3].tolist():
            self._texts[vocabulary].append(data[start : start + size].decode())
        self._vocabularies = [pa.array(each, pa.string()) for each in self._texts]
        self._event_ids = [
            data[start : start + size].decode() for start, size in self._heads[:, :2].tolist()
        ]

    def _read_rare(self, data: bytes) -> bool:
        """Read rules and apprentices; return whether their bytes are as this build's."""
        bounds = self._heads[:, 12:15]
        self._rules, self._apprentices = [None] * len(bounds), [None] * len(bounds)

        # Most have neither: no byte of it, or nil.
        said = self._data[bounds[:, :2]] != NIL[0]
        for row in np.flatnonzero((said & (np.diff(bounds) > 0)).any(axis=1)).tolist():
            begins, between, ends = bounds[row].tolist()
            part, own = data[begins:between], data[between:ends]
            rules = None if part in (NIL, b"") else _rules.decode(part)
            apprentice = None if own in (NIL, b"") else _apprentice.decode(own)
            if rules is not None and encode_part(rules) != part:
                return False
            if apprentice is not None and encode_part(apprentice) != own:
                return False
            self._rules[row], self._apprentices[row] = rules, apprentice
        return True

    def values(self, name: str) -> list[Any]:
        """Return what decisions say under a name of a column, or their policy, by decision."""
        if name == "rules":
            return self._rules
        if name == "apprentice":
            return self._apprentices
        if name == "event_id":
            return self._event_ids
        if name in TRUTHS:
            return list((self._heads[:, TRUTHS[name]] > 0).tolist())
        texts = [*self._texts[NAMED[name]], None]
        return [texts[word] for word in self._heads[:, NAMED[name] - POLICY + 2].tolist()]

    @property
    def actions(self) -> Int64:
        """How many actions each has, [n]; likewise slots, sources, entries of the context."""
        return self.rows[:, 0]

    @property
    def slots(self) -> Int64:
        """See ``actions``."""
        return self.rows[:, 1]

    @property
    def sources(self) -> Int64:
        """See ``actions``."""
        return self.rows[:, 2]

    @property
    def context(self) -> Int64:
        """See ``actions``."""
        return self.rows[:, 3]

    @property
    def has_features(self) -> NDArray[np.bool_]:
        """Whether its actions have features of their own."""
        return self.rows[:, 4] > 0

    def coded(self, vocabulary: int, words: Any, absent: Any = None) -> pa.Array:
        """Return words as a column."""
        codes = pa.array(words.astype(np.int32, copy=False), mask=absent)
        return pa.DictionaryArray.from_arrays(codes, self._vocabularies[vocabulary])

    def features(self, kind: int) -> tuple[pa.Array, pa.Array]:
        """Return names and values of features: of contexts (0) or of actions (1)."""
        count = self._sizes[N_ENTRIES + kind]
        names, kinds, values = (column[kind, :count] for column in self._entries)

        parts = []
        for field, number in zip(FEATURE, (NUMBER, FLAG, TEXT, LIST), strict=True):
            other = kinds != number
            if other.all():
                parts.append(pa.nulls(len(kinds), field.type))
            elif number == NUMBER:
                parts.append(pa.array(values.view(np.float64), mask=other))
            elif number == FLAG:
                parts.append(pa.array(values == 1, mask=other))
            elif number == TEXT:
                parts.append(self.coded(TEXTS + kind, np.where(other, 0, values), other))
            else:
                listed = self._listed[kind, : self._sizes[N_LISTED + kind]]
                parts.append(
                    pa.ListArray.from_arrays(
                        offsets_column(np.where(other, 0, values)),
                        self.coded(LISTED + kind, listed),
                        type=field.type,
                        mask=pa.array(other),
                    )
                )
        made = pa.StructArray.from_arrays(parts, fields=list(FEATURE))
        return self.coded(KEYS + kind, names), made
