"""The scale of a source's scores: what its best candidates of known users usually score."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from bandits.values import FeatureMap
from policies.artifacts.histories import Histories
from policies.artifacts.source_artifact import Calibration, TrainedSource
from policies.sources import model_of

CALIBRATION_TOP: Final = 50
"""Best candidates by user that scores are calibrated on: about as many as a request asks for."""
CALIBRATION_USERS: Final = 1000
"""Users that scores are calibrated on, drawn where there are more."""
ALIKE: Final = 1e-6
"""Scores that are the same differ by at most this, by rounding: no scale is made of that."""


def calibrate(
    source: TrainedSource,
    histories: Histories,
    items: Mapping[str, FeatureMap] = MappingProxyType({}),
    *,
    seed: int = 0,
) -> Calibration:
    """Return mean and standard deviation of the raw scores of known users' best candidates.

    Args:
        source: what is calibrated.
        histories: what it was fitted on.
        items: by id, the features of items.
        seed: of the users that are drawn, where there are many.
    """
    model = model_of(source, histories.items, items)
    users = np.arange(len(histories.users))
    if users.size > CALIBRATION_USERS:
        rng = np.random.default_rng(seed)
        users = np.sort(rng.choice(users, CALIBRATION_USERS, replace=False))

    best = []
    for user in users.tolist():
        indices, weights = histories.row(user)
        if model.needs_history and not weights.any():
            continue
        scores = model.raw(indices, weights).astype(np.float64)
        scores[indices] = -np.inf
        if scores.size > CALIBRATION_TOP:
            scores = np.partition(scores, -CALIBRATION_TOP)[-CALIBRATION_TOP:]
        best.append(np.sort(scores))

    pooled = np.concatenate([np.zeros(0), *best])
    pooled = pooled[np.isfinite(pooled) & (pooled > model.floor)]
    # Too few items, or all alike, are nothing to calibrate by.
    if pooled.size == 0 or np.ptp(pooled) <= ALIKE * np.abs(pooled).max():
        return Calibration()
    return Calibration(float(pooled.mean()), float(pooled.std()))
