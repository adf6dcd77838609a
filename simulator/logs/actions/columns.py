"""Rows of a log as flat arrays: the actions of one row after those of another, features as codes.

What is distinct (an action id, a feature's name, a text) is listed once, and stands in the arrays
as its place in the list. So whoever hashes or looks up does it once for each, not once a row.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float32, Float64
from bandits.values import FeatureMap, Value
from policies.requests import is_private

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]
CodedTexts = tuple[Int32, Sequence[str]]
"""The places of texts in a list, and the list."""
Places = NDArray[np.integer] | NDArray[np.bool_] | slice
"""Which rows or maps: their numbers, a mask, or a slice."""


class Term(NamedTuple):
    """A feature without its number.

    ``kind``: ``number`` and ``flag`` have their value beside them; ``text`` is a text, ``texts``
    one text of a list, and ``empty`` a list without any.
    """

    name: str
    kind: Literal["number", "flag", "text", "texts", "empty"] = "number"
    text: str = ""


@dataclass(frozen=True, eq=False)
class FeatureColumns:
    """The feature maps of m contexts or actions, one after the other, each in its own order.

    A map that is None has no entries, as an empty one.

    Attributes:
        offsets: int64[m + 1]; map i has the entries ``offsets[i]`` to ``offsets[i + 1]``.
        codes: int32[e], the place of each entry in ``terms``. Each text of a list is an entry.
        values: float64[e], the number, 1 or 0 for a flag, 1 for a text.
        terms: what each code means, each once.
    """

    offsets: Int64
    codes: Int32
    values: Float64
    terms: Sequence[Term]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, maps: Places) -> "FeatureColumns":
        """Return some of the maps, in the order given."""
        offsets, entries = take_entries(self.offsets, maps)
        return FeatureColumns(offsets, self.codes[entries], self.values[entries], self.terms)

    def without(self, names: Collection[str]) -> "FeatureColumns":
        """Return the maps without the features of some names, and all below them."""
        is_kept = np.array([not is_private(term.name, names) for term in self.terms], np.bool_)
        kept = is_kept[self.codes] if len(self.terms) else np.zeros(0, np.bool_)
        ends = np.concatenate([[0], np.cumsum(kept)])
        return FeatureColumns(ends[self.offsets], self.codes[kept], self.values[kept], self.terms)

    def feature_map(self, at: int) -> FeatureMap:
        """Return one map as a record has it."""
        out: dict[str, Value] = {}
        for entry in range(int(self.offsets[at]), int(self.offsets[at + 1])):
            name, kind, text = self.terms[self.codes[entry]]
            if kind == "number":
                out[name] = float(self.values[entry])
            elif kind == "flag":
                out[name] = bool(self.values[entry])
            elif kind == "text":
                out[name] = text
            else:
                texts = out.setdefault(name, [])
                assert isinstance(texts, list)  # noqa: S101 - all entries of a name are of one kind
                texts += [text] if kind == "texts" else []
        return out


class SourceScores(NamedTuple):
    """One source's scores of the actions of n rows.

    ``values``: float32[total], NaN where it has none. ``answered``: bool[n], the rows in which it
    said anything, be it that it knows none of the actions; None: all.
    """

    values: Float32
    answered: Bools | None = None


@dataclass(frozen=True, eq=False)
class ActionColumns:
    """The actions of n rows, and what the log says of each.

    Ids, scores and features are made when they are first asked for: an estimate by weights looks at
    no feature and at no id but those of chosen actions, so that whoever reads a file need not.

    Attributes:
        offsets: int64[n + 1]; row i has the actions ``offsets[i]`` to ``offsets[i + 1]``, one or
            more, total = ``offsets[n]``. ``offsets[0]`` is 0.
        make_ids: gives ``ids`` and ``names``.
        chosen: int64[n], the index of each row's chosen action among its own.
        pmf: float64[total], the logging policy's, NaN throughout a row whose PMF is not known;
            None where no row's is.
        make_scores: gives the scores by source.
        make_context: gives the rows' contexts, n maps.
        make_features: gives the actions' own features, total maps; None where none has any.
        make_chosen_ids: gives ``chosen_ids``, where these are at hand without the others.
    """

    offsets: Int64
    make_ids: Callable[[], CodedTexts]
    chosen: Int64
    pmf: Float64 | None = None
    make_scores: Callable[[], Mapping[str, SourceScores]] = dict
    make_context: Callable[[], FeatureColumns | None] = lambda: None
    make_features: Callable[[], FeatureColumns | None] = lambda: None
    make_chosen_ids: Callable[[], CodedTexts] | None = None

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def total(self) -> int:
        """How many actions all rows have."""
        return int(self.offsets[-1])

    @cached_property
    def _coded_ids(self) -> CodedTexts:
        return self.make_ids()

    @property
    def ids(self) -> Int32:
        """The place of each action's id in ``names``, int32[total]."""
        return self._coded_ids[0]

    @property
    def names(self) -> Sequence[str]:
        """The distinct ids; there may be some that no row has."""
        return self._coded_ids[1]

    @cached_property
    def chosen_ids(self) -> CodedTexts:
        """The ids of the chosen actions: int32[n], and the texts that these are the places of."""
        if self.make_chosen_ids is not None:
            return self.make_chosen_ids()
        return self.ids[self.chosen_at], self.names

    @cached_property
    def scores(self) -> Mapping[str, SourceScores]:
        """The scores by source."""
        return self.make_scores()

    @cached_property
    def context(self) -> FeatureColumns:
        """The rows' contexts, n maps."""
        made = self.make_context()
        return no_maps(len(self)) if made is None else made

    @cached_property
    def features(self) -> FeatureColumns | None:
        """The actions' own features, total maps, or None where none has any."""
        return self.make_features()

    @cached_property
    def counts(self) -> Int64:
        """The number of actions of each row, int64[n]."""
        return np.diff(self.offsets)

    @cached_property
    def chosen_at(self) -> Int64:
        """The place of each row's chosen action in the flat arrays, int64[n]."""
        return self.offsets[:-1] + self.chosen

    @cached_property
    def lacking(self) -> Bools:
        """The rows whose PMF is not known, bool[n]."""
        if self.pmf is None:
            return np.ones(len(self), np.bool_)
        return np.isnan(self.pmf[self.offsets[:-1]])

    def take(self, rows: Places) -> "ActionColumns":
        """Return some of the rows, in the order given."""
        offsets, actions = take_entries(self.offsets, rows)

        def scores() -> Mapping[str, SourceScores]:
            return {
                source: SourceScores(values[actions], None if where is None else where[rows])
                for source, (values, where) in self.scores.items()
            }

        def features() -> FeatureColumns | None:
            return None if self.features is None else self.features.take(actions)

        def chosen_ids() -> CodedTexts:
            return self.chosen_ids[0][rows], self.chosen_ids[1]

        return ActionColumns(
            offsets,
            lambda: (self.ids[actions], self.names),
            self.chosen[rows],
            None if self.pmf is None else self.pmf[actions],
            scores,
            lambda: self.context.take(rows),
            features,
            chosen_ids,
        )


