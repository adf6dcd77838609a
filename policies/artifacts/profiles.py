"""Profiles: users' histories before they ask, found by pseudonym.

The file is written and read by ``policies.artifacts.profile_file``.
"""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.log.codec import digest
from bandits.types import Float32, frozen
from policies.artifacts.events_before import EventsBefore
from policies.artifacts.histories import Histories, Profile
from policies.profiles.known_user import Before
from policies.pseudonyms import pseudonym

HALF = 16
"""Hex digits of one half of a pseudonym: a uint64."""


class Profiles:
    """The profiles of U users, over the items of one artifact: about 24 bytes a user and 8 an item.

    Args:
        keys: uint64[U, 2], the halves of each pseudonym, ascending.
        starts: int64[U + 1], where each user's items begin.
        indices: int32[n], places of items, each user's oldest first.
        weights: float32[n], how strongly each speaks for its item.
        events: what they did, as far as rules look at it; None: they look at none of it.
    """

    def __init__(
        self,
        keys: NDArray[np.uint64],
        starts: NDArray[np.int64],
        indices: NDArray[np.int32],
        weights: Float32,
        events: EventsBefore | None = None,
    ) -> None:
        # Views of numpy's memory, of which single numbers are taken faster than from an array.
        self._first, self._second = (np.ascontiguousarray(keys[:, half]).data for half in (0, 1))
        self._starts = np.ascontiguousarray(starts).data
        self._indices, self._weights = frozen(indices), frozen(weights)
        self._events = events
        # Whoever looks twice for one decision finds the same object.
        self._last: Profile | None = None

    def __len__(self) -> int:
        return len(self._first)

    @classmethod
    def of(cls, histories: Histories, salt: bytes) -> "Profiles":
        """Return what histories say of their users.

        Args:
            histories: by the users' own ids.
            salt: the key of the pseudonyms.
        """
        keys = halves_of([pseudonym(salt, user) for user in histories.users])
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        starts, rows = take_rows_of(histories.starts, order)
        places = histories.by_time[rows]
        return cls(keys[order], starts, histories.indices[places], histories.weights[places])

    def find(self, user: str) -> Profile | None:
        """Return the profile of a pseudonym, 32 hex digits; None if there is none."""
        last = self._last
        if last is not None and last.key == user:
            return last
        row = self._row(user)
        if row is None:
            return None
        part = slice(self._starts[row], self._starts[row + 1])
        self._last = Profile(user, self._indices[part], self._weights[part])
        return self._last

    def find_all(self, users: Sequence[str]) -> Profile | None:
        """Return the profile of one person's pseudonyms; None if there is none.

        The items of the first are the oldest. Of an item that several have the strongest counts,
        where the last has it.
        """
        if len(users) == 1:  # nearly everybody has one
            return self.find(users[0])
        found = [each for each in map(self.find, users) if each is not None]
        if len(found) < 2:
            return found[0] if found else None
        weights: dict[int, float] = {}
        for profile in found:
            for item, weight in zip(
                profile.indices.tolist(), profile.weights.tolist(), strict=True
            ):
                weights[item] = max(weights.pop(item, 0.0), weight)
        return Profile(
            "+".join(each.key for each in found),
            np.fromiter(weights, np.int32, len(weights)),
            np.fromiter(weights.values(), np.float32, len(weights)),
        )

    def before(self, users: Sequence[str]) -> Before | None:
        """Return what one person's pseudonyms did, as far as rules look at it; None: nothing."""
        events = self._events
        if events is None:
            return None
        rows = [row for row in map(self._row, users) if row is not None]
        found = [each for each in map(events.of, rows) if each is not None]
        if len(found) < 2:
            return found[0] if found else None
        joined = sorted(chain.from_iterable(each.events for each in found), reverse=True)
        return Before(digest(msgspec.msgpack.encode(joined)), tuple(joined))

    def _row(self, user: str) -> int | None:
        first, second = int(user[:HALF], 16), int(user[HALF:], 16)
        row = bisect_left(self._first, first)
        while row < len(self._first) and self._first[row] == first:
            if self._second[row] == second:
                return row
            row += 1
        return None


def halves_of(pseudonyms: list[str]) -> NDArray[np.uint64]:
    """Return the halves of each pseudonym, uint64[n, 2]."""
    digits = np.frombuffer(bytes.fromhex("".join(pseudonyms)), ">u8")
    return digits.astype(np.uint64).reshape(-1, 2)


def take_rows_of(
    starts: NDArray[np.int64], rows: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the starts of some rows put one behind the other, and the places of their values.

    Args:
        starts: int64[rows + 1], of all rows.
        rows: int[n], those to take.
    """
    lengths = np.diff(starts)[rows]
    taken = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    places = np.arange(taken[-1]) + np.repeat(starts[:-1][rows] - taken[:-1], lengths)
    return taken, places
