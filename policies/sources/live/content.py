"""Items like those of a user's history, also such as nobody has seen yet."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from bandits.errors import InvalidFieldError
from bandits.types import Float32, frozen
from policies.artifacts.source_artifact import Calibration
from policies.requests import Item
from policies.sources.base import Candidates, Passes, SourceRequest
from policies.sources.live.item_encoder import ItemEncoder, taken_next
from policies.sources.live.live_vectors import LiveVectors
from policies.sources.places import ItemOrder

NO_STEPS: Final[Float32] = frozen(np.zeros((0, 0, 0), np.float32))
"""Of a source that was not fine-tuned: the last items add nothing."""


class LiveContent(LiveVectors):
    """Proposes the items nearest to what a user's history is like on average, by their cosine.

    A user's vector is the mean of those of the history's items, each weighed as the profile has it,
    and what the last of them say of the next one, where that was fine-tuned.

    Args:
        name: the source's.
        vectors: makes an item's vector.
        scale: of its cosines.
        items: those that profiles name, in their order.
        trained: float32[items, size], the vectors of these, proposed while there is no catalogue.
        steps: float32[steps, size, size], see ``taken_next``; None: the order says nothing.
    """

    def __init__(
        self,
        name: str,
        vectors: ItemEncoder,
        scale: Calibration,
        items: ItemOrder,
        trained: Float32 | None = None,
        steps: Float32 | None = None,
    ) -> None:
        super().__init__(name, scale, items, trained)
        self._of = vectors
        self._steps = steps
        self.reads_order = steps is not None

    @property
    def size(self) -> int:
        """Numbers of an item's vector; 0 while that is not known."""
        return self._of.size

    def look_at(self, items: Iterable[Item | None]) -> None:
        """Learn how long vectors are.

        Args:
            items: those that have come.
        """
        made = self._of.sized(items)
        if any((made.vectors or {}).values()):
            self._of = made

    @property
    def is_measured(self) -> bool:
        """Whether it is known how long all of an item's own vectors are."""
        return self.size > 0 and all((self._of.vectors or {}).values())

    def vector_lengths(self, but: Collection[str] | None) -> Mapping[str, int]:
        """Return how long the vectors are of all items but some; see ``VectorReader``.

        Args:
            but: those that are about to be others; None: all.
        """
        lengths = self._of.vectors or {}
        if self._trained is not None:
            return lengths
        # Who has a text is held by it alone, whether or not there is a vector.
        if self._of.encoder is not None:
            return {}
        return dict.fromkeys(lengths, 0) if but is None or self._none_stays(but) else lengths

    def vector_of(self, item_id: str, item: Item | None) -> Float32 | None:
        """Return an item's vector; None if nothing is said of it.

        Of an item that is gone, or of which nothing is said now, counts what was said when it was
        trained: a history speaks by what was sold out, too.

        Args:
            item_id: whose.
            item: as it is now; None if it is gone.
        """
        vector = None if item is None else self._of.of(item)
        return self.trained_vector(item_id) if vector is None else vector

    def vectors_of(
        self, ids: Sequence[str], items: Sequence[Item | None]
    ) -> list[Float32 | InvalidFieldError | None]:
        """Return the vector of each item, or why it has none; see ``vector_of``.

        Args:
            ids: whose.
            items: each as it is now; None if it is gone.
        """
        made = zip(ids, self._of.of_each(items), strict=True)
        return [self.trained_vector(item_id) if each is None else each for item_id, each in made]

    def user_of(self, request: SourceRequest, rows: Float32, weights: Float32) -> Float32 | None:
        """Return the mean of the history's vectors, of length 1, and what its last items add.

        None if that is nothing.

        Args:
            request: is not looked at.
            rows: the vectors of the history's items, float32[h, size].
            weights: float32[h], how strongly each speaks for its item.
        """
        del request
        user = taken_next(rows, weights, NO_STEPS if self._steps is None else self._steps)
        return user if user.any() else None

    def similar(self, item_id: str, limit: int, passes: Passes | None = None) -> Candidates | None:
        """Return the items nearest to one, best first, by their cosine; not itself.

        Args:
            item_id: the one, whether or not it may be offered.
            limit: how many at most.
            passes: the filter that these pass; None: there is none.

        Returns:
            None if nothing is said of the one.
        """
        index = self._current()
        row = index.rows([item_id])
        if row[0] < 0:
            return None
        admits = None if passes is None else self._passing(passes)
        return Candidates(*index.nearest(index.vectors(row)[0], row, limit, admits=admits))
