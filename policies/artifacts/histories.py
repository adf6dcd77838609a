"""Who interacted with what: what sources are fitted on, and what is known of one user."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32

HISTORIES = "histories.safetensors"
"""The file in which artifacts of format 1 hold them."""


class Profile(NamedTuple):
    """A user's history, as sources read it.

    ``key``: two profiles with the same key are the same. ``indices``: int32[h], places of the items
    that the user interacted with, oldest first as far as times are known; ``weights``: float32[h],
    how strongly each speaks for its item (1 = as much as one sent with a request).
    """

    key: str
    indices: NDArray[np.int32]
    weights: Float32


@dataclass(frozen=True, eq=False)
class OtherEvents:
    """What users did with their items besides the latest: the latest event of each other type.

    CSR rows per user: ``starts``, int64[users + 1]; ``indices``, int32[m], and ``types``,
    int16[m], as of ``Histories``; ``times``, int64[m] ms since 1970 (-1: none).
    """

    starts: NDArray[np.int64]
    indices: NDArray[np.int32]
    types: NDArray[np.int16]
    times: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histories:
    """Who interacted with what: CSR rows per user, over the items of the sources.

    ``starts``: int64[users + 1]; ``indices``: int32[n], into ``items``, ascending per user;
    ``weights``: float32[n], how strongly each interaction speaks for the item (1 = as much as one
    sent with a request). Of the latest event of each interaction, where it is known:
    ``times``, int64[n] ms since 1970 (-1: none), and ``types``, int16[n], into ``type_names``.
    ``others``: the events of other types with the same items; None: there are none.
    """

    items: tuple[str, ...]
    users: tuple[str, ...]
    starts: NDArray[np.int64]
    indices: NDArray[np.int32]
    weights: Float32
    times: NDArray[np.int64] | None = None
    types: NDArray[np.int16] | None = None
    type_names: tuple[str, ...] = ()
    others: OtherEvents | None = None

    def __post_init__(self) -> None:
        shapes = self.starts.shape, self.indices.shape, self.weights.shape
        if shapes != ((len(self.users) + 1,), (self.indices.size,), (self.indices.size,)) or (
            self.starts[0] != 0
            or self.starts[-1] != self.indices.size
            or np.any(np.diff(self.starts) < 0)
        ):
            raise ArtifactError(
                f"{HISTORIES}: rows do not fit: {len(self.users)} users, shapes {shapes}", HISTORIES
            )
        if self.indices.size and not 0 <= self.indices.min() <= self.indices.max() < len(
            self.items
        ):
            raise ArtifactError(
                f"{HISTORIES}: an index is outside the {len(self.items)} items", HISTORIES
            )
        if len(set(self.items)) != len(self.items) or len(set(self.users)) != len(self.users):
            raise ArtifactError(f"{HISTORIES}: an item or user id occurs twice", HISTORIES)

    @cached_property
    def user_index(self) -> dict[str, int]:
        """The row of each user id."""
        return {user: i for i, user in enumerate(self.users)}

    @cached_property
    def by_time(self) -> NDArray[np.int64]:
        """The places of all interactions, int64[n]: by user, oldest first, then by item."""
        if self.times is None:
            return np.arange(self.indices.size)
        owner = np.repeat(np.arange(len(self.users)), np.diff(self.starts))
        return np.lexsort((self.times, owner))

    def row(self, user: int) -> tuple[NDArray[np.int32], Float32]:
        """Return the item indices and weights of one row, oldest first where times are known."""
        at = self.by_time[int(self.starts[user]) : int(self.starts[user + 1])]
        return self.indices[at], self.weights[at]

    def profile(self, user: str | None) -> Profile | None:
        """Return what is known of a user, under the user's own id; None if that is nothing."""
        row = None if user is None else self.user_index.get(user)
        return None if row is None or user is None else Profile(user, *self.row(row))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return who interacted with what as arrays; ids are the bytes of a JSON list."""
        return {
            "items": np.frombuffer(msgspec.json.encode(self.items), np.uint8),
            "users": np.frombuffer(msgspec.json.encode(self.users), np.uint8),
            "starts": self.starts,
            "indices": self.indices,
            "weights": self.weights,
        }


def histories_from(arrays: Mapping[str, NDArray[Any]]) -> Histories:
    """Return the histories that ``Histories.tensors`` gave.

    Raises:
        ArtifactError: they are something else.
    """
    expected = {
        "items": "uint8",
        "users": "uint8",
        "starts": "int64",
        "indices": "int32",
        "weights": "float32",
    }
    vectors = {name: str(array.dtype) for name, array in arrays.items() if array.ndim == 1}
    if vectors != expected:
        raise ArtifactError(f"{HISTORIES} must hold vectors {expected}, not {vectors}", HISTORIES)

    items, users = (_to_strings(arrays[name]) for name in ("items", "users"))
    return Histories(items, users, arrays["starts"], arrays["indices"], arrays["weights"])


def _to_strings(array: NDArray[Any]) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(array.tobytes(), type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise ArtifactError(
            f"{HISTORIES}: ids are not a JSON list of strings: {error}", HISTORIES
        ) from error
