"""The payloads of a ridge model's snapshots and checkpoints, as bytes."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import SnapshotError
from bandits.features.columns import INTERCEPT, FeatureIndex
from bandits.features.namespaces import ITEM
from bandits.log.codec import MALFORMED
from bandits.ridge.config import RidgeConfig
from bandits.ridge.forgetting import Epoch
from bandits.types import Float64

Hash = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class RidgeState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint: the columns, the actions, and the sums as little-endian float64.

    ``newest_ms``: the time of the newest decision, of a learner that forgets; see ``Epoch``.
    """

    hashes: list[Hash] = msgspec.field(default_factory=lambda: [INTERCEPT])
    action_ids: list[str] = msgspec.field(default_factory=list)
    learned: int = 0
    a: bytes = bytes(8)
    b: bytes = bytes(8)
    cross: bytes = b""
    count: bytes = b""
    total: bytes = b""
    newest_ms: Annotated[int, msgspec.Meta(ge=0, le=2**62)] | msgspec.UnsetType = msgspec.UNSET

    def arrays(self) -> tuple[Float64, Float64, Float64, Float64, Float64]:
        """Return a [d, d], b [d], cross [n, d], count [n] and total [n]."""
        d, n = len(self.hashes), len(self.action_ids)
        return (
            floats(self.a, (d, d)).copy(),
            floats(self.b, (d,)).copy(),
            floats(self.cross, (n, d)).copy(),
            floats(self.count, (n,)).copy(),
            floats(self.total, (n,)).copy(),
        )


def decode_sums(checkpoint: bytes) -> RidgeState:
    """Return the sufficient statistics in a learner's checkpoint.

    Raises:
        SnapshotError: it is none.
    """
    state: RidgeState = decode_struct(checkpoint, RidgeState)
    return state


def epoch_of(config: RidgeConfig, state: RidgeState) -> Epoch | None:
    """Return what the weights in a learner's sums are relative to; None if it forgets nothing.

    Args:
        config: the learner's.
        state: its checkpoint, or that of a fresh learner.

    Raises:
        SnapshotError: the checkpoint is of a learner that forgets and this one does not, or the
            other way round.
    """
    newest_ms, half_life_ms = state.newest_ms, config.half_life_ms
    if newest_ms is msgspec.UNSET:
        newest_ms = 0
        if half_life_ms is not None and state.learned:
            raise SnapshotError("it is of a learner without half_life", "payload")
    elif half_life_ms is None:
        raise SnapshotError("it is of a learner with half_life", "payload")
    return None if half_life_ms is None else Epoch(half_life_ms, newest_ms)


def encode_sums(
    hashes: list[int],
    action_ids: list[str],
    learned: int,
    sums: tuple[Float64, Float64, Float64, Float64, Float64],
    newest_ms: int | msgspec.UnsetType = msgspec.UNSET,
) -> bytes:
    """Return a learner's checkpoint.

    Args:
        hashes: the hash of each column.
        action_ids: the actions in the order in which they were met.
        learned: how many interactions are in the sums.
        sums: what ``RidgeState.arrays`` gives.
        newest_ms: of a learner that forgets, the time of the newest decision.
    """
    a, b, cross, count, total = map(as_bytes, sums)
    return msgspec.msgpack.encode(
        RidgeState(hashes, action_ids, learned, a, b, cross, count, total, newest_ms)
    )


class RidgePayload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The payload of a snapshot; see ``RidgeLearner.snapshot``."""

    config: RidgeConfig
    hashes: list[Hash]
    action_ids: list[str]
    weights: bytes
    bias: bytes
    covariance: bytes = b""
    shift: bytes = b""
    shrink: bytes = b""
    draws: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    prior_seed: bytes = b""
    scale: float = 0.0
    weight_draws: bytes = b""
    bias_draws: bytes = b""
    worth: bytes | msgspec.UnsetType = msgspec.UNSET


def index_of(config: RidgeConfig, hashes: Sequence[int]) -> FeatureIndex:
    """Return the columns of a model; with a bias per action, an item's indicator has none.

    Args:
        config: the learner's.
        hashes: those met so far.
    """
    ignored = ITEM if config.action_bias else None
    intercept = config.intercept is not False
    return FeatureIndex(
        config.interactions, ignored, config.max_features, hashes, intercept=intercept
    )


def as_bytes(array: Float64) -> bytes:
    """Return an array as little-endian float64, the last axis fastest."""
    return np.ascontiguousarray(array, "<f8").tobytes()


def as_bytes32(array: Float64) -> bytes:
    """Return an array as little-endian float32, the last axis fastest."""
    return array.astype("<f4").tobytes()


def finite(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array.

    Raises:
        SnapshotError: it holds what is no finite number.
    """
    if not np.isfinite(array).all():
        raise SnapshotError("weights are finite", "payload")
    return array


def floats(data: bytes, shape: tuple[int, ...]) -> Float64:
    """Return bytes as an array of finite numbers, read-only.

    Args:
        data: little-endian float64, the last axis fastest.
        shape: how many numbers there are on each axis.

    Raises:
        SnapshotError: there are more or fewer, or not all are finite.
    """
    if len(data) != 8 * int(np.prod(shape)):
        raise SnapshotError(f"expected float64{list(shape)}, got {len(data)} bytes", "payload")
    return finite(np.frombuffer(data, "<f8").reshape(shape))


def decode_struct(data: bytes, kind: Any) -> Any:
    """Return the struct in these bytes.

    Args:
        data: msgpack.
        kind: the struct's class; an error names it.

    Raises:
        SnapshotError: the bytes hold no such struct.
    """
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except MALFORMED as error:
        raise SnapshotError(
            f"not a ridge {kind.__name__.removeprefix('Ridge').lower()}: {error}", "payload"
        ) from error
