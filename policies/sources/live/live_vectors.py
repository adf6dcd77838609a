"""Items by their vectors, over the items of now: also such as nobody has seen yet."""

import copy
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError
from bandits.types import Float32, frozen
from policies.artifacts.source_artifact import Calibration
from policies.items.offering import Offering
from policies.requests import Item
from policies.sources.base import Candidates, ImmediateSource, Passes, SourceRequest
from policies.sources.highest import Admits
from policies.sources.live.vector_index import HeldVectors, VectorIndex
from policies.sources.local import EMPTY
from policies.sources.loops import standardised
from policies.sources.places import ItemOrder, RuledRows

REMEMBERED: Final = 10_000
"""Items without a vector of which the reason is kept."""
NO_ROWS: Final = frozen(np.zeros(0, np.intp))
PART: Final = 1_000
"""Items whose vectors are made together."""


class LiveVectors(ImmediateSource):
    """Proposes the items whose vectors have the highest products with the user's.

    It is over the items of now: one that has just been put is proposed at once.

    Args:
        name: the source's.
        scale: of its products.
        items: those that profiles name, in their order.
        trained: float32[items, size], the vectors of these, proposed while there is no catalogue;
            zeros: it has none.
    """

    reads_order = False
    """Whether a user's vector depends on the order of the history."""
    least = 0.0
    """An item whose product is not above is never proposed."""

    def __init__(
        self, name: str, scale: Calibration, items: ItemOrder, trained: Float32 | None = None
    ) -> None:
        self.name = name
        self._mean, self._std = np.float32(scale.mean), np.float32(scale.std)
        self._items = items
        self._trained = trained
        self._index: VectorIndex | None = None
        self._offering: Offering | None = None
        self._rows: RuledRows | None = None
        self.refused: dict[str, str] = {}

        # While blocks are arranged anew in a thread, what changes meanwhile.
        self._arranged: Future[tuple[VectorIndex, RuledRows]] | None = None
        self._meanwhile = set[str]()

    @property
    @abstractmethod
    def size(self) -> int:
        """Numbers of an item's vector; 0 while that is not known."""

    @abstractmethod
    def vector_of(self, item_id: str, item: Item | None) -> Float32 | None:
        """Return an item's vector, float32[size]; None if it has none.

        Args:
            item_id: whose.
            item: as it is now; None if it is gone.

        Raises:
            InvalidFieldError: what is said of it cannot be read.
        """

    def vectors_of(
        self, ids: Sequence[str], items: Sequence[Item | None]
    ) -> list[Float32 | InvalidFieldError | None]:
        """Return the vector of each item, None if it has none, or why it cannot be read.

        Args:
            ids: whose.
            items: each as it is now; None if it is gone.
        """
        found: list[Float32 | InvalidFieldError | None] = []
        for item_id, item in zip(ids, items, strict=True):
            try:
                found.append(self.vector_of(item_id, item))
            except InvalidFieldError as error:
                found.append(error)
        return found

    @abstractmethod
    def user_of(self, request: SourceRequest, rows: Float32, weights: Float32) -> Float32 | None:
        """Return the user's vector, float32[size]; None if too little is known.

        Args:
            request: what may be looked at.
            rows: the vectors of the history's items, float32[h, size]: by id, or oldest first if
                ``reads_order``.
            weights: float32[h], how strongly each speaks for its item.
        """

    @property
    def is_measured(self) -> bool:
        """Whether it is known how long all vectors are."""
        return self.size > 0

    def look_at(self, items: Iterable[Item | None]) -> None:
        """Learn how long vectors are, if that is not known yet; by default it is.

        Args:
            items: those that have come.
        """

    def over(self, offering: Offering) -> Self:
        """Return the source over all that may be offered now."""
        source = copy.copy(self)
        source._offering = offering if offering.limits else None  # noqa: SLF001 - its own class
        source._begin()  # noqa: SLF001
        return source

    def _begin(self, only: Sequence[str] | None = None) -> None:
        """Take in every item anew; or only some, where none of the others has a vector."""
        self.refused, self._arranged, self._meanwhile = {}, None, set()
        offering = self._offering
        if offering is None:
            self._index = VectorIndex(self._as_trained(), self.least, self._items.places)
            return

        every = [*offering.ids, *self._items.ids] if only is None else only
        ids = list(dict.fromkeys(every))
        if not self.is_measured:
            self.look_at(offering.item(item_id) for item_id in ids)
        kept: list[str] = []
        vectors = np.empty((len(ids), self.size), np.float32)
        for at in range(0, len(ids), PART):
            for item_id, vector in self._vectors(ids[at : at + PART], offering):
                if vector is not None:
                    vectors[len(kept)] = vector
                    kept.append(item_id)
        is_open = np.array([item_id in offering for item_id in kept], np.bool_)
        held = HeldVectors(tuple(kept), vectors[: len(kept)], is_open)
        self._index = VectorIndex(held, self.least, self._items.places)
        self._rows = RuledRows(offering, self._index.ids)

    def _as_trained(self) -> HeldVectors:
        """Return the items of the artifact of which something is said."""
        if self._trained is None:
            return HeldVectors((), np.zeros((0, self.size), np.float32), np.zeros(0, np.bool_))
        said = np.flatnonzero(self._trained.any(axis=1))
        ids = tuple(map(self._items.ids.__getitem__, said.tolist()))
        return HeldVectors(ids, self._trained[said], np.ones(said.size, np.bool_))

    def update(self, changed: Collection[str]) -> None:
        """Take in what has changed."""
        offering = self._offering
        if offering is None:
            return
        alone = self._trained is None and self._none_stays(changed)
        if not self.is_measured or alone:
            before = self.size
            self.look_at(map(offering.item, changed))
            if self.size != before:
                # Of all others, those alone have a vector that were refused for its length.
                few = alone and len(self.refused) < REMEMBERED
                self._begin([*self.refused, *changed] if few else None)
        if not self.size:
            return

        index = self._current()
        for item_id, vector in self._vectors(list(changed), offering):
            if vector is None:
                index.drop(item_id)
            else:
                index.put(item_id, vector, is_open=item_id in offering)
                self._note_row(index, item_id)

        if self._arranged is not None:
            self._meanwhile.update(changed)
        elif index.is_due:
            arranger = ThreadPoolExecutor(1, "arrange-vectors")
            self._arranged = arranger.submit(self._arrange, index, offering)
            arranger.shutdown(wait=False)

    def _arrange(self, index: VectorIndex, offering: Offering) -> tuple[VectorIndex, RuledRows]:
        anew = VectorIndex(index.held(), self.least, self._items.places)
        return anew, RuledRows(offering, anew.ids)

    def _note_row(self, index: VectorIndex, item_id: str) -> None:
        row = index.row(item_id)
        if self._rows is not None and row is not None:
            self._rows.put(row, item_id)

    def _passing(self, passes: Passes) -> Admits:
        """Return what says by their rows here which items pass a filter."""
        ruled = self._rows
        if ruled is None:
            return lambda rows: passes(np.zeros(len(rows), np.intp))
        return lambda rows: passes(ruled.of(rows))

    def _none_stays(self, changed: Collection[str]) -> bool:
        """Return whether no item has a vector but some that change: these may have any length."""
        held = self._current()
        return len(held) <= len(changed) and sum(each in held for each in changed) == len(held)

    @property
    def known(self) -> int:
        """How many of the items that may be offered it could propose."""
        return self._current().open_count

    def _current(self) -> VectorIndex:
        """Return the index, which is another one once all blocks are arranged anew."""
        if self._index is None:
            self._begin()
        index, arranged = self._index, self._arranged
        if index is None:
            raise AssertionError("unreachable: it has just begun")
        if arranged is None or not arranged.done() or arranged.exception() is not None:
            return index

        anew, self._rows = arranged.result()
        anew.adopt(index, self._meanwhile)
        for item_id in self._meanwhile:
            self._note_row(anew, item_id)
        self._index, self._arranged, self._meanwhile = anew, None, set()
        return anew

    def _vectors(
        self, ids: Sequence[str], offering: Offering
    ) -> Iterator[tuple[str, Float32 | None]]:
        """Yield items with their vectors, None if one has none; why it is refused is kept."""
        found = self.vectors_of(ids, [offering.item(item_id) for item_id in ids])
        for item_id, vector in zip(ids, found, strict=True):
            self.refused.pop(item_id, None)
            if not isinstance(vector, InvalidFieldError):
                yield item_id, vector
                continue
            if len(self.refused) < REMEMBERED:
                self.refused[item_id] = vector.message
            yield item_id, None

    def trained_vector(self, item_id: str) -> Float32 | None:
        """Return the vector that training gave an item, None if it gave none."""
        place = self._items.places.get(item_id) if self._trained is not None else None
        if place is None or self._trained is None:
            return None
        known = self._trained[place]
        return known if known.any() else None

    def propose(self, request: SourceRequest, limit: int) -> Candidates:
        """Return candidates, best first, without an event loop: everything here is arithmetic.

        None is barred by the request.

        Args:
            request: its user's profile, if there is one, is joined with the history sent.
            limit: how many at most; none if it is not above 0.
        """
        index = self._current()
        history = self._items.item_weights(request)
        ids, weights = history.in_order if self.reads_order else history.sorted
        rows, lacking = self._rows_of(index, ids)
        if lacking:
            here = rows >= 0
            rows, weights = rows[here], weights[here]
        user = self.user_of(request, index.vectors(rows), weights)
        if user is None:
            return EMPTY

        barred = rows if not request.repeats else NO_ROWS
        more = (*request.exclude, *request.history) if request.repeats else (*request.exclude,)
        if more:
            others = index.rows(more)
            barred = np.concatenate([barred, others[others >= 0]])
        admitted = None if self._rows is None else self._rows.admitted(request.admission)
        ids, products = index.nearest(user, barred, limit, admitted)

        def score_items(asked: Sequence[str]) -> Float32:
            return self._calibrated(index.products(self._rows_of(index, asked)[0], user))

        scores, trouble = self._calibrated(products), self._trouble()
        return Candidates(ids, scores, score_items, trouble, admitted=self._offering is not None)

    def _rows_of(self, index: VectorIndex, ids: Sequence[str]) -> tuple[NDArray[np.intp], int]:
        """Return the row of each item, -1 of one that is not there, and how many of them are not.

        Sources of one artifact look up an item's place once.
        """
        places = self._items.places_of(ids)
        rows, lacking, strangers = index.rows_at(places)
        if strangers:
            at = np.flatnonzero(places < 0)
            rows[at] = index.rows([ids[each] for each in at.tolist()])
            lacking = int(np.count_nonzero(rows < 0))
        return rows, lacking

    def _calibrated(self, products: Float32) -> Float32:
        return standardised(products, self._mean, self._std)

    def _trouble(self) -> str:
        if not self.refused:
            return ""
        item_id, reason = next(iter(self.refused.items()))
        return (
            f"source {self.name!r}: {len(self.refused):,} items have no vector, such as item"
            f" {item_id!r}: {reason}"
        )
