"""The newest items among what a user likes: each is proposed from the moment it is there."""

import copy
from collections.abc import Collection, Sequence
from itertools import pairwise, repeat
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bandits.log.positions import position_ms
from bandits.types import Float32, Float64, Namespace, UInt32, frozen
from policies.items.offering import Offering
from policies.rules.columns import Bools
from policies.sources.base import Candidates, ImmediateSource, SourceRequest
from policies.sources.highest import Admits
from policies.sources.live.newest import NewestIndex
from policies.sources.places import ItemOrder, RuledRows
from policies.spec import FreshSource

TASTES: Final = 8
"""Traits that are looked at of all that a user's items have: those that tell the most."""
HISTORY: Final = 100
"""Items of a history that are looked at, the last ones."""
PART: Final = 10_000
"""Items looked up at a time: in between, the thread that answers requests gets its turns."""
_NONE: Final = Candidates((), frozen(np.empty(0, np.float32)))


class FreshItems(ImmediateSource):
    """Proposes the newest items that have what the user's items have.

    An item is as old as its ``available_from``; one without is as old as the entry that put it, or
    as the whole catalogue that it came with, in its order there. Its traits are its features that
    are texts, lists of texts or flags, as the learner sees them: a category, a genre, a brand. A
    user likes a trait as much as it occurs in the history, by weight, times log(items / items that
    have it). An item's score is the part of the user's TASTES best liked traits that it has, times
    2^(-age / half-life): from 0 to 1, whoever asks. Whoever has no history likes everything alike.

    Args:
        config: what the spec says of it.
        items: those that profiles name, in their order.
    """

    def __init__(self, config: FreshSource, items: ItemOrder) -> None:
        self.name = config.name
        self._half_life_ms = float(config.half_life_ms)
        self._items = items
        self._offering: Offering | None = None
        self._index = NewestIndex(np.zeros(0), np.zeros(0, np.intp), np.zeros(0, np.uint32))
        self._number: dict[str, int] = {}
        self._ids: list[str] = []
        self._numbers: UInt32 = np.zeros(0, np.uint32)
        self._are_numbers = frozenset[int]()
        self._base_ms = 0.0
        self._put_ms: dict[str, float] = {}
        self._rows: RuledRows | None = None

    def over(self, offering: Offering) -> Self:
        """Return the source over what may be offered."""
        source = copy.copy(self)
        source._begin(offering)  # noqa: SLF001 - its own class
        return source

    def _begin(self, offering: Offering) -> None:
        catalogue = offering.catalogue
        self._base_ms = float(position_ms(offering.timeline.position))
        self._offering = offering
        closed = offering.closed
        self._put_ms = dict.fromkeys(closed, self._base_ms)
        self._ids = ids = [item for item in offering.ids if item not in closed]
        self._number = dict(zip(ids, range(len(ids)), strict=True))
        self._rows = RuledRows(offering, ids)
        times = np.fromiter(map(self._time_of, ids), np.float64, len(ids))

        parts = [ids[at : at + PART] for at in range(0, len(ids), PART)]
        self._numbers, self._are_numbers = np.zeros(0, np.uint32), frozenset()
        for part in parts:
            self._learn_numbers(catalogue.namespace(part))
        pairs: list[tuple[NDArray[np.intp], UInt32]] = []
        for at, part in enumerate(parts):
            rows, traits = self._traits(catalogue.namespace(part))
            pairs.append((rows + at * PART, traits))
        self._index = NewestIndex(
            times,
            np.concatenate([rows for rows, _ in pairs]) if pairs else np.zeros(0, np.intp),
            np.concatenate([traits for _, traits in pairs]) if pairs else np.zeros(0, np.uint32),
        )

    def _time_of(self, item_id: str) -> float:
        """Return when an item begins to age, ms."""
        offer = None if self._offering is None else self._offering.offer_of(item_id)
        if offer is not None and np.isfinite(offer.from_ms):
            return offer.from_ms
        return self._put_ms.get(item_id, self._base_ms)

    def update(self, changed: Collection[str]) -> None:
        """Take in what has changed; of several that were put at once, in this order."""
        offering = self._offering
        if offering is None:
            return
        now_ms = float(position_ms(offering.timeline.position))
        there = [item_id for item_id in changed if item_id in offering]
        traits = dict(zip(there, self._traits_of_each(there, offering), strict=True))
        for item_id in changed:
            if item_id not in offering.catalogue:
                self._put_ms.pop(item_id, None)
                self._remove(item_id)
                continue

            # An item that changes is as old as before.
            known = item_id in self._number
            self._put_ms.setdefault(item_id, self._base_ms if known else now_ms)
            if item_id in traits:
                self._put(item_id, self._time_of(item_id), traits[item_id])
            else:
                self._remove(item_id)

    def _traits_of_each(self, ids: Sequence[str], offering: Offering) -> list[tuple[int, ...]]:
        """Return the traits of each item: of many together, which is many times as fast."""
        if not ids:
            return []
        if len(ids) == 1:
            return [self._traits_alone(offering.catalogue.one(ids[0]))]
        features = offering.catalogue.namespace(ids)
        self._learn_numbers(features)
        rows, traits = self._traits(features)
        ends = np.searchsorted(rows, np.arange(len(ids) + 1)).tolist()
        every = traits.tolist()
        return [tuple(every[begin:end]) for begin, end in pairwise(ends)]

    def _traits_alone(self, features: Namespace) -> tuple[int, ...]:
        """Return the traits of one item, [n], as ``_traits`` does, in a tenth of the time."""
        pairs = list(zip(features.hashes.tolist(), features.values.tolist(), strict=True))
        numbers = {cell for cell, value in pairs if value not in {0.0, 1.0}}
        if not numbers <= self._are_numbers:
            self._learn(np.array([*numbers], np.uint32))
        flags = {cell for cell, value in pairs if value == 1.0}
        return tuple(sorted(flags - self._are_numbers))

    def _remove(self, item_id: str) -> None:
        number = self._number.pop(item_id, None)
        if number is not None:
            self._index.remove(number)

    def _put(self, item_id: str, time_ms: float, traits: tuple[int, ...]) -> None:
        """Let an item be there, as new as it is; most changes are of a price or a stock."""
        number, index = self._number.get(item_id), self._index
        if number is not None:
            if index.traits(number) == traits and index.times([number])[0] == time_ms:
                self._note_row(item_id)
                return
            self._remove(item_id)
        self._number[item_id] = index.add(time_ms, traits)
        self._ids.append(item_id)
        self._note_row(item_id)

    def _note_row(self, item_id: str) -> None:
        number = self._number.get(item_id)
        if self._rows is not None and number is not None:
            self._rows.put(number, item_id)

    @property
    def known(self) -> int:
        """How many of the items that may be offered it could propose: all."""
        return self._index.count

    def propose(self, request: SourceRequest, limit: int) -> Candidates:
        """Return the best of the newest items of each trait that the user likes, and of all.

        None is barred by the request.

        Args:
            request: its user's profile, if there is one, is joined with the history sent.
            limit: how many at most; none if it is not above 0.
        """
        offering = self._offering
        if offering is None or limit <= 0:
            return _NONE

        history = self._items.item_weights(request).by_id
        traits, shares = self._likes(history, offering)
        number, index = self._number, self._index
        barred = [number[item] for item in request.barred(history) if item in number]
        admits = self._admits(request)
        found = index.newest_of_each([None, *traits.tolist()], limit, barred, admits)
        items = np.unique(np.concatenate(found)).astype(np.intp)

        # Of equal scores, in float32, the newest first.
        scores = self._scores(items, traits, shares, offering.now_ms)
        best = np.lexsort((-items, -index.times(items), -scores))[:limit]

        def score_items(asked: Sequence[str]) -> Float32:
            places = np.array([number.get(item, -1) for item in asked], np.intp)
            values = np.full(len(asked), np.nan, np.float32)
            known = places >= 0
            values[known] = self._scores(places[known], traits, shares, offering.now_ms)
            return values

        ids = tuple(map(self._ids.__getitem__, items[best].tolist()))
        return Candidates(ids, frozen(scores[best]), score_items, admitted=True)

    def _admits(self, request: SourceRequest) -> Admits | None:
        """Return what says which items, by their numbers, filters admit; None: all there are."""
        admission, rows = request.admission, self._rows
        if admission is None or rows is None or not admission.narrows:
            return None

        def admits(numbers: NDArray[Any]) -> Bools:
            found = rows.admitted(admission, numbers)
            return np.ones(numbers.size, np.bool_) if found is None else found

        return admits

    def _likes(self, history: dict[str, float], offering: Offering) -> tuple[UInt32, Float64]:
        """Return the traits of which the history tells most, ascending, and the share of each."""
        last = list(history.items())[-HISTORY:]
        rows, traits = self._traits_of([item for item, _ in last], offering)
        each, which = np.unique(traits, return_inverse=True)
        weights = np.array([weight for _, weight in last], np.float64)
        liked = np.bincount(which, weights[rows], minlength=each.size).astype(np.float64)

        # Inverse document frequency: what all items have tells nothing.
        index = self._index
        counts = index.counts(each)
        there = (counts > 0) & (counts < index.count)
        liked[~there] = 0.0
        liked[there] *= np.log(index.count / counts[there])
        best = np.argsort(-liked, kind="stable")[:TASTES]
        best = np.sort(best[liked[best] > 0])
        return each[best], liked[best] / liked[best].sum()

    def _traits_of(self, ids: Sequence[str], offering: Offering) -> tuple[NDArray[np.intp], UInt32]:
        """Return the traits of items as ``_traits`` does, by their places, ascending."""
        numbers = np.fromiter(map(self._number.get, ids, repeat(-1)), np.intp, len(ids))
        known = np.flatnonzero(numbers >= 0)
        places, traits = self._index.traits_of(numbers[known])
        if self._numbers.size:
            at = np.minimum(np.searchsorted(self._numbers, traits), self._numbers.size - 1)
            kept = self._numbers[at] != traits
            places, traits = places[kept], traits[kept]
        places = known[places]

        # What may not be offered now speaks for its traits, too.
        others = [
            at for at in np.flatnonzero(numbers < 0).tolist() if ids[at] in offering.catalogue
        ]
        if others:
            rows, more = self._traits(offering.catalogue.namespace([ids[at] for at in others]))
            places = np.concatenate([places, np.array(others)[rows]])
            traits = np.concatenate([traits, more])
        order = np.argsort(places, kind="stable")
        return places[order], traits[order]

    def _scores(
        self, items: NDArray[np.intp], traits: UInt32, shares: Float64, now_ms: float
    ) -> Float32:
        """Return the scores of items.

        Args:
            items: their numbers, int[n].
            traits: those that the user likes, ascending; none if nothing is known of the user.
            shares: how much each is liked, together 1.
            now_ms: the time, by which items are as old as they are.

        Returns:
            float32[n].
        """
        ages_ms = np.maximum(now_ms - self._index.times(items), 0.0)
        freshness = np.exp2(-ages_ms / self._half_life_ms)
        if not traits.size:
            return freshness.astype(np.float32)

        places, own = self._index.traits_of(items)
        at = np.minimum(np.searchsorted(traits, own), traits.size - 1)
        of_each = np.where(traits[at] == own, shares[at], 0.0)
        return (np.bincount(places, of_each, minlength=items.size) * freshness).astype(np.float32)

    def _learn_numbers(self, features: Namespace) -> None:
        """Note which features are numbers: those with a value other than 0 and 1."""
        values = features.values
        rows, columns = np.nonzero((values != 0.0) & (values != 1.0))
        if rows.size:
            cells = np.broadcast_to(features.cells(), values.shape)
            found = np.setdiff1d(cells[rows, columns], self._numbers)
            if found.size:
                self._learn(found)

    def _learn(self, found: UInt32) -> None:
        self._numbers = np.union1d(self._numbers, found)
        self._are_numbers = frozenset(self._numbers.tolist())

    def _traits(self, features: Namespace) -> tuple[NDArray[np.intp], UInt32]:
        """Return the features that are texts or flags: int[p], which row has it, and uint32[p]."""
        rows, columns = np.nonzero(features.values == 1.0)
        cells = np.broadcast_to(features.cells(), features.values.shape)[rows, columns]
        kept = ~np.isin(cells, self._numbers)

        # Each once, by row.
        pairs = np.unique((rows[kept].astype(np.uint64) << np.uint64(32)) | cells[kept])
        low = pairs & np.uint64(0xFFFFFFFF)
        return (pairs >> np.uint64(32)).astype(np.intp), low.astype(np.uint32)
