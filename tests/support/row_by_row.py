"""What evaluation on columns computes, defined one row and one action at a time."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bandits.features.hashing import hash_feature
from bandits.features.namespaces import CONTEXT, FEATURES, ITEM
from policies.encoding import hash_pairs
from policies.features import score_features
from simulator.logs.rows import LogBatch, LoggedDecision
from simulator.logs.text_records import counts_of
from simulator.ope.batch import OpeBatch
from simulator.ope.hashed_features import HashedFeatures
from simulator.ope.reward_model import FittedRewardModel
from simulator.ope.targets import LoggingTarget, Target

Pairs = list[tuple[int, float]]


def hash_row_by_row(rows: Sequence[LoggedDecision], *, chosen: bool = False) -> HashedFeatures:
    """Hash the features of every action of the rows, or of the chosen ones only."""
    ids, contexts, own = [], [], []
    for row in rows:
        which = [row.chosen] if chosen else range(len(row.action_ids))
        ids.append([hash_feature(ITEM, row.action_ids[k]) for k in which])
        contexts.append(hash_pairs(row.context, CONTEXT))
        actions = [hash_pairs((row.features or {k: {}})[k] or {}, FEATURES) for k in which]
        if row.scores:
            for pairs, k in zip(actions, which, strict=True):
                pairs.extend(_scores_of(row)[k])
        own.append(actions)

    k = max(map(len, ids), default=0)
    hashes, there = np.zeros((len(rows), k), np.uint32), np.full((len(rows), k), np.nan)
    for at, names in enumerate(ids):
        hashes[at, : len(names)], there[at, : len(names)] = names, 1.0
    context, values = _fill(contexts)
    columns, numbers = _fill([p for of in own for p in (*of, *[[]] * (k - len(of)))])
    shape = (len(rows), k, columns.shape[1])
    return HashedFeatures(
        hashes, there, context, values, columns.reshape(shape), numbers.reshape(shape)
    )


def _scores_of(row: LoggedDecision) -> list[Pairs]:
    """Return, of each action, score and rank of the sources that scored it, and which did."""
    scored = score_features(row.scores)
    hashes, values = scored.hashes.tolist(), scored.values.astype(np.float64)
    return [
        [
            (hashes[at], float(value))
            for at, value in enumerate(action)
            if at % 3 == 2 or action[at - at % 3 + 2]
        ]
        for action in values
    ]


def _fill(rows: Sequence[Pairs]) -> tuple[np.ndarray, np.ndarray]:
    width = max(map(len, rows), default=0)
    hashes = [[hashed for hashed, _ in pairs] + [0] * (width - len(pairs)) for pairs in rows]
    values = [[value for _, value in pairs] + [np.nan] * (width - len(pairs)) for pairs in rows]
    shape = (len(rows), width)
    return np.array(hashes, np.uint32).reshape(shape), np.array(values, np.float64).reshape(shape)


def predict_row_by_row(
    model: FittedRewardModel, rows: Sequence[LoggedDecision], keys: np.ndarray
) -> list[np.ndarray]:
    """Predict the rewards of each row's actions, float64[K] each."""
    return [model.predict(hash_row_by_row([row]), keys[[at]])[0] for at, row in enumerate(rows)]


def target_row_by_row(
    target: Target,
    batch: LogBatch,
    predictions: Sequence[np.ndarray] | None = None,
    *,
    has_pmfs: bool = True,
    counted: bool = False,
) -> OpeBatch:
    """Return a batch's rows beside what a target policy would have done with them."""
    if not has_pmfs:
        seen = OpeBatch(batch.keys, batch.reward, batch.propensity, target.propensities(batch))
        return replace(seen, counts=counts_of(batch)) if counted else seen

    complete = all(row.pmf is not None for row in batch.decisions)
    found = []
    for at, row in enumerate(batch.decisions):
        if row.pmf is None and isinstance(target, LoggingTarget):
            pmf = np.eye(len(row.action_ids))[row.chosen]
        else:
            pmf = target.pmf(row)
        outside = max(0.0, 1.0 - pmf.sum())
        unsupported, second = (0.0 if outside < 1e-9 else outside), 0.0
        if complete:
            unsupported += pmf[row.pmf <= 0.0].sum()
            second = sum(p * p / q for p, q in zip(pmf, row.pmf, strict=True) if q > 0.0)
        likely = pmf[row.chosen]
        if not complete and isinstance(target, LoggingTarget):
            likely = row.propensity
        found.append(
            (
                row.pmf[row.chosen] if complete else row.propensity,
                likely,
                0.0 if predictions is None else predictions[at][row.chosen],
                0.0 if predictions is None else predictions[at] @ pmf,
                unsupported,
                second,
            )
        )

    propensity, likely, predicted, expected, unsupported, second = np.array(found).T
    return OpeBatch(
        keys=batch.keys,
        reward=batch.reward,
        propensity=propensity,
        target=likely,
        predicted=None if predictions is None else predicted,
        expected=None if predictions is None else expected,
        unsupported=unsupported,
        second_moment=second if complete else None,
        counts=counts_of(batch) if counted else None,
    )
