"""Vowpal Wabbit's examples, made of arrays."""

from collections import Counter
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from vowpal_wabbit_next import CBLabel, Example

from bandits.types import ActionSet, ChosenRows, Context, Float32, Namespace, Row, UInt32
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
            for letter in example.feat_group_indices:
                del example[letter]

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
            for letter in example.feat_group_indices:
                del example[letter]

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
        # VW has no features of value 0.
        width, present = len(rows.spaces), rows.values != 0
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(present)])[rows.bounds]
        hashes, values = rows.hashes[present] & self._mask, rows.values[present]

        # Features that are the same have the same bytes.
        cells = np.empty((values.size, 3), np.uint32)
        cells[:, 0], cells[:, 1] = hashes, values.view(np.uint32)
        cells[:, 2] = np.repeat(np.tile(np.arange(width), len(rows)), np.diff(bounds))
        data, size = cells.tobytes(), cells.strides[0]
        starts = (size * bounds[::width]).tolist()
        middles = (size * bounds[rows.shared :: width][: len(rows)]).tolist()
        contexts = [data[a:b] for a, b in zip(starts[:-1], middles, strict=True)]
        actions = [data[b:c] for b, c in zip(middles, starts[1:], strict=True)]

        letters = [first_byte(name) for name in rows.spaces]
        wide = hashes.astype(np.uint64)
        ends = bounds.tolist()
        self._contexts.expect(contexts)
        self._actions.expect(actions)

        def fill(example: Example, row: int, spaces: range) -> None:
            for space in spaces:
                start, end = ends[row * width + space], ends[row * width + space + 1]
                if end > start:
                    example[letters[space]].push_many_features(wide[start:end], values[start:end])

        own, shared = range(rows.shared, width), range(rows.shared)
        for row, (context, action) in enumerate(zip(contexts, actions, strict=True)):
            first, empty = self._contexts.get(context)
            if empty:
                fill(first, row, shared)
            second, empty = self._actions.get(action)
            if empty:
                fill(second, row, own)
            yield [first, second]

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
        for letter in example.feat_group_indices:
            del example[letter]
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
