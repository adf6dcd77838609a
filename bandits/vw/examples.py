"""Vowpal Wabbit's examples, made of arrays."""

import numpy as np
from numpy.typing import NDArray
from vowpal_wabbit_next import CBLabel, Example

from bandits.types import ActionSet, Context, Float32, Namespace, Row, UInt32
from bandits.vw.weights import first_byte

NO_LABEL = CBLabel()
_SHARED = CBLabel(shared=True)
_KEPT = 256


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


def _push_row(
    example: Example, letter: int, hashes: NDArray[np.uint64], values: Float32, *, padded: bool
) -> None:
    """Push features: VW has none of value 0, and no namespace without features."""
    if padded:
        present = values != 0
        hashes, values = hashes[present], values[present]
    if values.size:
        example[letter].push_many_features(hashes, values)
