"""Decisions of an archive as the columns that say what each could choose among.

The columns of numbers and ids are read at once, those of scores and features when somebody asks;
from then on they are read along.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bandits.kernels.slates import put_lists, slate_rows, take_chosen
from bandits.log.positions import position_before
from bandits.log.records import DecisionRecord
from bandits.page import STORED
from bandits.types import Float64
from policies.archive.archive import ArchiveReader
from policies.archive.audit import RowSample
from policies.archive.row_groups import RowGroup
from policies.items.catalogue import Catalogue
from simulator.logs.actions.columns import (
    ActionColumns,
    CodedTexts,
    FeatureColumns,
    SourceScores,
    distinct_codes,
)
from simulator.logs.actions.records import (
    ChosenActions,
    ChosenFeatures,
    EventIds,
    RecordColumns,
    RecordScores,
)
from simulator.logs.archive.entries import Bools, Int32, Int64, offsets_of
from simulator.logs.archive.features import (
    Lists,
    coded,
    feature_columns,
    merge_codes,
)
from simulator.logs.archive.settled import Settled

EVALUATED = ("catalogue", "chosen", "action", "actions", "pmf", "page")
"""The columns of decisions that an evaluation reads."""
LEARNED = ("catalogue", "chosen", "event_id", "action", "actions", "propensity")
"""The columns that a learner of chosen actions reads, beside those of features."""


class Stretch(NamedTuple):
    """Decisions of a stretch of the log.

    Attributes:
        after: The id before the stretch.
        group: Columns of all its entries.
        places: int64[m], which entries the decisions are.
    """

    after: str
    group: RowGroup
    places: Int64


@dataclass(slots=True, eq=False)
class DecisionReader:
    """Reads the columns of a piece, in the log's order: some at once, and what was asked for."""

    reader: ArchiveReader
    after: str
    through: str | None
    at_once: Sequence[str] = EVALUATED
    _names: list[str] = field(default_factory=list)
    _sample: RowSample = field(default_factory=RowSample)

    def __post_init__(self) -> None:
        """Begin with the columns that are read at once."""
        self._names.extend(self.at_once)

    def groups(self) -> Iterator[tuple[str, RowGroup]]:
        """Yield the columns of all entries, and after which id they lie."""
        at, ended = self.after, False
        while not ended:
            names, ended = tuple(self._names), True
            groups = self.reader.columns(names, at, self.through, check=self._sample.check)
            for group in groups:
                before, at = at, group.last
                yield before, group
                if len(self._names) > len(names):
                    ended = False
                    break

    def column(self, part: Stretch, name: str) -> list[tuple[Any, Int64]]:
        """Return a column of a part's stretch, in one array or several, each with the decisions."""
        if name in part.group.batch.schema.names:
            return [(part.group.batch[name], part.places)]
        if name not in self._names:
            self._names.append(name)

        found, start = [], 0
        for group in self.reader.columns([name], part.after, part.group.last):
            column = group.batch[name]
            inside = (part.places >= start) & (part.places < start + len(column))
            found.append((column, part.places[inside] - start))
            start += len(column)
        return found

    def record(self, part: Stretch, place: int) -> DecisionRecord:
        """Return one record of a part's stretch, by its entry's place."""
        groups = self.reader.columns(["id"], part.after, part.group.last)
        ids = pa.chunked_array([group.batch["id"] for group in groups])
        position = ids[place].as_py()
        (entry,) = self.reader.entries(position_before(position), position)
        assert isinstance(entry.record, DecisionRecord)  # noqa: S101 - it is a decision's place
        return entry.record

    def records(self, part: Stretch) -> list[DecisionRecord]:
        """Return the records of a part's decisions."""
        entries = self.reader.entries(part.after, part.group.last, kinds=["decision"])
        records = [entry.record for entry in entries if isinstance(entry.record, DecisionRecord)]
        decisions = part.group.batch["chosen"].is_valid().to_numpy(zero_copy_only=False)
        return [records[place] for place in np.cumsum(decisions)[part.places] - 1]


