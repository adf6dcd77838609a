"""A ridge snapshot as it is served: the posterior mean, upper bound or draws of each action."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import SnapshotError
from bandits.kernels.actions import add_known, add_scaled
from bandits.ridge.payloads import RidgePayload, decode_struct, finite, floats, index_of
from bandits.sums import sum_products
from bandits.types import ActionSet, Context, Float32, Float64, Snapshot

PRIOR_CACHE = 10_000


class RidgeModel:
    """The posterior of a snapshot, ready to score.

    ``worth``: how many interactions it rests on, each with what it still counts.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        payload = decode_struct(snapshot.payload, RidgePayload)
        self.worth: float = snapshot.learned
        self._relative = snapshot.fold > 1
        self._payload = payload
        self._index = index_of(payload.config, payload.hashes)
        self._rows = {action_id: row for row, action_id in enumerate(payload.action_ids)}

        if payload.worth is not msgspec.UNSET:
            self.worth = float(floats(payload.worth, (1,))[0])

        d, n, m = len(payload.hashes), len(payload.action_ids), payload.draws
        self._weights, self._bias = floats(payload.weights, (d,)), floats(payload.bias, (n,))
        if payload.covariance:
            self._covariance = floats(payload.covariance, (d, d))
            self._shift, self._shrink = floats(payload.shift, (n, d)), floats(payload.shrink, (n,))
        if m:
            self._weight_draws, self._bias_draws = (
                _floats32(payload.weight_draws, (d, m)),
                _floats32(payload.bias_draws, (n, m)),
            )

    def scores(self, context: Context, actions: ActionSet) -> Float64:
        """Return the posterior mean reward of every action, float64[K].

        Args:
            context: features that enter every mean, alone and crossed with the action's own.
            actions: K of them; one never met has a bias of 0.
        """
        return self._means(context, actions, relative=False)

    def comparable(self, context: Context, actions: ActionSet) -> Float64:
        """Return posterior means for comparing actions with each other, float64[K].

        What all actions share is left out, a large value of which drowns the differences; with a
        snapshot of fold 1 it is kept.

        Args:
            context: features that count only where they are crossed with the actions' own.
            actions: K of them; one never met has a bias of 0.
        """
        return self._means(context, actions, relative=self._relative)

    def _means(self, context: Context, actions: ActionSet, *, relative: bool) -> Float64:
        columns, features, _ = self._index.matrix(context, actions, relative=relative)
        # So an action's sum does not depend on where it stands, and equals tie.
        mean = sum_products("kn,n->k", features, self._weights[columns])
        mean += self._known(actions, self._bias)
        return mean

    def upper_bounds(self, context: Context, actions: ActionSet, alpha: float) -> Float64:
        """Return posterior means + alpha standard deviations, float64[K].

        What was never met has its prior's variance.

        Args:
            context: what the actions share.
            actions: K of them.
            alpha: how many standard deviations.

        Raises:
            SnapshotError: the snapshot was made without uncertainty.
        """
        if not self._payload.covariance:
            raise SnapshotError(
                "this snapshot holds no posterior covariance: it was not made for linucb",
                "exploration",
            )

        _, features, unmet = self._index.matrix(context, actions, dense=True)
        mean = features @ self._weights + self._known(actions, self._bias)

        # An action's own bias has a variance, and shifts the weights it was learned beside.
        own: Float64 = np.zeros(len(actions))
        if self._payload.config.action_bias:
            own = self._known(actions, self._shrink, unknown=1.0 / self._payload.config.bias_l2)
            features = features - self._known(actions, self._shift)

        variance = sum_products("ki,ki->k", features @ self._covariance, features) + own
        variance += unmet / self._payload.config.l2
        bounds: Float64 = mean + alpha * np.sqrt(np.maximum(variance, 0.0))
        return bounds

    def draws(self, context: Context, actions: ActionSet) -> Float32:
        """Return every action's reward under each posterior draw, without what all share.

        What was never met is drawn from its prior, for each action by itself. So where several
        actions share a feature that no interaction has shown, their draws have the right variance,
        but are not correlated.

        Args:
            context: what the actions share.
            actions: K of them.

        Returns:
            float32[K, M], M the draws of the snapshot.

        Raises:
            SnapshotError: the snapshot was made without draws.
        """
        payload = self._payload
        if not payload.draws:
            raise SnapshotError(
                "this snapshot holds no posterior draws: it was not made for lints", "exploration"
            )

        columns, features, unmet = self._index.matrix(context, actions, relative=self._relative)
        sampled = features.astype(np.float32) @ self._weight_draws[columns]

        # An action that was met has draws of its own bias, another has that of the prior.
        variance = unmet / payload.config.l2
        if payload.config.action_bias:
            rows = self._row_of(actions)
            add_known(sampled, self._bias_draws, rows)
            variance[rows < 0] += 1.0 / payload.config.bias_l2

        new = np.flatnonzero(variance)
        if new.size:
            ids = [actions.ids[k] for k in new.tolist()] if new.size < len(actions) else actions.ids
            kept = prior_normals(payload.prior_seed, payload.draws)
            add_scaled(sampled, new, payload.scale * np.sqrt(variance[new]), *kept.of(ids))
        return sampled

    def _known(
        self, actions: ActionSet, values: NDArray[Any], unknown: float = 0.0
    ) -> NDArray[Any]:
        """Return the rows of ``values`` by action; ``unknown`` for an action never met."""
        rows = self._row_of(actions)
        out: NDArray[Any] = (
            values[rows] if len(values) else np.empty((rows.size, *values.shape[1:]), values.dtype)
        )
        out[rows < 0] = unknown
        return out

    def _row_of(self, actions: ActionSet) -> NDArray[np.intp]:
        """Return the row of each action; -1 for one never met."""
        return np.fromiter(map(self._rows.get, actions.ids, repeat(-1)), np.intp, len(actions))


