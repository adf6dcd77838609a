"""Items in demand now: those that were rewarded most of late, whoever asks.

And those with which users did something outside of decisions, where the policy keeps profiles.
"""

import copy
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple, Self

import numpy as np

from bandits.log.positions import position_ms
from bandits.log.trends import PublishedTrend, decode_trends
from bandits.types import Float32, Snapshot, frozen
from policies.items.offering import Offering
from policies.sources.base import Candidates, SourceRequest
from policies.sources.local import EMPTY
from policies.sources.places import ItemOrder
from policies.spec import TrendingSource

TYPICAL = 50
"""Items by which scores are put on a scale: about as many as a request asks for."""
LOWEST = 5.0
"""How far below the typical an item is at most that was never rewarded, on that scale: where many
are about as much in demand, their differences are no scale for the others."""


class _Demand(NamedTuple):
    """The items in demand, the first first, and their counts, as of a time in ms since 1970."""

    ids: Sequence[str] = ()
    counts: Sequence[float] = ()
    at_ms: int = 0

    def joined(self, other: "_Demand", half_life_ms: int) -> "_Demand":
        """Return what is in demand by both."""
        at_ms = max(self.at_ms, other.at_ms)
        sums: dict[str, float] = {}
        for each in (self, other):
            faded = math.pow(2.0, -(at_ms - each.at_ms) / half_life_ms)
            for item_id, count in zip(each.ids, each.counts, strict=True):
                sums[item_id] = sums.get(item_id, 0.0) + faded * count
        ids = sorted(sums, key=lambda item_id: (sums[item_id], item_id), reverse=True)
        return _Demand(ids, [sums[item_id] for item_id in ids], at_ms)


class LiveTrending:
    """Proposes the items with the highest half-life counts, as the snapshot in force brings them.

    A score is log(1 + count), standardised by the TYPICAL most in demand; an item that was never
    rewarded has a count of 0, and is LOWEST below them at most.

    Args:
        config: what the spec says of it.
        items: those that profiles name, in their order.
    """

    def __init__(self, config: TrendingSource, items: ItemOrder) -> None:
        self.name = config.name
        self._half_life_ms = config.half_life_ms
        self._rewarded = self._done = _Demand()
        self._items = items
        self._offering: Offering | None = None
        self._ids: list[str] = []
        self._scores: Float32 = frozen(np.zeros(0, np.float32))
        self._score_of: dict[str, float] = {}
        self._unseen = np.float32(0)

    def over(self, offering: Offering) -> Self:
        """Return the source over all that may be offered now."""
        source = copy.copy(self)
        source._offering = offering  # noqa: SLF001 - its own class
        return source

    def update(self, changed: Collection[str]) -> None:
        """Do nothing: what may be offered is looked at when it is proposed."""

    def learn(self, snapshot: Snapshot) -> None:
        """Go by the counts that a snapshot brings.

        Raises:
            SnapshotError: they are none.
        """
        found = {} if snapshot.trends is None else decode_trends(snapshot.trends)
        self._rewarded = self._demand(found, position_ms(snapshot.position))
        self._go_by()

    def follow(self, demand: Mapping[int, PublishedTrend], at_ms: int) -> None:
        """Go by what users did outside of decisions, too: each counts as a reward does.

        Args:
            demand: by half-life in milliseconds.
            at_ms: as of when.
        """
        self._done = self._demand(demand, at_ms)
        self._go_by()

    def _demand(self, found: Mapping[int, PublishedTrend], at_ms: int) -> "_Demand":
        trend = found.get(self._half_life_ms)
        return _Demand() if trend is None else _Demand(trend.ids, trend.counts, at_ms)

    def _go_by(self) -> None:
        """Go by both, as of the newer of the two times."""
        trend = self._rewarded
        if self._done.ids:
            trend = self._rewarded.joined(self._done, self._half_life_ms)
        raw = np.log1p(np.array(trend.counts, np.float64))
        typical = raw[:TYPICAL]
        mean, std = (float(typical.mean()), float(typical.std())) if raw.size else (0.0, 1.0)
        scale = max(std, mean / LOWEST) or 1.0
        scores = (raw - mean) / scale

        self._ids, self._scores = list(trend.ids), frozen(scores.astype(np.float32))
        self._score_of = dict(zip(self._ids, self._scores.tolist(), strict=True))
        self._unseen = np.float32(-mean / scale)

    @property
    def known(self) -> int:
        """How many of the items that may be offered it could propose."""
        return sum(1 for item_id in self._ids if self._may_offer(item_id))

    def _may_offer(self, item_id: str) -> bool:
        return self._offering is None or item_id in self._offering

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        """Return candidates, the most in demand first.

        None is barred by the request.

        Args:
            request: what may be looked at.
            limit: how many at most; none if it is not above 0.
        """
        barred = request.barred(self._items.item_weights(request).by_id)
        admission = request.admission
        admitted: Iterable[bool] = repeat(True)
        if admission is not None and admission.narrows:
            admitted = admission.among(self._ids).tolist()

        places: list[int] = []
        for place, (item_id, may) in enumerate(zip(self._ids, admitted, strict=False)):
            if len(places) >= limit:
                break
            if may and item_id not in barred and self._may_offer(item_id):
                places.append(place)
        if not places:
            return EMPTY
        return Candidates(
            tuple(self._ids[place] for place in places),
            self._scores[places],
            self._score,
            admitted=self._offering is not None,
        )

    def _score(self, ids: Sequence[str]) -> Float32:
        found = [self._score_of.get(item_id, self._unseen) for item_id in ids]
        return np.array(found, np.float32)
