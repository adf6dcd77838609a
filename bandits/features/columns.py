"""From hashed features to the columns of a design matrix, handed out as features are first met."""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter

import numpy as np

from bandits.features.flat import Sizes, Spaces, flatten, joined, names_of, numbered, triples
from bandits.features.hashing import hash_feature
from bandits.kernels.compiled import Bools, Int32, Int64
from bandits.kernels.features import columns_of_rows, design, fill_table
from bandits.types import ActionSet, Context, Float64, Row, frozen

INTERCEPT = hash_feature("constant", "constant")
Interactions = tuple[tuple[str, str], ...]
_by_name = attrgetter("name")


class FeatureIndex:
    """Columns for feature hashes, in the order they were first met. Column 0 is the intercept.

    ``interactions``: pairs of namespaces that are crossed. ``ignored``: a namespace that has no
    columns of its own. ``limit``: the most columns there will be; a feature first met after that is
    ignored. ``intercept``: without it column 0 is there and is 0, so its weight is that of the
    prior and enters no sum.
    """

    def __init__(
        self,
        interactions: Sequence[tuple[str, str]],
        ignored: str | None,
        limit: int,
        hashes: Sequence[int],
        *,
        intercept: bool = True,
    ) -> None:
        self._intercept = intercept
        self._interactions: Interactions = tuple((first, second) for first, second in interactions)
        self._ignored = ignored
        self.limit = max(limit, len(hashes))
        self._hashes = np.zeros(self.limit, np.uint32)
        self._hashes[: len(hashes)] = hashes
        self._size = len(hashes)
        places = 1 << (2 * self.limit).bit_length()
        self._keys, self._places = np.zeros(places, np.uint32), np.full(places, -1, np.int32)
        fill_table(self._keys, self._places, self._hashes[: self._size])

    def __len__(self) -> int:
        return self._size

    @property
    def hashes(self) -> list[int]:
        """The hash of each column."""
        found: list[int] = self._hashes[: self._size].tolist()
        return found

    def matrix(
        self, context: Context, actions: ActionSet, *, dense: bool = False, relative: bool = False
    ) -> tuple[Int64, Float64, Float64]:
        """The features of every action, interactions included.

        Returns the columns that may occur, int64[n], or all if ``dense``, and their values,
        float64[K, n]. And of the features that were never met, and could still get a column, the
        sum of squares per action, float64[K]; without those of the context, which tell no action
        from another. ``relative``: without all that the actions have in common, the intercept and
        the context as well.
        """
        flat = flatten(context, actions)
        space, spans, shared_space = _numbers(flat.shared_spaces, flat.spaces, flat.widths)
        plan = _plan(
            self._interactions, self._ignored, names_of(flat.shared_spaces), names_of(flat.spaces)
        )
        found: tuple[Int64, Float64, Float64] = design(
            self._keys,
            self._places,
            self._size,
            dense,
            relative,
            self._size < self.limit,
            flat.names,
            space,
            flat.codes,
            flat.values,
            spans,
            flat.shared,
            flat.shared_values,
            shared_space,
            *plan,
        )
        if not self._intercept:
            found[1][:, 0] = 0.0
        return found

    def rows(self, batch: Sequence[Row], learn: Sequence[bool]) -> tuple[Int64, Int64, Float64]:
        """Columns and values of one action each.

        Where ``learn``, a feature first met gets a column, up to the limit.

        Returns where in the columns, int64[n], and values, float64[n], each row starts, and the
        last one ends. Of a feature that occurs twice in a row there are two values. What a row
        becomes depends on the rows before it, not on how many are asked for together.
        """
        begins, columns, found, _ = self._rows(batch, learn)
        return begins, columns, found

    def without_column(self, batch: Sequence[Row]) -> Int64:
        """Of each row, int64[n], how many features have no column."""
        return self._rows(batch, [False] * len(batch))[3]

    def _rows(
        self, batch: Sequence[Row], learn: Sequence[bool]
    ) -> tuple[Int64, Int64, Float64, Int64]:
        parts = [
            namespace
            for row in batch
            for namespace in (sorted(row, key=_by_name) if len(row) > 1 else row)
        ]
        spaces = tuple(sorted(set(map(_by_name, parts))))
        number = {name: at for at, name in enumerate(spaces)}
        alone, pairs = _own_plan(self._interactions, self._ignored, spaces)
        self._size, begins, columns, found, without = columns_of_rows(
            self._keys,
            self._places,
            self._hashes,
            self._size,
            self.limit,
            _starts(list(map(len, batch))),
            np.array([number[namespace.name] for namespace in parts], np.int32),
            _starts([namespace.values.size for namespace in parts]),
            joined([namespace.hashes for namespace in parts], np.uint32),
            joined([namespace.values for namespace in parts], np.float32),
            alone,
            pairs,
            np.array(learn, np.bool_),
        )
        if not self._intercept:
            found[begins[:-1]] = 0.0
        return begins, columns, found, without


@lru_cache(maxsize=256)
def _plan(
    interactions: Interactions, ignored: str | None, shared: tuple[str, ...], own: tuple[str, ...]
) -> tuple[Bools, Int32, Int32, Int32]:
    """What ``design`` asks of namespaces: which have columns.

    Pairs of both kinds, of actions', of the context's.
    """
    number = {name: at for at, name in enumerate((*shared, *own))}
    known = [
        (number[first], number[second])
        for first, second in interactions
        if {first, second} <= number.keys()
    ]
    before = len(shared)
    crossed = [
        (a, b, 0) if a >= before else (b, a, 1) for a, b in known if (a < before) != (b < before)
    ]
    within = [(a, b, 0) for a, b in known if min(a, b) >= before]
    around = [(a, b, 0) for a, b in known if max(a, b) < before]
    return _alone((*shared, *own), ignored), triples(crossed), triples(within), triples(around)


@lru_cache(maxsize=64)  # each may be of a hundred thousand names
def _numbers(shared: Spaces, own: Spaces, widths: Sizes) -> tuple[Int32, Int64, Int32]:
    """The namespace of each name, where each of the actions' namespaces starts, and those of the context's features."""
    return numbered(own, len(shared)), frozen(np.cumsum((0, *widths))), numbered(shared)


@lru_cache(maxsize=256)
def _own_plan(
    interactions: Interactions, ignored: str | None, spaces: tuple[str, ...]
) -> tuple[Bools, Int32]:
    number = {name: at for at, name in enumerate(spaces)}
    known = [
        (number[first], number[second], 0)
        for first, second in interactions
        if {first, second} <= number.keys()
    ]
    return _alone(spaces, ignored), triples(known)


def _alone(spaces: tuple[str, ...], ignored: str | None) -> Bools:
    """Which have columns of their own."""
    alone: Bools = frozen(np.array([name != ignored for name in spaces], np.bool_))
    return alone


def _starts(lengths: Sequence[int]) -> Int64:
    starts: Int64 = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(lengths, np.int64))])
    return starts