class PriorNormals:
    """Standard normal draws of actions' priors: the same on every replica, under one salt.

    Those last asked for are kept, float32 [N, M], about PRIOR_CACHE of them.
    """

    def __init__(self, seed: bytes, count: int) -> None:
        self._seed = seed
        self._rows: dict[str, int] = {}
        self._kept = np.empty((64, count), np.float32)

    def of(self, ids: Sequence[str]) -> tuple[Float32, NDArray[np.int64]]:
        """Return the draws that are kept, [N, M], and the row of each of these actions."""
        rows = np.fromiter(map(self._rows.get, ids, repeat(-1)), np.int64, len(ids))
        missing = np.flatnonzero(rows < 0)

        if missing.size:
            # Full: forget all, and keep what is asked for now.
            if len(self._rows) > PRIOR_CACHE:
                self._rows, self._kept = {}, np.empty((64, self._kept.shape[1]), np.float32)
                return self.of(ids)
            for k in missing.tolist():
                rows[k] = self._draw(ids[k])
        return self._kept, rows

    def _draw(self, action_id: str) -> int:
        """Draw for an action, seeded by its id; return the row where its draws are kept."""
        row = self._rows[action_id] = len(self._rows)
        if row == len(self._kept):
            self._kept = np.concatenate([self._kept, np.empty_like(self._kept)])

        key = hashlib.blake2b(action_id.encode(), key=self._seed, digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(int.from_bytes(key, "little")))
        self._kept[row] = generator.standard_normal(self._kept.shape[1])
        return row


prior_normals = lru_cache(maxsize=16)(PriorNormals)
"""Shared by all snapshots of a policy."""


def _floats32(data: bytes, shape: tuple[int, ...]) -> Float32:
    if len(data) != 4 * int(np.prod(shape)):
        raise SnapshotError(f"expected float32{list(shape)}, got {len(data)} bytes", "payload")
    return finite(np.frombuffer(data, "<f4").reshape(shape))
