"""Merging ridge models of disjoint logs: their sufficient statistics add up, so it is exact."""

from collections.abc import Sequence

import msgspec
import numpy as np

from bandits.features.columns import INTERCEPT
from bandits.ridge.config import RidgeConfig
from bandits.ridge.forgetting import halve
from bandits.ridge.payloads import RidgeState, decode_sums, encode_sums, epoch_of


def merge_ridge(config: RidgeConfig, checkpoints: Sequence[bytes]) -> bytes:
    """Return the checkpoint of a learner that has learned what each of these has, none of it twice.

    Features and actions stand in the order in which they are first met, checkpoint after
    checkpoint. As long as no learner's features were full, the sums are those of one learner of all
    the logs, up to the rounding of additions; what exceeds ``max_features`` is left out, as a
    learner leaves it out. Where decisions are forgotten, the newest of all logs gives the epoch.

    Args:
        config: the learners'.
        checkpoints: one of each log.

    Raises:
        SnapshotError: a checkpoint is corrupt.
    """
    parts = [decode_sums(checkpoint) for checkpoint in checkpoints]

    # Which column and row each feature and action has in the merged model.
    hashes = list(dict.fromkeys([INTERCEPT, *(hashed for part in parts for hashed in part.hashes)]))
    column = {hashed: at for at, hashed in enumerate(hashes[: config.max_features])}
    row = {
        name: at
        for at, name in enumerate(dict.fromkeys(name for part in parts for name in part.action_ids))
    }

    epochs = [epoch for part in parts if (epoch := epoch_of(config, part)) is not None]
    newest = max(epochs, key=lambda epoch: epoch.newest_ms, default=epoch_of(config, RidgeState()))

    d, n = len(column), len(row)
    a, b, cross = np.zeros((d, d)), np.zeros(d), np.zeros((n, d))
    count, total = np.zeros(n), np.zeros(n)
    for number, part in enumerate(parts):
        kept = [at for at, hashed in enumerate(part.hashes) if hashed in column]
        columns = np.array([column[part.hashes[at]] for at in kept], np.intp)
        rows = np.array([row[name] for name in part.action_ids], np.intp)

        arrays = part.arrays()
        if newest is not None:
            for array in arrays:
                halve(array, newest.number - epochs[number].number)

        own_a, own_b, own_cross, own_count, own_total = arrays
        a[np.ix_(columns, columns)] += own_a[np.ix_(kept, kept)]
        b[columns] += own_b[kept]
        cross[np.ix_(rows, columns)] += own_cross[:, kept]
        count[rows] += own_count
        total[rows] += own_total

    return encode_sums(
        list(column),
        list(row),
        sum(part.learned for part in parts),
        (a, b, cross, count, total),
        msgspec.UNSET if newest is None else newest.newest_ms,
    )
