"""From hashed features to the columns of a design matrix, handed out as features are first met."""

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter

import numpy as np

from bandits.features.flat import Sizes, Spaces, concatenated, flatten, names_of, numbered, triples
from bandits.features.hashing import hash_feature
from bandits.kernels.compiled import Bools, Float32, Int32, Int64, UInt32
from bandits.kernels.features import columns_of_rows, design_matrix, fill_table
from bandits.types import ActionSet, ChosenRows, Context, Float64, Row, frozen

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
        hashes: list[int] = self._hashes[: self._size].tolist()
        return hashes

    def matrix(
        self, context: Context, actions: ActionSet, *, dense: bool = False, relative: bool = False
    ) -> tuple[Int64, Float64, Float64]:
        """Return the features of every action, interactions included.

        Args:
            context: what the actions share.
            actions: K of them.
            dense: all columns are returned, not only those that may occur.
            relative: all that the actions have in common is left out, the intercept and the context
                among it.

        Returns:
            The columns, int64[n]; their values, float64[K, n]; and for each action, float64[K], the
            sum of squares of the features that were never met and could still get a column, without
            those of the context, which tell no action from another.
        """
        flat = flatten(context, actions)
        space, spans, shared_space = _numbers(flat.shared_spaces, flat.spaces, flat.widths)
        alone, crossed, own_pairs, shared_pairs = _plan(
            self._interactions,
            self._ignored,
            names_of(flat.shared_spaces),
            names_of(flat.spaces),
        )

        made: tuple[Int64, Float64, Float64] = design_matrix(
            self._keys,
            self._places,
            self._size,
            dense,
            relative,
            self._size < self.limit,
            # The decision's features.
            flat.names,
            flat.codes,
            flat.values,
            spans,
            flat.shared,
            flat.shared_values,
            # Their namespaces, and which are crossed.
            space,
            shared_space,
            alone,
            crossed,
            own_pairs,
            shared_pairs,
        )
        # Without an intercept column 0 is there, and is 0.
        if not self._intercept:
            made[1][:, 0] = 0.0
        return made

    def rows(self, batch: Sequence[Row], learn: Sequence[bool]) -> tuple[Int64, Int64, Float64]:
        """Return the columns and values of one action each.

        What a row becomes depends on the rows before it, not on how many are asked for at once.

        Args:
            batch: the features of R actions, each with its context.
            learn: by row, whether a feature first met gets a column, up to the limit.

        Returns:
            Where each row starts, int64[R + 1], the last one's end included; then the columns,
            int64[n], and the values, float64[n]. A feature that occurs twice in a row has two.
        """
        begins, columns, values, _ = self._rows(batch, learn)
        return begins, columns, values

    def learned_rows(self, batch: ChosenRows) -> tuple[Int64, Int64, Float64]:
        """Return what ``rows`` does of rows that are columns already.

        Args:
            batch: R rows.
        """
        count, width = len(batch), len(batch.spaces)
        spaces = tuple(sorted(batch.spaces))
        bounds, hashes, values = batch.bounds, batch.hashes, batch.values

        # One segment per namespace of a row, in the order of their names.
        if spaces != batch.spaces:
            order = [batch.spaces.index(name) for name in spaces]
            starts = bounds[:-1].reshape(count, width)[:, order].ravel()
            sizes = np.diff(bounds).reshape(count, width)[:, order].ravel()
            bounds = _starts(sizes)
            cells = np.arange(bounds[-1]) + np.repeat(starts - bounds[:-1], sizes)
            hashes, values = hashes[cells], values[cells]

        begins, columns, filled, _ = self._of_segments(
            width * np.arange(count + 1),
            np.tile(np.arange(width, dtype=np.int32), count),
            bounds,
            hashes,
            values,
            spaces,
            np.ones(count, np.bool_) if batch.learns is None else batch.learns,
        )
        return begins, columns, filled

    def without_column(self, batch: Sequence[Row]) -> Int64:
        """Return how many features of each row have no column, int64[R]."""
        return self._rows(batch, [False] * len(batch))[3]

    def _rows(
        self, batch: Sequence[Row], learn: Sequence[bool]
    ) -> tuple[Int64, Int64, Float64, Int64]:
        # One segment per namespace of a row, in the order of their names.
        parts = [
            namespace
            for row in batch
            for namespace in (sorted(row, key=_by_name) if len(row) > 1 else row)
        ]

        spaces = tuple(sorted(set(map(_by_name, parts))))
        number = {name: at for at, name in enumerate(spaces)}
        return self._of_segments(
            _starts(list(map(len, batch))),
            np.array([number[namespace.name] for namespace in parts], np.int32),
            _starts([namespace.values.size for namespace in parts]),
            concatenated([namespace.hashes for namespace in parts], np.uint32),
            concatenated([namespace.values for namespace in parts], np.float32),
            spaces,
            np.array(learn, np.bool_),
        )

    def _of_segments(
        self,
        first: Int64,
        space: Int32,
        start: Int64,
        hashes: UInt32,
        values: Float32,
        spaces: tuple[str, ...],
        learn: Bools,
    ) -> tuple[Int64, Int64, Float64, Int64]:
        """Return begins, columns, values, and what has no column; see ``columns_of_rows``."""
        alone, pairs = _own_plan(self._interactions, self._ignored, spaces)

        self._size, begins, columns, filled, without = columns_of_rows(
            self._keys,
            self._places,
            self._hashes,
            self._size,
            self.limit,
            first,
            space,
            start,
            hashes,
            values,
            alone,
            pairs,
            learn,
        )
        # The first value of each row is its intercept.
        if not self._intercept:
            filled[begins[:-1]] = 0.0
        return begins, columns, filled, without


