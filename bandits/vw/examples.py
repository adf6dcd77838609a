"""Vowpal Wabbit's examples, made of arrays."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from vowpal_wabbit_next import CBLabel, Example

from bandits.types import (
    ActionSet,
    ChosenRows,
    Context,
    DecisionRows,
    Float32,
    Namespace,
    Row,
    UInt32,
)
from bandits.vw.weights import first_byte

NO_LABEL = CBLabel()
_SHARED = CBLabel(shared=True)
_KEPT = 256
"""The most arrays, or filled examples of a kind, that are kept."""


class Examples:
    """Makes VW's examples as its text parser would: masked hashes, no zeros, the shared one first.

    Examples are reused: an empty one is some 30 kB of VW's memory, and costs more to make than to
    fill.
    """

    def __init__(self, bits: int) -> None:
        self._mask = np.uint32((1 << bits) - 1)
        # By the id of an array of hashes, which is kept beside it.
        self._masks: dict[int, tuple[UInt32, NDArray[np.uint64]]] = {}
        self._pool = [Example()]
        self._pool[0].set_label(_SHARED)
        self._contexts, self._actions = _Kept(_SHARED), _Kept(NO_LABEL)

    def fill(self, context: Context, actions: ActionSet) -> list[Example]:
        """Return the shared example and one per action; valid until the next call.

        Args:
            context: the features of the shared example.
            actions: K of them, in the order of their examples.
        """
        while len(self._pool) <= len(actions):
            self._pool.append(Example())
            self._pool[-1].set_label(NO_LABEL)

        examples = self._pool[: 1 + len(actions)]
        for example in examples:
            _empty(example)

        for namespace in context.namespaces:
            self._push(examples[:1], namespace)
        for namespace in actions.namespaces:
            self._push(examples[1:], namespace)
        return examples

    def fill_one(self, shared: Row, own: Row) -> list[Example]:
        """Return the shared example and that of one action; valid until the next call.

        Args:
            shared: the features of the context.
            own: the features of the action.
        """
        if len(self._pool) == 1:
            self._pool.append(Example())

        # The first example is the shared one.
        examples = self._pool[:2]
        for example, features in zip(examples, (shared, own), strict=True):
            _empty(example)
            for namespace in features:
                values = namespace.values
                padded = bool(np.count_nonzero(values) < values.size)
                _push_row(
                    example,
                    first_byte(namespace.name),
                    self._masked(namespace.hashes),
                    values,
                    padded=padded,
                )
        return examples

    def fill_rows(self, rows: ChosenRows) -> Iterator[list[Example]]:
        """Yield what ``fill_one`` returns of each row; valid until the next one.

        A context or an action that several of the rows have is filled once.

        Args:
            rows: whose features are wanted.
        """
        cells = _Cells(rows, self._mask)
        actions = cells.keys(cells.own)
        self._actions.expect(actions)
        for row, (first, action) in enumerate(zip(self._shared(cells), actions, strict=True)):
            second, empty = self._actions.get(action)
            if empty:
                cells.fill(second, row, cells.own)
            yield [first, second]

    def fill_decisions(self, rows: DecisionRows) -> Iterator[list[Example]]:
        """Yield what ``fill`` returns of each decision; valid until the next one.

        An action of several decisions is filled once, with its features of all of them.

        Args:
            rows: whose features are wanted.
        """
        own = _Cells(rows.actions, self._mask)
        while len(self._pool) <= len(rows.actions):
            self._pool.append(Example())
            self._pool[-1].set_label(NO_LABEL)
        for number in range(len(rows.actions)):
            example = self._pool[1 + number]
            _empty(example)
            own.fill(example, number, own.own)

        codes, ends = (1 + rows.codes).tolist(), rows.offsets.tolist()
        for row, first in enumerate(self._shared(_Cells(rows.contexts, self._mask))):
            yield [first, *(self._pool[code] for code in codes[ends[row] : ends[row + 1]])]

    def _shared(self, cells: "_Cells") -> Iterator[Example]:
        """Yield the shared example of each row."""
        contexts = cells.keys(cells.shared)
        self._contexts.expect(contexts)
        for row, context in enumerate(contexts):
            example, empty = self._contexts.get(context)
            if empty:
                cells.fill(example, row, cells.shared)
            yield example

    def _masked(self, hashes: UInt32) -> NDArray[np.uint64]:
        """Return hashes as VW takes them; the last arrays are kept, since rows share them."""
        kept = self._masks.get(id(hashes))
        if kept is None:
            if len(self._masks) == _KEPT:
                self._masks.clear()
            kept = self._masks[id(hashes)] = hashes, (hashes & self._mask).astype(np.uint64)
        return kept[1]

    def _push(self, examples: list[Example], namespace: Namespace) -> None:
        letter = first_byte(namespace.name)
        values = np.atleast_2d(namespace.values)
        hashes = np.broadcast_to((namespace.cells() & self._mask).astype(np.uint64), values.shape)
        padded = not values.all()
        for example, row_hashes, row_values in zip(examples, hashes, values, strict=True):
            _push_row(example, letter, row_hashes, row_values, padded=padded)


class _Cells:
    """The features of rows that are columns, as VW has them: masked, and none of value 0."""

    def __init__(self, rows: ChosenRows, mask: np.uint32) -> None:
        self._width, present = len(rows.spaces), rows.values != 0
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(present)])[rows.bounds]
        hashes, self._values = rows.hashes[present] & mask, rows.values[present]
        self._hashes, self._ends = hashes.astype(np.uint64), bounds.tolist()
        self._letters = [first_byte(name) for name in rows.spaces]
        self.shared, self.own = range(rows.shared), range(rows.shared, self._width)

        # Features that are the same have the same bytes.
        cells = np.empty((hashes.size, 3), np.uint32)
        cells[:, 0], cells[:, 1] = hashes, self._values.view(np.uint32)
        cells[:, 2] = np.repeat(np.tile(np.arange(self._width), len(rows)), np.diff(bounds))
        self._data, self._size = cells.tobytes(), cells.strides[0]

    def keys(self, spaces: range) -> list[bytes]:
        """Return the bytes of each row's features in some namespaces."""
        size, ends = self._size, self._ends
        starts, stops = ends[spaces.start :: self._width], ends[spaces.stop :: self._width]
        return [self._data[size * a : size * b] for a, b in zip(starts, stops, strict=False)]

    def fill(self, example: Example, row: int, spaces: range) -> None:
        """Push a row's features in some namespaces."""
        for space in spaces:
            at = row * self._width + space
            start, end = self._ends[at], self._ends[at + 1]
            if end > start:
                cells = slice(start, end)
                example[self._letters[space]].push_many_features(
                    self._hashes[cells], self._values[cells]
                )


