"""The records behind a log's rows, as columns: what a learner needs beside the actions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from policies.items.catalogue import Catalogue
from simulator.logs.actions.columns import (
    Bools,
    FeatureColumns,
    Int32,
    Int64,
    Places,
    SourceScores,
    take_entries,
)


class RecordScores(NamedTuple):
    """The scores of all actions of m records, those among them that earlier slots took.

    ``offsets``: int64[m + 1]; record i has the actions ``offsets[i]`` to ``offsets[i + 1]``.
    ``sources``: by source, of the actions of all records.
    """

    offsets: Int64
    sources: Mapping[str, SourceScores]


class ChosenActions(NamedTuple):
    """The chosen actions of n rows.

    ``codes``: int[n], the place of each row's action in ``names``, distinct ids. ``available``:
    int64[n], how many actions there were, those of earlier slots left out.
    """

    names: Sequence[str]
    codes: Int32 | Int64
    available: Int64


class ChosenFeatures(NamedTuple):
    """The features that n rows give for their chosen actions.

    ``given``: bool[n]; an action of which none are given, not even that it has none, has those of
    the catalogue.
    """

    maps: FeatureColumns
    given: Bools


class EventIds(NamedTuple):
    """n ids: the bytes of all, UTF-8, one after the other, and int64[n + 1] where each starts."""

    data: NDArray[np.uint8]
    offsets: Int64

    @classmethod
    def of(cls, ids: Sequence[str]) -> "EventIds":
        """Return ids, whatever texts they are."""
        encoded = [each.encode(errors="surrogatepass") for each in ids]
        offsets = np.zeros(len(ids) + 1, np.int64)
        np.cumsum([len(each) for each in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def take(self, rows: Places) -> "EventIds":
        """Return some of the ids, in the order given."""
        offsets, cells = take_entries(self.offsets, rows)
        return EventIds(self.data[cells], offsets)

    def text(self, at: int) -> str:
        """Return one of them."""
        return bytes(self.data[self.offsets[at] : self.offsets[at + 1]]).decode(
            errors="surrogatepass"
        )


@dataclass(frozen=True, eq=False)
class RecordColumns:
    """The m records that n rows are slots of, as far as a learner of chosen actions asks.

    Attributes:
        slots: int64[n].
        records: int64[n], which record each row is of.
        places: int64[n], the index of the row's chosen action among all of its record's.
        catalogues: int32[n], the place of each row's catalogue in ``known``.
        known: the catalogues.
        make_actions: gives what the rows chose.
        make_ids: gives the rows' event ids.
        make_context: gives the records' contexts, m maps.
        make_scores: gives the records' scores.
        make_chosen: gives the chosen actions' own features, n maps.
    """

    slots: Int64
    records: Int64
    places: Int64
    catalogues: Int32
    known: Sequence[Catalogue]
    make_actions: Callable[[], ChosenActions]
    make_ids: Callable[[], EventIds]
    make_context: Callable[[], FeatureColumns]
    make_scores: Callable[[], RecordScores]
    make_chosen: Callable[[], ChosenFeatures]

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, rows: Places) -> "RecordColumns":
        """Return some of the rows, in the order given."""
        return RecordColumns(
            self.slots[rows],
            self.records[rows],
            self.places[rows],
            self.catalogues[rows],
            self.known,
            lambda: ChosenActions(
                self.actions.names, self.actions.codes[rows], self.actions.available[rows]
            ),
            lambda: self.ids.take(rows),
            lambda: self.context,
            lambda: self.scores,
            lambda: ChosenFeatures(self.chosen.maps.take(rows), self.chosen.given[rows]),
        )

    @cached_property
    def actions(self) -> ChosenActions:
        """The chosen actions."""
        return self.make_actions()

    @cached_property
    def ids(self) -> EventIds:
        """The rows' event ids."""
        return self.make_ids()

    @cached_property
    def context(self) -> FeatureColumns:
        """The records' contexts, m maps."""
        return self.make_context()

    @cached_property
    def scores(self) -> RecordScores:
        """The records' scores."""
        return self.make_scores()

    @cached_property
    def chosen(self) -> ChosenFeatures:
        """The chosen actions' own features."""
        return self.make_chosen()
