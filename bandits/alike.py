"""Several decisions at once, over actions whose features have the same names."""

from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.features.namespaces import CONTEXT, FEATURES, ITEM
from bandits.types import Float32, Float64, UInt32


class AlikeDecisions(msgspec.Struct, frozen=True, eq=False, gc=False):
    """R decisions over N actions in all, whose features have the same names.

    ``starts``: int64[R + 1]; the actions of decision r are those from ``starts[r]`` up to
    ``starts[r + 1]``. ``names``: uint32[F], the hashes of the features, of the namespace FEATURES.
    ``values``: float32[n, F], in which ``rows``, int64[N], is where each action's are; -1: it has
    none. ``items``: uint32[N], the hash of each action's indicator, of the namespace ITEM; empty if
    the learner does not see it. ``shared``, ``shared_values``: the features of the contexts, [C],
    of which decision r has those from ``shared_starts[r]`` up to ``shared_starts[r + 1]``.
    """

    starts: NDArray[np.int64]
    items: UInt32
    names: UInt32
    values: Float32
    rows: NDArray[np.int64]
    shared_starts: NDArray[np.int64]
    shared: UInt32
    shared_values: Float32

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def spaces(self) -> tuple[str, ...]:
        """The names of the actions' namespaces, in the order of their features."""
        return (ITEM, FEATURES) if self.items.size else (FEATURES,)

    @property
    def shared_spaces(self) -> tuple[str, ...]:
        """The name of the contexts' namespace."""
        return (CONTEXT,)


class PolicyOfEach(Protocol):
    """A policy that can be asked for the PMFs of several decisions at once."""

    def pmf_of_each(self, decisions: AlikeDecisions) -> Float64 | None:
        """Return the PMFs that ``Policy.pmf`` gives, one after the other, float64[N].

        None: this policy has to be asked for them one by one.
        """
        ...
