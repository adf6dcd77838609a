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

import msgspec
import numpy as np

from bandits.exploration import LinTs
from bandits.kernels.compiled import Bools, Int64
from bandits.kernels.sums import add_learned_rows
from bandits.log.positions import position_ms
from bandits.ridge.config import KIND, RidgeConfig
from bandits.ridge.examination import LookedAt
from bandits.ridge.forgetting import Epoch, halve
from bandits.ridge.payloads import (
    RidgePayload,
    as_bytes,
    as_bytes32,
    decode_sums,
    encode_sums,
    epoch_of,
    index_of,
)
from bandits.ridge.slot_biases import SlotBiases, check_slot_columns, untaught_state
from bandits.types import ChosenRow, ChosenRows, Float64, Interaction, Learner, Row, Snapshot

_Pending = tuple[Row, int, float, bool, int, int]
"""A row that is not in the sums yet: features, action, reward, whether it is new, time, slot."""
BATCH = 256
"""Rows that are added to the sums at a time."""
ELEMENTS = 1 << 21
"""The most elements of an array that a batch makes: with many features a batch is smaller."""


class RidgeLearner(Learner):
    """Learns shared weights and action biases from interactions, in order, one at a time.

    ``sampling``: how many posterior draws a snapshot holds, and their scale; None for no draws.
    They are seeded by ``salt`` and the snapshot's log position. With a half-life it is ``timed``:
    see ``Epoch``.
    """

    by_row, weighs = True, False

    def __init__(
        self,
        config: RidgeConfig,
        *,
        sampling: LinTs | None = None,
        uncertainty: bool = False,
        salt: bytes = b"",
        checkpoint: bytes | None = None,
    ) -> None:
        self._config = config
        self._sampling = sampling
        self._uncertainty = uncertainty
        self._salt = salt

        state = untaught_state(config) if checkpoint is None else decode_sums(checkpoint)
        check_slot_columns(config, state)
        self._index = index_of(config, state.hashes)
        self._action_ids = list(state.action_ids)
        self._rows = {action_id: row for row, action_id in enumerate(self._action_ids)}
        self.learned = state.learned
        self._a, self._b, self._cross, self._count, self._sum = state.arrays()
        self._epoch = epoch_of(config, state)
        self.timed = self._epoch is not None
        self._looked = LookedAt.of(config)
        self._biases = SlotBiases.of(config)
        self.slotted = self._looked is not None or self._biases is not None
        self._pending: list[_Pending] = []

    def learn(self, interactions: Sequence[Interaction]) -> None:
        """Learn the chosen action of each interaction, in order."""
        for interaction in interactions:
            self.learn_row(ChosenRow.of(interaction))

    def learn_row(self, row: ChosenRow) -> None:
        """Add x x', r x and the action's own sums; it is done a batch at a time, unseen."""
        self.learned += 1
        features, number = (*row.shared, *row.own), self._number(row.action_id)
        self._pending.append((features, number, row.reward, True, row.time_ms, row.slot))
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
                np.zeros(len(part), np.int64) if part.times_ms is None else part.times_ms,
                np.zeros(len(part), np.int64) if part.slots is None else part.slots,
            )
        new = len(rows) if rows.learns is None else np.count_nonzero(rows.learns)
        self.learned += int(new)

    def learn_prior(
        self, lessons: Iterable[ChosenRows | Interaction], weight: float, time_ms: int = 0
    ) -> int:
        """Add each lesson's sums, times its weight; only of a learner that has learned nothing.

        Args:
            lessons: in order, some at a time; their own times do not count.
            weight: how many interactions each is worth.
            time_ms: when; they fade from here on.
        """
        for lesson in lessons:
            if isinstance(lesson, ChosenRows):
                self.learn_rows(lesson)
            else:
                self.learn_row(ChosenRow.of(lesson))
        self._settle()

        # All is sums, and nothing else is in them.
        scale = weight
        if self._epoch is not None:
            self._epoch = Epoch(self._epoch.half_life_ms, time_ms)
            scale /= self._epoch.weight_at(time_ms)
        for sums in self._sums():
            np.multiply(sums, scale, out=sums)
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
        number = self._rows[row.action_id]
        self._pending.append((features, number, row.reward, False, row.time_ms, row.slot))
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

    def _add(self, part: Sequence[_Pending]) -> None:
        """Add the sums of some rows."""
        features, numbers, rewards, learns, times_ms, slots = zip(*part, strict=True)
        self._add_rows(
            self._index.rows(features, learns),
            np.array(numbers, np.int64),
            np.array(rewards, np.float64),
            np.array(learns, np.bool_),
            np.array(times_ms, np.int64),
            np.array(slots, np.int64),
        )

    def _add_rows(
        self,
        features: tuple[Int64, Int64, Float64],
        numbers: Int64,
        rewards: Float64,
        learns: Bools,
        times_ms: Int64,
        slots: Int64,
    ) -> None:
        """Add the sums of some rows, in order.

        Args:
            features: where each row begins, its columns and their values.
            numbers: int64[R], the action of each row.
            rewards: float64[R].
            learns: bool[R], whether the row is new.
            times_ms: int64[R], by which a row counts, where the learner is timed.
            slots: int64[R], by which it counts where slots are not alike.
        """
        begins, columns, values = features
        if self._biases is not None:
            begins, columns, values = self._biases.join(features, slots)
        self._grow()
        looked = None
        if self._looked is not None:
            looked, rewards = self._looked.weigh(slots, rewards)

        # All at once, but for the rows on the two sides of an epoch's move.
        stretches: Iterable[tuple[slice, int, Float64]] = [
            (slice(0, len(numbers)), 0, np.ones(len(numbers)))
        ]
        if self._epoch is not None:
            stretches = self._epoch.stretches(times_ms)
        for rows, halvings, weights in stretches:
            for sums in self._sums():
                halve(sums, halvings)
            add_learned_rows(
                *self._sums(),
                len(self._index),
                begins[rows.start : rows.stop + 1],
                columns,
                values,
                numbers[rows],
                rewards[rows],
                learns[rows],
                weights if looked is None else weights * looked[rows],
            )

    def _sums(self) -> tuple[Float64, Float64, Float64, Float64, Float64]:
        """Return x x', r x, and by action x, 1 and r, with room for more."""
        return self._a, self._b, self._cross, self._count, self._sum

    def snapshot(self, position: str) -> Snapshot:
        """Return the posterior as of ``position``, with what the exploration needs of it."""
        self._settle()
        config, d = self._config, len(self._index)
        n = len(self._action_ids) if config.action_bias else 0

        # What is forgotten by now is the same share of all sums.
        a, b = self._a[:d, :d], self._b[:d]
        cross, count, total = self._cross[:n, :d], self._count[:n], self._sum[:n]
        weight, worth = 1.0, float(self.learned)
        if self._epoch is not None:
            weight = self._epoch.weight_at(position_ms(position))
            a, b, cross, count, total = (weight * sums for sums in (a, b, cross, count, total))

        # The arrow's diagonal is eliminated: ``precision`` is that of the shared weights alone.
        shrink = 1.0 / (config.bias_l2 + count)
        shift = cross * shrink[:, None]
        half = cross * np.sqrt(shrink)[:, None]
        precision = a + config.l2 * np.eye(d) - half.T @ half
        root = _inverse_root(precision)

        weights = root @ (root.T @ (b - shift.T @ total))
        bias = shrink * (total - cross @ weights)
        payload = RidgePayload(
            config=config,
            hashes=self._index.hashes,
            action_ids=self._action_ids[:n],
            weights=as_bytes(weights),
            bias=as_bytes(bias),
        )
        if self._epoch is not None:
            left = weight * self._count[: len(self._action_ids)].sum(keepdims=True)
            payload, worth = msgspec.structs.replace(payload, worth=as_bytes(left)), float(left[0])

        # For upper confidence bounds: the covariance, and what an action's own bias adds to it.
        if self._uncertainty:
            payload = msgspec.structs.replace(
                payload,
                covariance=as_bytes(root @ root.T),
                shift=as_bytes(shift),
                shrink=as_bytes(shrink),
            )

        # For Thompson sampling: draws that anybody who knows the salt makes again.
        if self._sampling is not None:
            draws, scale = self._sampling.draws, self._sampling.scale_at(worth)
            seed = self._seed(position)
            generator = np.random.Generator(np.random.Philox(int.from_bytes(seed, "little")))
            deviation = scale * root @ generator.standard_normal((d, draws))
            own = scale * np.sqrt(shrink)[:, None] * generator.standard_normal((n, draws))
            payload = msgspec.structs.replace(
                payload,
                draws=draws,
                prior_seed=self._seed("prior"),
                scale=scale,
                weight_draws=as_bytes32(weights[:, None] + deviation),
                bias_draws=as_bytes32(bias[:, None] + own - shift @ deviation),
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
        newest_ms = msgspec.UNSET if self._epoch is None else self._epoch.newest_ms
        return encode_sums(self._index.hashes, self._action_ids, self.learned, sums, newest_ms)

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


def _padded(array: Float64, shape: tuple[int, ...]) -> Float64:
    out = np.zeros(shape)
    out[tuple(slice(size) for size in array.shape)] = array
    return out