def _empty(example: Example) -> None:
    for letter in example.feat_group_indices:
        del example[letter]


class _Kept:
    """Examples by the bytes of their features: those that most rows of a batch have, and one more.

    It stays bounded, and an example that only one row has is not worth one of its own.
    """

    def __init__(self, label: CBLabel) -> None:
        self._label = label
        self._filled: dict[bytes, Example] = {}
        self._wanted: set[bytes] = set()
        self._spare: list[Example] = []
        self._passing = self._make()

    def expect(self, keys: list[bytes]) -> None:
        """Make room for what these rows have in common, and forget the rest."""
        common = Counter(keys).most_common(_KEPT)
        self._wanted = {key for key, count in common if count > 1}
        for key in self._filled.keys() - self._wanted:
            self._spare.append(self._filled.pop(key))

    def get(self, key: bytes) -> tuple[Example, bool]:
        """Return the example of some features, and whether it has yet to be filled."""
        kept = self._filled.get(key)
        if kept is not None:
            return kept, False

        example = self._passing
        if key in self._wanted:
            example = self._filled[key] = self._spare.pop() if self._spare else self._make()
        _empty(example)
        return example, True

    def _make(self) -> Example:
        example = Example()
        example.set_label(self._label)
        return example


def _push_row(
    example: Example, letter: int, hashes: NDArray[np.uint64], values: Float32, *, padded: bool
) -> None:
    """Push features: VW has none of value 0, and no namespace without features."""
    if padded:
        present = values != 0
        hashes, values = hashes[present], values[present]
    if values.size:
        example[letter].push_many_features(hashes, values)
