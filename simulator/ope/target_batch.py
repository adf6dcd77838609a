"""A target policy's choices in a batch of the log, as the rows that estimators take."""

from dataclasses import replace

import numpy as np

from bandits.types import Float64
from simulator.logs.rows import LogBatch
from simulator.logs.text_records import counts_of
from simulator.ope.batch import OpeBatch, ope_batch_from_pmfs
from simulator.ope.hashed_features import hash_in_parts
from simulator.ope.reward_model import FittedRewardModel
from simulator.ope.targets import LoggingTarget, Target


def predict_actions(model: FittedRewardModel, batch: LogBatch) -> Float64:
    """Predict the reward of every action of every row, float64[n, K].

    Args:
        model: fitted.
        batch: n rows with up to K actions.
    """
    out = np.zeros((len(batch), max(len(row.action_ids) for row in batch.decisions)))
    for part, features in hash_in_parts(batch.decisions):
        out[part, : features.ids.shape[1]] = model.predict(features, batch.keys[part])
    return out


def target_batch(
    target: Target,
    batch: LogBatch,
    predictions: Float64 | None,
    *,
    has_pmfs: bool,
    counted: bool,
) -> OpeBatch:
    """Return a batch's rows beside what a target policy would have done with them.

    Args:
        target: the policy.
        batch: n rows with up to K actions.
        predictions: float64[n, K], the reward model's, of every action.
        has_pmfs: whether the target has PMFs, or probabilities of the chosen actions only.
        counted: whether rows say how many decisions they stand for.
    """
    if has_pmfs:
        seen = _batch_from_pmfs(target, batch, predictions)
    else:
        seen = OpeBatch(batch.keys, batch.reward, batch.propensity, target.propensities(batch))

    return replace(seen, counts=counts_of(batch)) if counted else seen


def _batch_from_pmfs(target: Target, batch: LogBatch, predictions: Float64 | None) -> OpeBatch:
    """Return the rows of a target that has PMFs, in a log that may lack its own."""
    rows, is_logging = batch.decisions, isinstance(target, LoggingTarget)
    width = max(len(row.action_ids) for row in rows)
    pmfs, logging = np.zeros((len(rows), width)), np.zeros((len(rows), width))
    complete = all(row.pmf is not None for row in rows)

    for number, row in enumerate(rows):
        # What was chosen is a draw from the logging PMF that is lacking, so it stands for it.
        if row.pmf is None and is_logging:
            pmfs[number, row.chosen] = 1.0
            continue
        pmfs[number, : len(row.action_ids)] = target.pmf(row)
        if row.pmf is not None:
            logging[number, : len(row.action_ids)] = row.pmf

    # Mass that a PMF lacks to 1 is on actions that the row does not have.
    outside = np.maximum(0.0, 1.0 - pmfs.sum(axis=1))
    outside[outside < 1e-9] = 0.0

    chosen = np.fromiter((row.chosen for row in rows), np.intp, len(rows))
    if complete:
        seen = ope_batch_from_pmfs(batch.keys, batch.reward, chosen, logging, pmfs, predictions)
        assert seen.unsupported is not None  # noqa: S101 - made from PMFs
        return replace(seen, unsupported=seen.unsupported + outside)

    at = np.arange(len(rows))
    return OpeBatch(
        keys=batch.keys,
        reward=batch.reward,
        propensity=batch.propensity,
        target=batch.propensity if is_logging else pmfs[at, chosen],
        predicted=None if predictions is None else predictions[at, chosen],
        expected=None if predictions is None else np.einsum("nk,nk->n", predictions, pmfs),
        unsupported=outside,
    )