@dataclass(eq=False)
class Decided:
    """m decisions with their slots, S in all, and actions, A in all.

    Attributes:
        parts: Where they are read from, at least one.
        settled: What the join says of them.
    """

    reader: DecisionReader
    parts: Sequence[Stretch]
    settled: Settled

    @cached_property
    def _chosen(self) -> tuple[Int64, Int32]:
        counts, chosen = self._flat("chosen")
        return offsets_of(counts), np.concatenate([each.to_numpy() for each in chosen])

    @cached_property
    def _pmf(self) -> Float64:
        return np.concatenate([each.to_numpy() for each in self._flat("pmf")[1]])

    @cached_property
    def _counts(self) -> Int64:
        """How many actions each decision has, int64[m]."""
        return self._numbers("actions").astype(np.int64)

    def _numbers(self, name: str) -> NDArray[Any]:
        """Return the numbers of a column, [m]."""
        parts = [column.take(pa.array(places)) for column, places in self.column(name)]
        return np.concatenate([part.to_numpy() for part in parts])

    @cached_property
    def offsets(self) -> Int64:
        """Where the actions of each decision begin, int64[m + 1]."""
        return offsets_of(self._counts)

    @cached_property
    def _ids(self) -> CodedTexts:
        return merge_codes([coded(each) for each in self._flat("action_ids")[1]])

    def _flat(self, name: str) -> tuple[Int64, list[pa.Array]]:
        """Return the lengths of a column's lists, and their elements."""
        columns = self.column(name)
        lists = [Lists.of(column, places) for column, places in columns]
        elements = [
            each.take(column.values) for each, (column, _) in zip(lists, columns, strict=True)
        ]
        return np.concatenate([each.counts for each in lists]), elements

    def column(self, name: str) -> list[tuple[Any, Int64]]:
        """Return a column in one array or several, each with the places of its decisions."""
        return [found for part in self.parts for found in self.reader.column(part, name)]

    @property
    def slots(self) -> Int64:
        """Where the slots of each decision begin, int64[m + 1]."""
        return self._chosen[0]

    @property
    def chosen(self) -> Int32:
        """By slot, the index of its action among all of the decision's, int32[S]."""
        return self._chosen[1]

    @cached_property
    def decisions(self) -> Int64:
        """The decision that each slot belongs to, int64[S]."""
        return np.repeat(np.arange(len(self.slots) - 1), np.diff(self.slots))

    @cached_property
    def context(self) -> FeatureColumns:
        """The contexts, m maps."""
        return feature_columns(self.column("context"))

    @cached_property
    def features(self) -> tuple[FeatureColumns, Bools] | None:
        """The actions' own features, A maps, and which were given; None where none were."""
        columns = self.column("features")
        lists = [Lists.of(column, places) for column, places in columns]
        maps = [each.take(column.values) for each, (column, _) in zip(lists, columns, strict=True)]
        if not sum(map(len, maps)):
            return None

        made = feature_columns([(each, slice(None)) for each in maps])
        given = np.concatenate([each.is_valid().to_numpy(zero_copy_only=False) for each in maps])
        counts = np.concatenate([each.counts for each in lists])

        # A decision has a map for each action, or for none.
        actions = self._counts
        there = np.repeat(counts > 0, actions)
        sizes, all_given = np.zeros(len(there), np.int64), np.zeros(len(there), np.bool_)
        sizes[there], all_given[there] = np.diff(made.offsets), given
        return (
            FeatureColumns(offsets_of(sizes), made.codes, made.values, made.terms),
            all_given,
        )

    @cached_property
    def scores(self) -> Mapping[str, SourceScores]:
        """By source, the scores of all A actions, and the m decisions in which it answered."""
        offsets = self.offsets
        columns = self.column("scores")
        lists = [Lists.of(column, places) for column, places in columns]
        sources, names = merge_codes(
            [
                coded(each.take(column.keys))
                for each, (column, _) in zip(lists, columns, strict=True)
            ]
        )
        decision = np.repeat(
            np.arange(len(offsets) - 1), np.concatenate([each.counts for each in lists])
        )

        values, starts, base = [], [], 0
        for each, (column, _) in zip(lists, columns, strict=True):
            items = each.take(column.items)
            starts.append(items.offsets.to_numpy().astype(np.int64)[:-1] + base)
            values.append(items.values.to_numpy(zero_copy_only=False))
            base += len(values[-1])
        flat, start = np.concatenate(values), np.concatenate(starts)

        out = {}
        for code, name in enumerate(names):
            here = np.flatnonzero(sources == code)
            if not len(here):
                continue
            # A source that is alone, and always answers, has its scores side by side already.
            is_alone = len(here) == len(decision) == len(offsets) - 1
            if is_alone and np.array_equal(start, start[0] + offsets[:-1]):
                out[name] = SourceScores(flat[start[0] : start[0] + offsets[-1]])
                continue
            answered = np.zeros(len(offsets) - 1, np.bool_)
            answered[decision[here]] = True
            scores = np.full(int(offsets[-1]), np.nan, np.float32)
            put_lists(scores, decision[here], offsets, flat, start[here])
            out[name] = SourceScores(scores, None if answered.all() else answered)
        return out

    @cached_property
    def catalogues(self) -> tuple[Int32, list[str]]:
        """Which of some digests each decision's catalogue has, int32[m]."""
        codes, names = merge_codes(
            [coded(column.take(pa.array(places))) for column, places in self.column("catalogue")]
        )
        used, which = distinct_codes(codes, len(names))
        return which.astype(np.int32), [names[code] for code in used.tolist()]

    def event_ids(self) -> EventIds:
        """Return the decisions' ids, m of them."""
        ids = [column.take(pa.array(places)) for column, places in self.column("event_id")]
        sizes = [pc.binary_length(each).to_numpy() for each in ids]
        return EventIds(
            np.concatenate([_bytes_of(each) for each in ids]), offsets_of(np.concatenate(sizes))
        )

    def chosen_features(self) -> ChosenFeatures:
        """Return the features that decisions give for the action of each slot, S maps."""
        counts, maps, given = [], [], []
        at = 0
        for column, places in self.column("features"):
            lists = Lists.of(column, places)
            slots = slice(self.slots[at], self.slots[at + len(places)])
            own = self.decisions[slots] - at
            there = lists.counts[own] > 0
            starts = column.offsets.to_numpy()[:-1][places][own]
            picked = (starts + self.chosen[slots])[there]

            maps.append((column.values, picked))
            is_given = np.zeros(len(own), np.bool_)
            is_given[there] = (
                column.values.take(pa.array(picked)).is_valid().to_numpy(zero_copy_only=False)
            )
            given.append(is_given)
            counts.append(there)
            at += len(places)

        made = feature_columns(maps)
        sizes = np.zeros(len(self.chosen), np.int64)
        sizes[np.concatenate(counts)] = np.diff(made.offsets)
        every = FeatureColumns(offsets_of(sizes), made.codes, made.values, made.terms)
        return ChosenFeatures(every, np.concatenate(given))

    def records(self, known: Callable[[str], Catalogue]) -> RecordColumns:
        """Return the records that each slot's row is of.

        Args:
            known: Gives the catalogue of a digest.
        """
        codes, names = self.catalogues
        return RecordColumns(
            np.arange(len(self.chosen)) - self.slots[self.decisions],
            self.decisions,
            self.chosen.astype(np.int64),
            codes[self.decisions],
            list(map(known, names)),
            self.chosen_actions,
            lambda: self.event_ids().take(self.decisions),
            lambda: self.context,
            lambda: RecordScores(self.offsets, self.scores),
            self.chosen_features,
        )

    @property
    def has_slates(self) -> bool:
        """Whether some decision has more than one slot."""
        return len(self.chosen) > len(self._chosen[0]) - 1

    def chosen_actions(self) -> ChosenActions:
        """Return what each slot chose."""
        codes, names = self.chosen_ids()
        return ChosenActions(names, codes, self._left if self.has_slates else self._counts)

    def chosen_ids(self) -> CodedTexts:
        """Return what each slot chose, S of them."""
        return self.actions.chosen_ids if self.has_slates else self.first_ids()

    def first_ids(self) -> CodedTexts:
        """Return what each decision chose in its first slot, m of them."""
        columns = self.column("action")
        return merge_codes([coded(column).take(pa.array(places)) for column, places in columns])

    def propensities(self, *, from_pmf: bool) -> Float64:
        """Return the probability of what each slot chose, float64[S].

        Args:
            from_pmf: Not of the column that has that of the first slot.
        """
        if not (from_pmf or self.has_slates):
            return self._numbers("propensity")
        actions = self.actions
        assert actions.pmf is not None  # noqa: S101 - of every decision
        return actions.pmf[actions.chosen_at]

    def _barred(self) -> Bools:
        """Return by place in the PMFs of all slots what pages bar, bool[P]; empty: nothing."""
        # What a page says is of its last slots.
        ends = np.cumsum(np.diff(self.slots) * self._counts)
        columns = self.column("page")
        if all(column.null_count == len(column) for column, _ in columns):
            return np.zeros(0, np.bool_)
        pages = [column.take(pa.array(places)) for column, places in columns]
        sizes = np.concatenate(
            [pc.fill_null(pc.binary_length(each), 0).to_numpy() for each in pages]
        )
        sizes = sizes // STORED.itemsize
        if not sizes.any():
            return np.zeros(0, np.bool_)

        texts = (each or b"" for part in pages for each in part.to_pylist())
        said = np.frombuffer(b"".join(texts), STORED)
        begins = np.repeat(ends - sizes - (np.cumsum(sizes) - sizes), sizes)
        barred = np.zeros(int(ends[-1]), np.bool_)
        barred[begins + np.arange(said.size)] = np.isnan(said)
        return barred

    @property
    def _left(self) -> Int64:
        """How many actions earlier slots have left for each slot, int64[S]."""
        slot = np.arange(len(self.chosen)) - self.slots[self.decisions]
        return self._counts[self.decisions] - slot

    @cached_property
    def actions(self) -> ActionColumns:
        """A row for each slot, among the actions that earlier slots and the page's rules leave."""
        offsets = self.offsets
        barred = self._barred()
        if not (self.has_slates or barred.size):
            return ActionColumns(
                offsets,
                lambda: self._ids,
                self.chosen.astype(np.int64),
                self._pmf,
                lambda: self.scores,
                lambda: self.context,
                lambda: None if self.features is None else self.features[0],
                self.first_ids,
            )

        chosen = np.ascontiguousarray(self.chosen, np.int32)
        left = self._left
        if barred.size:
            take_chosen(offsets, self.slots, chosen, barred)
            begins = offsets_of(np.diff(offsets)[self.decisions])[:-1]
            left = left - np.add.reduceat(barred, begins, dtype=np.int64)
        rows = offsets_of(left)
        action, place = np.empty(rows[-1], np.int64), np.empty(rows[-1], np.int64)
        index = np.empty(len(self.chosen), np.int64)
        taken = np.zeros(int(np.diff(offsets).max()), np.bool_)
        slate_rows(
            offsets,
            self.slots,
            chosen,
            barred,
            rows,
            taken,
            action,
            place,
            index,
        )

        def scores() -> Mapping[str, SourceScores]:
            return {
                name: SourceScores(
                    values[action], None if answered is None else answered[self.decisions]
                )
                for name, (values, answered) in self.scores.items()
            }

        return ActionColumns(
            rows,
            lambda: (self._ids[0][action], self._ids[1]),
            index,
            self._pmf[place],
            scores,
            lambda: self.context.take(self.decisions),
            lambda: None if self.features is None else self.features[0].take(action),
        )


def _bytes_of(texts: pa.StringArray) -> NDArray[np.uint8]:
    """Return the bytes of texts, one after the other."""
    _, offsets, data = texts.buffers()
    if data is None:
        return np.zeros(0, np.uint8)
    at = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
    return np.frombuffer(data, np.uint8)[at[0] : at[-1]]