def distinct_codes(codes: Int32 | Int64, size: int) -> tuple[Int64, Int64]:
    """Return which codes there are, ascending, and which of them each of n is, both int64.

    Args:
        codes: [n], each below ``size``.
        size: How many there may be.
    """
    there = np.zeros(size, np.bool_)
    there[codes] = True
    return np.flatnonzero(there), (np.cumsum(there) - 1)[codes]


def spread(starts: Int64, counts: Int64) -> Int64:
    """Return ``counts[i]`` numbers from ``starts[i]`` on, for each i, one after the other.

    Args:
        starts: int64[n].
        counts: int64[n].
    """
    ends = np.cumsum(counts)
    return np.repeat(starts - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)


def take_entries(offsets: Int64, places: Places) -> tuple[Int64, Int64 | slice]:
    """Return the offsets of some rows, and which entries are theirs.

    Args:
        offsets: int64[n + 1], where the entries of each of n rows begin.
        places: Which rows.
    """
    counts, starts = np.diff(offsets)[places], offsets[:-1][places]
    taken = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=taken[1:])
    if isinstance(places, slice) and places.step in {None, 1}:
        first = int(starts[0]) if len(starts) else 0
        return taken, slice(first, first + int(taken[-1]))
    return taken, spread(starts, counts)


def no_maps(count: int) -> FeatureColumns:
    """Return maps without entries."""
    nothing = np.zeros(0)
    return FeatureColumns(np.zeros(count + 1, np.int64), nothing.astype(np.int32), nothing, ())
