"""Bayesian ridge regression over action features, with an optional bias per action: LinUCB, LinTS.

The state is sufficient statistics only, sums over interactions, so models of disjoint logs merge by
addition and the posterior is computed when a snapshot is made. With x the features of the chosen
action and e its indicator, the joint precision over (shared weights, action biases) is an arrow: a
dense d x d block, a diagonal, and one d-vector per action. Eliminating the diagonal (Schur
complement) costs O(actions x d^2 + d^3) per snapshot, O(d^2) per interaction.

Sources: Li et al. 2010 (arXiv:1003.0146), algorithm 2, hybrid model with a one-dimensional disjoint
part; Agrawal & Goyal 2013 (arXiv:1209.3352) for the posterior draws.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import SnapshotError
from bandits.features.columns import INTERCEPT, FeatureIndex
from bandits.features.namespaces import ITEM
from bandits.kernels.compiled import Bools, Int64
from bandits.kernels.sums import add_learned_rows
from bandits.log.codec import MALFORMED
from bandits.ridge.config import KIND, RidgeConfig
from bandits.types import ChosenRow, ChosenRows, Float64, Interaction, Learner, Row, Snapshot

BATCH = 256
"""Rows that are added to the sums at a time."""
ELEMENTS = 1 << 21
"""The most elements of an array that a batch makes: with many features a batch is smaller."""
Hash = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]


class RidgeLearner(Learner):
    """Learns shared weights and action biases from interactions, in order, one at a time.

    ``draws``: how many posterior draws a snapshot holds (LinTS; 0 for none), scaled by ``scale``
    and seeded by ``salt`` and the snapshot's log position.
    """

    by_row = True

    def __init__(
        self,
        config: RidgeConfig,
        *,
        draws: int = 0,
        scale: float = 1.0,
        uncertainty: bool = False,
        salt: bytes = b"",
        checkpoint: bytes | None = None,
    ) -> None:
        self._config = config
        self._draws = draws
        self._scale = scale
        self._uncertainty = uncertainty
        self._salt = salt

        state: _State = _State() if checkpoint is None else decode_struct(checkpoint, _State)
        self._index = index_of(config, state.hashes)
        self._action_ids = list(state.action_ids)
        self._rows = {action_id: row for row, action_id in enumerate(self._action_ids)}
        self.learned = state.learned
        self._a, self._b, self._cross, self._count, self._sum = state.arrays()
        # Rows that are not in the sums yet: features, action, reward, whether it is new.
        self._pending: list[tuple[Row, int, float, bool]] = []

    def learn(self, interactions: Sequence[Interaction]) -> None:
        """Learn the chosen action of each interaction, in order."""
        for interaction in interactions:
            self.learn_row(ChosenRow.of(interaction))

    def learn_row(self, row: ChosenRow) -> None:
        """Add x x', r x and the action's own sums; it is done a batch at a time, unseen."""
        self.learned += 1
        features, number = (*row.shared, *row.own), self._number(row.action_id)
        self._pending.append((features, number, row.reward, True))
        if len(self._pending) == BATCH:
            self._settle()

    def learn_rows(self, rows: ChosenRows) -> None:
        """Add the same sums, of rows that are columns already."""
        self._settle()
        if not len(rows):
            return

        # Actions are numbered as they are met: ``met`` is the first row of each.
        met = np.full(len(rows.action_ids), -1, np.int64)
        met[rows.actions[::-1]] = np.arange(len(rows))[::-1]
        numbers = np.empty(len(rows.action_ids), np.int64)
        for row in np.sort(met[met >= 0]).tolist():
            code = rows.actions[row]
            numbers[code] = self._number(rows.action_ids[code])
        actions = numbers[rows.actions]

        # Pairs make a row as wide as its square, at most.
        widest = int(np.diff(rows.bounds[:: len(rows.spaces)]).max(initial=1))
        at_once = max(1, ELEMENTS // (widest * widest))
        for start in range(0, len(rows), at_once):
            part = rows.part(start, start + at_once)
            self._add_rows(
                self._index.learned_rows(part),
                actions[start : start + at_once],
                part.rewards,
                np.ones(len(part), np.bool_) if part.learns is None else part.learns,
            )
        new = len(rows) if rows.learns is None else np.count_nonzero(rows.learns)
        self.learned += int(new)

    def learn_prior(self, lessons: Iterable[ChosenRows | Interaction], weight: float) -> int:
        """Add each lesson's sums, times its weight; only of a learner that has learned nothing.

        Args:
            lessons: in order, some at a time.
            weight: how many interactions each is worth.
        """
        for lesson in lessons:
            if isinstance(lesson, ChosenRows):
                self.learn_rows(lesson)
            else:
                self.learn_row(ChosenRow.of(lesson))
        self._settle()

        # All is sums, and nothing else is in them.
        for sums in (self._a, self._b, self._cross, self._count, self._sum):
            np.multiply(sums, weight, out=sums)
        count, self.learned = self.learned, round(weight * self.learned)
        return count

    def _number(self, action_id: str) -> int:
        """Return the number of an action, the next one when it is first met."""
        number = self._rows.get(action_id)
        if number is None:
            number = self._rows[action_id] = len(self._action_ids)
            self._action_ids.append(action_id)
        return number

    def correct_row(self, row: ChosenRow) -> None:
        """Change the reward of an action that was learned with these features."""
        features = (*row.shared, *row.own)
        self._pending.append((features, self._rows[row.action_id], row.reward, False))
        if len(self._pending) == BATCH:
            self._settle()

    def _settle(self) -> None:
        """Add what is pending in order, so where a batch ends changes no bit of any sum."""
        pending, self._pending = self._pending, []

        # How many features the widest row may have, pairs included.
        widths = [namespace.values.size for features, *_ in pending for namespace in features]
        widest = max(widths, default=0) * max(
            (len(features) for features, *_ in pending), default=0
        )

        at_once = max(1, ELEMENTS // max(1, widest * widest))
        for start in range(0, len(pending), at_once):
            self._add(pending[start : start + at_once])

    def _add(self, part: list[tuple[Row, int, float, bool]]) -> None:
        """Add the sums of some rows: features, action, reward, and whether the row is new."""
        features, numbers, rewards, learns = zip(*part, strict=True)
        self._add_rows(
            self._index.rows(features, learns),
            np.array(numbers, np.int64),
            np.array(rewards, np.float64),
            np.array(learns, np.bool_),
        )

    def _add_rows(
        self,
        features: tuple[Int64, Int64, Float64],
        numbers: Int64,
        rewards: Float64,
        learns: Bools,
    ) -> None:
        """Add the sums of some rows, in order.

        Args:
            features: where each row begins, its columns and their values.
            numbers: int64[R], the action of each row.
            rewards: float64[R].
            learns: bool[R], whether the row is new.
        """
        begins, columns, values = features
        self._grow()
        add_learned_rows(
            self._a,
            self._b,
            self._cross,
            self._count,
            self._sum,
            len(self._index),
            begins,
            columns,
            values,
            numbers,
            rewards,
            learns,
        )

    def snapshot(self, position: str) -> Snapshot:
        """Return the posterior as of ``position``, with what the exploration needs of it."""
        self._settle()
        config, d = self._config, len(self._index)
        n = len(self._action_ids) if config.action_bias else 0

        # The arrow's diagonal is eliminated: ``precision`` is that of the shared weights alone.
        cross, count, total = self._cross[:n, :d], self._count[:n], self._sum[:n]
        shrink = 1.0 / (config.bias_l2 + count)
        shift = cross * shrink[:, None]
        half = cross * np.sqrt(shrink)[:, None]
        precision = self._a[:d, :d] + config.l2 * np.eye(d) - half.T @ half
        root = _inverse_root(precision)

        weights = root @ (root.T @ (self._b[:d] - shift.T @ total))
        bias = shrink * (total - cross @ weights)
        payload = Payload(
            config=config,
            hashes=self._index.hashes,
            action_ids=self._action_ids[:n],
            weights=_bytes(weights),
            bias=_bytes(bias),
        )

        # For upper confidence bounds: the covariance, and what an action's own bias adds to it.
        if self._uncertainty:
            payload = msgspec.structs.replace(
                payload,
                covariance=_bytes(root @ root.T),
                shift=_bytes(shift),
                shrink=_bytes(shrink),
            )

        # For Thompson sampling: draws that anybody who knows the salt makes again.
        if self._draws:
            seed = self._seed(position)
            generator = np.random.Generator(np.random.Philox(int.from_bytes(seed, "little")))
            deviation = self._scale * root @ generator.standard_normal((d, self._draws))
            own = (
                self._scale * np.sqrt(shrink)[:, None] * generator.standard_normal((n, self._draws))
            )
            payload = msgspec.structs.replace(
                payload,
                draws=self._draws,
                prior_seed=self._seed("prior"),
                scale=self._scale,
                weight_draws=_bytes32(weights[:, None] + deviation),
                bias_draws=_bytes32(bias[:, None] + own - shift @ deviation),
            )
        return Snapshot(KIND, position, self.learned, msgspec.msgpack.encode(payload))

    @property
    def columns(self) -> tuple[int, int]:
        """How many columns there are, and the most there will be."""
        return len(self._index), self._config.max_features

    def checkpoint(self) -> bytes:
        """Return the sums, exactly."""
        self._settle()
        d, n = len(self._index), len(self._action_ids)
        sums = self._a[:d, :d], self._b[:d], self._cross[:n, :d], self._count[:n], self._sum[:n]
        return encode_sums(self._index.hashes, self._action_ids, self.learned, sums)

    def _seed(self, what: str) -> bytes:
        return hashlib.blake2b(what.encode(), key=self._salt[:64], digest_size=16).digest()

    def _grow(self) -> None:
        """Make room for new columns and actions, by doubling."""
        if len(self._action_ids) > self._count.size or len(self._index) > self._b.size:
            d = max(self._b.size, 2 * len(self._index))
            n = max(self._count.size, 2 * len(self._action_ids))
            self._a, self._b = _padded(self._a, (d, d)), _padded(self._b, (d,))
            self._cross = _padded(self._cross, (n, d))
            self._count, self._sum = _padded(self._count, (n,)), _padded(self._sum, (n,))


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint: the columns, the actions, and the sums as little-endian float64."""

    hashes: list[Hash] = msgspec.field(default_factory=lambda: [INTERCEPT])
    action_ids: list[str] = msgspec.field(default_factory=list)
    learned: int = 0
    a: bytes = bytes(8)
    b: bytes = bytes(8)
    cross: bytes = b""
    count: bytes = b""
    total: bytes = b""

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


