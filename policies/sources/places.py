"""An artifact's items in their order, and which of its places may not be proposed now."""

from collections.abc import Collection, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandits.features.namespaces import CONTEXT
from bandits.types import Float32, Namespace, frozen
from policies.artifacts.histories import Profile
from policies.encoding import namespace_of
from policies.items.offering import Offering
from policies.profiles.known_user import LiveHistory
from policies.rules.columns import Bools
from policies.rules.quotas.prices import ScarceGroup
from policies.rules.ruling import Admission, GroupAdmission
from policies.sources.asked import AskedPlaces, ItemWeights, earlier_weights
from policies.sources.base import SourceRequest

LEAST_ROOM: Final = 64
NOWHERE: Final = -1
"""The place of an item that is not of an order."""
PART = 10_000
"""Places looked up at a time: in between, the thread that answers requests gets its turns."""


class ItemOrder:
    """The items of one artifact's sources: each knows them by their places here."""

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.ids = ids
        self.places = {item: place for place, item in enumerate(ids)}
        self._closed: ClosedPlaces | None = None
        # Of each user's history, by its address; it is kept as well, so that none other has it.
        self._live: dict[int, tuple[LiveHistory, Profile]] = {}
        # What the sources of an artifact ask one after the other, for one decision, is made once.
        self._last: tuple[Profile | None, LiveHistory, Profile] | None = None
        self._last_sent: tuple[Profile, tuple[str, ...], Profile] | None = None
        self._last_asked: tuple[SourceRequest, AskedPlaces] | None = None
        self._last_weights: tuple[SourceRequest, ItemWeights] | None = None
        self._last_context: tuple[SourceRequest, Namespace | None] | None = None
        self._last_named: tuple[NDArray[Any] | None, tuple[str, ...]] = None, ()
        self._last_ids: tuple[Sequence[str], NDArray[np.intp]] = (), frozen(np.zeros(0, np.intp))

    def profile(self, profile: Profile | None, live: LiveHistory | None) -> Profile:
        """Return what is known of a user, as places here; of an item the stronger weight counts.

        What the log says is newer than what was known when the artifact was made.

        Args:
            profile: what was known when the artifact was made.
            live: what the log says.
        """
        if live is None:
            return profile or NO_PROFILE
        if profile is None:
            return self._of_live(live)
        last = self._last
        if last is not None and last[0] is profile and last[1] is live:
            return last[2]

        index = self.places
        earlier = earlier_weights(profile, live)
        by_place = dict(zip(profile.indices.tolist(), earlier, strict=True))
        for item, weight in live.weights.items():
            if item in index:
                place = index[item]
                by_place[place] = max(weight, by_place.pop(place, 0.0))
        joined = Profile(
            f"{profile.key} {live.key}",
            frozen(np.array(list(by_place), np.int32)),
            frozen(np.array(list(by_place.values()), np.float32)),
        )
        self._last = profile, live, joined
        return joined

    def _of_live(self, live: LiveHistory) -> Profile:
        """Return what the log says of a user: the same on most pages of a visit, so made once."""
        known = self._live.get(id(live))
        if known is not None:
            return known[1]
        places = [(self.places.get(item, -1), weight) for item, weight in live.weights.items()]
        there = [pair for pair in places if pair[0] >= 0]
        made = Profile(
            live.key,
            frozen(np.array([place for place, _ in there], np.int32)),
            frozen(np.array([weight for _, weight in there], np.float32)),
        )
        if len(self._live) >= MOST_KEPT:
            del self._live[next(iter(self._live))]
        self._live[id(live)] = live, made
        return made

    def history(self, request: SourceRequest) -> Profile:
        """Return the history of who asks: what is known, and what the request adds to it.

        Its key is empty if the request adds anything: such a history does not come again.

        Args:
            request: what is sent is newer than what is known; an item that is not of this order is
                left out.
        """
        known, history = self.profile(request.profile, request.live), request.history
        if not history:
            return known
        last = self._last_sent
        if last is not None and last[0] is known and last[1] == history:
            return last[2]

        index, whole = self.places, known
        if sent := newest_last([index[i] for i in history if i in index]):
            whole = Profile("", *map(frozen, _joined(known.indices, known.weights, sent)))
        self._last_sent = known, history, whole
        return whole

    def asked(self, request: SourceRequest) -> AskedPlaces:
        """Return who asks, and what may not be proposed."""
        last = self._last_asked
        if last is not None and last[0] is request:
            return last[1]

        key, places, weights = self.history(request)
        # What was sent is barred, even where what is known may be proposed again.
        index, more = self.places, [*request.exclude, *(request.history if request.repeats else ())]
        barred = np.array([index[each] for each in more if each in index], np.int64)
        if not request.repeats:
            barred = np.concatenate([places, barred], dtype=np.int64)
        made = AskedPlaces(key, places, weights, bool(weights.any()), frozen(barred))
        self._last_asked = request, made
        return made

    def context(self, request: SourceRequest) -> Namespace | None:
        """Return the hashed features of the context of a request; None if it has none."""
        last = self._last_context
        if last is None or last[0] is not request:
            made = namespace_of(request.context, CONTEXT) if request.context else None
            last = self._last_context = request, made
        return last[1]

    def item_weights(self, request: SourceRequest) -> ItemWeights:
        """Return the history of who asks by its items, of this order or not."""
        last = self._last_weights
        if last is not None and last[0] is request:
            return last[1]

        made = ItemWeights.of(request, self.ids)
        self._last_weights = request, made
        return made

    def named(self, places: NDArray[Any]) -> tuple[str, ...]:
        """Return the items at some places, which are not written to."""
        last = self._last_named
        if last[0] is not places:
            names = tuple(map(self.ids.__getitem__, places.tolist()))
            last = self._last_named = places, names
        return last[1]

    def places_of(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Return the place of each item, -1 of one that is not of this order."""
        last = self._last_ids
        if last[0] is ids:
            return last[1]

        places = map(self.places.get, ids, repeat(NOWHERE))
        found = frozen(np.fromiter(places, np.intp, len(ids)))
        if isinstance(ids, tuple):  # what may change is looked up again
            self._last_ids = ids, found
        return found

    def __len__(self) -> int:
        return len(self.ids)

    def closed(self, offering: Offering) -> "ClosedPlaces":
        """Return the places that may not be proposed now; the sources of an artifact share them."""
        if self._closed is None or self._closed.offering is not offering:
            self._closed = ClosedPlaces(self, offering)
        return self._closed


def newest_last(items: Sequence[int]) -> list[int]:
    """Return each of some items once: where it was last."""
    return list(dict.fromkeys(reversed(items)))[::-1]


def _joined(
    stored: NDArray[Any], weights: Float32, sent: Sequence[int]
) -> tuple[NDArray[Any], Float32]:
    """Return what is known with what was sent behind it, and how strongly each speaks.

    An item that is in both keeps the strength that is known; what was sent has one of 1.
    """
    by_place = dict(zip(stored.tolist(), weights.tolist(), strict=True))
    for place in sent:
        by_place[place] = by_place.pop(place, 1.0)
    return np.array(list(by_place), np.int32), np.array(list(by_place.values()), np.float32)


NO_PROFILE: Final = Profile("", frozen(np.empty(0, np.int32)), frozen(np.empty(0, np.float32)))


MOST_KEPT: Final = 1_000
"""Groups of items whose places are kept."""


class ClosedPlaces:
    """The places of an order that may not be proposed now, up to date by what has changed.

    ``shade`` float32[items] is added to scores: 0, or -inf at a closed place; ``count`` of them are
    closed.
    """

    def __init__(self, items: ItemOrder, offering: Offering) -> None:
        self.offering = offering
        self.shade: Float32 = np.zeros(len(items), np.float32)
        self._items = items
        self._seen = offering.changes

        if offering.limits:
            for at in range(0, len(items), PART):
                rows = offering.catalogue.rows(items.ids[at : at + PART])
                self.shade[at : at + PART][rows < 0] = -np.inf
            closed = [items.places[each] for each in offering.closed if each in items.places]
            self.shade[closed] = -np.inf
        elif not offering.admits_strangers:
            self.shade[:] = -np.inf
        self._rows = RuledRows(offering, items.ids)
        if offering.ruled is not None and offering.ruled.rules.filter_rule is not None:
            self._rows.keep_places()
        self._groups: dict[str, tuple[ScarceGroup, NDArray[np.intp]]] = {}
        self.count = int(np.count_nonzero(self.shade))

    def update(self, changed: Collection[str]) -> None:
        """Look at the changed items.

        Each source that shares this calls it; the first call after a change does the work.
        """
        if self._seen == self.offering.changes:
            return
        self._seen = self.offering.changes

        places, shade, offering = self._items.places, self.shade, self.offering
        for item_id in changed:
            place = places.get(item_id)
            if place is None:
                continue
            self._rows.put(place, item_id)
            self._look(place)
            closed = item_id not in offering
            if closed != bool(shade.item(place)):
                shade[place] = -np.inf if closed else 0.0
                self.count += 1 if closed else -1

    def __contains__(self, place: int) -> bool:
        return bool(self.shade.item(place))

    def rows(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the rows of some places among the items as rules see them."""
        return self._rows.of(places)

    def only(self, admission: Admission | None) -> NDArray[np.intp] | None:
        """Return the open places that are admitted, where these are few or of one group; else None.

        Where the items of a group are is kept from one request to the next.

        Args:
            admission: what a request is to be told of.
        """
        if admission is None:
            return None
        if not isinstance(admission, GroupAdmission):
            places = self._rows.few(admission)
            return None if places is None else places[self.shade[places] == 0]
        group = admission.group
        if group.name not in self._groups:
            if len(self._groups) >= MOST_KEPT:
                del self._groups[next(iter(self._groups))]
            every = self._rows.of(np.arange(len(self._items)))
            self._groups[group.name] = group, np.flatnonzero(group.members(every))
        _, places = self._groups[group.name]
        places = places[self.shade[places] == 0]
        admitted: NDArray[np.intp] = places[admission.base.at(self._rows.of(places))]
        return admitted

    def _look(self, place: int) -> None:
        """Find out again of which groups, among those that are kept, an item is."""
        for name, (group, places) in self._groups.items():
            at = int(np.searchsorted(places, place))
            there = at < places.size and places[at] == place
            if there == bool(group.members(self._rows.of(np.array([place])))[0]):
                continue
            changed = np.delete(places, at) if there else np.insert(places, at, place)
            self._groups[name] = group, changed

    def admitted(self, admission: Admission | None) -> Bools | None:
        """Return which places the filters of a request admit, bool[items].

        Args:
            admission: what they admit.

        Returns:
            None if they refuse nothing that is not closed already.
        """
        return self._rows.admitted(admission)


class RuledRows:
    """Which row each item of a source has among the items as rules see them.

    Args:
        offering: whose rules.
        ids: the items, by their places in the source.
    """

    def __init__(self, offering: Offering, ids: Sequence[str]) -> None:
        self._ruled = ruled = offering.ruled
        self._rows = np.zeros(0, np.intp)
        self._places: NDArray[np.int32] | None = None
        if ruled is not None:
            parts = [ruled.rows(ids[at : at + PART]) for at in range(0, len(ids), PART)]
            self._rows = np.concatenate([self._rows, *parts])

    def put(self, place: int, item_id: str) -> None:
        """Let an item be at a place; one that has changed may have another row."""
        if self._ruled is None:
            return
        if place >= self._rows.size:
            self._rows = np.concatenate([self._rows, np.zeros(place + LEAST_ROOM, np.intp)])
        was, row = int(self._rows[place]), int(self._ruled.rows([item_id])[0])
        self._rows[place] = row
        if self._places is None or was == row:
            return

        # The row of an item that is gone may be another's by now.
        if self._places[was] == place:
            self._places[was] = NOWHERE
        if row >= self._places.size:
            more = np.full(self._places.size + LEAST_ROOM, NOWHERE, np.int32)
            self._places = np.concatenate([self._places, more])
        self._places[row] = place

    def of(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the rows of some places."""
        return self._rows[places]

    def keep_places(self) -> None:
        """Have it known of each row which item of the source has it, for ``few``."""
        self._places = np.full(int(self._rows.max(initial=0)) + LEAST_ROOM, NOWHERE, np.int32)
        self._places[self._rows] = np.arange(self._rows.size)

    def few(self, admission: Admission) -> NDArray[np.intp] | None:
        """Return the places of all items that a filter admits, if these are few; else None.

        Args:
            admission: what it admits.
        """
        rows = admission.few() if admission.narrows else None
        if rows is None:
            return None
        assert self._places is not None  # noqa: S101 - whoever asks has them kept
        places = self._places[rows[: np.searchsorted(rows, self._places.size)]]
        found: NDArray[np.intp] = places[places != NOWHERE].astype(np.intp)
        return found

    def admitted(
        self, admission: Admission | None, places: NDArray[np.intp] | None = None
    ) -> Bools | None:
        """Return which items the filters of a request admit, bool[n].

        Args:
            admission: what they admit.
            places: int[n], of the items; None: all.

        Returns:
            None if they refuse nothing that the offering lets be offered.
        """
        if admission is None or not admission.narrows:
            return None
        return admission.at(self._rows if places is None else self._rows[places])