@lru_cache(maxsize=256)
def _plan(
    interactions: Interactions, ignored: str | None, shared: tuple[str, ...], own: tuple[str, ...]
) -> tuple[Bools, Int32, Int32, Int32]:
    """Return what ``design_matrix`` asks of namespaces.

    Args:
        interactions: the pairs that are crossed.
        ignored: a namespace that has no columns of its own.
        shared: the names of the context's namespaces, which are numbered first.
        own: the names of the actions' namespaces.

    Returns:
        Which have columns of their own; then the pairs of one of each kind, of two of the actions',
        and of two of the context's.
    """
    number = {name: at for at, name in enumerate((*shared, *own))}
    pairs = [
        (number[first], number[second])
        for first, second in interactions
        if {first, second} <= number.keys()
    ]

    # Namespaces below ``before`` are the context's.
    before = len(shared)
    crossed = [
        (a, b, 0) if a >= before else (b, a, 1) for a, b in pairs if (a < before) != (b < before)
    ]
    within = [(a, b, 0) for a, b in pairs if min(a, b) >= before]
    around = [(a, b, 0) for a, b in pairs if max(a, b) < before]
    return _alone((*shared, *own), ignored), triples(crossed), triples(within), triples(around)


@lru_cache(maxsize=64)  # each may be of a hundred thousand names
def _numbers(shared: Spaces, own: Spaces, widths: Sizes) -> tuple[Int32, Int64, Int32]:
    """Return each name's namespace, where the actions' namespaces start, and the context's."""
    return numbered(own, len(shared)), frozen(np.cumsum((0, *widths))), numbered(shared)


@lru_cache(maxsize=256)
def _own_plan(
    interactions: Interactions, ignored: str | None, spaces: tuple[str, ...]
) -> tuple[Bools, Int32]:
    number = {name: at for at, name in enumerate(spaces)}
    pairs = [
        (number[first], number[second], 0)
        for first, second in interactions
        if {first, second} <= number.keys()
    ]
    return _alone(spaces, ignored), triples(pairs)


def _alone(spaces: tuple[str, ...], ignored: str | None) -> Bools:
    """Return which namespaces have columns of their own."""
    alone: Bools = frozen(np.array([name != ignored for name in spaces], np.bool_))
    return alone


def _starts(lengths: Sequence[int] | Int64) -> Int64:
    starts: Int64 = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.array(lengths, np.int64))])
    return starts