def decode_sums(checkpoint: bytes) -> _State:
    """Return the sufficient statistics in a learner's checkpoint.

    Raises:
        SnapshotError: it is none.
    """
    state: _State = decode_struct(checkpoint, _State)
    return state


def encode_sums(
    hashes: list[int],
    action_ids: list[str],
    learned: int,
    sums: tuple[Float64, Float64, Float64, Float64, Float64],
) -> bytes:
    """Return a learner's checkpoint.

    Args:
        hashes: the hash of each column.
        action_ids: the actions in the order in which they were met.
        learned: how many interactions are in the sums.
        sums: what ``_State.arrays`` gives.
    """
    a, b, cross, count, total = map(_bytes, sums)
    return msgspec.msgpack.encode(_State(hashes, action_ids, learned, a, b, cross, count, total))


class Payload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


def _inverse_root(precision: Float64) -> Float64:
    """Return R with R R' = the inverse of ``precision``.

    It is scaled to a unit diagonal first, since features come in any unit. Columns that are the
    same but for rounding (a timestamp beside the intercept) would leave it indefinite: then the
    least power of ten that makes it definite is added, from 1e-14 of the diagonal on.
    """
    scale = 1.0 / np.sqrt(np.diag(precision))
    scaled = precision * scale[:, None] * scale

    jitter = 0.0
    while True:
        try:
            lower = np.linalg.cholesky(scaled + jitter * np.eye(len(scaled)))
        except np.linalg.LinAlgError:
            jitter = max(1e-14, 10 * jitter)
        else:
            root: Float64 = scale[:, None] * np.linalg.inv(lower).T
            return root


def _bytes(array: Float64) -> bytes:
    return np.ascontiguousarray(array, "<f8").tobytes()


def _bytes32(array: Float64) -> bytes:
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


def _padded(array: Float64, shape: tuple[int, ...]) -> Float64:
    out = np.zeros(shape)
    out[tuple(slice(size) for size in array.shape)] = array
    return out


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
            f"not a ridge {kind.__name__.strip('_').lower()}: {error}", "payload"
        ) from error
