"""A target policy's choices in a batch of the log, as the rows that estimators take.

Beside them what a reward model predicts for every action.
"""

from dataclasses import replace

import numpy as np

from bandits.features.namespaces import CONTEXT, FEATURES
from bandits.types import Float64, UInt32
from simulator.logs.actions.columns import ActionColumns, FeatureColumns, Int32, Int64
from simulator.logs.rows import LogBatch
from simulator.logs.text_records import counts_of
from simulator.ope.batch import NOTHING, OpeBatch, mass_outside, ope_batch_from_actions
from simulator.ope.feature_design import FeatureScales
from simulator.ope.hashed_features import (
    check_finite,
    hash_ids,
    hash_in_parts,
    hash_terms,
    score_columns,
    without_empty,
)
from simulator.ope.kernels import action_margins, add_feature, weigh_rows
from simulator.ope.reward_model import FittedRewardModel, fold_of
from simulator.ope.targets import LoggingTarget, Target, demand_actions

_NONE = FeatureColumns(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0), ())


def predict_actions(model: FittedRewardModel, batch: LogBatch) -> Float64:
    """Predict the reward of every action of every row, float64[total].

    The same as ``FittedRewardModel.predict``, without a matrix of all actions' features: what is
    distinct is hashed and looked up once.

    Args:
        model: fitted.
        batch: n rows, with their actions as columns.

    Raises:
        ReplayError: a feature is no finite number, or is too large; names it.
    """
    actions = demand_actions(batch, "a reward model")
    if model.trees is not None:
        return _by_trees(model, batch, actions)

    check_finite(actions, batch.decisions)
    fold = fold_of(batch.keys, len(model.coefficients)).astype(np.int64)
    return model.from_margins(_margins(model, actions, fold))


def _margins(model: FittedRewardModel, actions: ActionColumns, fold: Int64) -> Float64:
    """Return the sums of coefficients times features, float64[total]."""
    scales, coefficients = model.scales, model.coefficients
    ids = hash_ids(actions.names)
    known, _ = scales.standard(ids, np.ones(len(ids)))
    shared = _terms(actions.context, CONTEXT, scales)
    own = _terms(actions.features or _NONE, FEATURES, scales)
    out = action_margins(
        actions.offsets, actions.ids, ids, known, *shared, *own, fold, coefficients
    )

    for name, values in score_columns(actions):
        units = scales.units(np.array([name], np.uint32))
        add_feature(out, actions.offsets, values, name, units, 0, fold, coefficients)
    return out


def _terms(
    columns: FeatureColumns, namespace: str, scales: FeatureScales
) -> tuple[Int64, Int32, Float64, UInt32, Float64]:
    """Return maps of features as ``action_margins`` takes them."""
    columns = without_empty(columns)
    hashes = hash_terms(columns.terms, namespace)
    return columns.offsets, columns.codes, columns.values, hashes, scales.units(hashes)


def _by_trees(model: FittedRewardModel, batch: LogBatch, actions: ActionColumns) -> Float64:
    """Return the predictions of trees, which look at rows of a matrix."""
    parts = []
    for part, features in hash_in_parts(batch):
        there = np.arange(features.ids.shape[1]) < actions.counts[part, None]
        parts.append(model.predict(features, batch.keys[part])[there])
    return np.concatenate(parts)


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
        batch: n rows, with their actions as columns.
        predictions: float64[total], the reward model's, of every action of every row.
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
    actions, pmfs = demand_actions(batch, target.name), target.flat_pmfs(batch)
    at = actions.chosen_at
    if actions.pmf is not None and not actions.lacking.any():
        return ope_batch_from_actions(
            batch.keys, batch.reward, actions.offsets, at, actions.pmf, pmfs, predictions
        )

    # Where a row's PMF is not known, nothing is said of what the logging policy might have done.
    known = NOTHING if predictions is None else predictions
    mass, expected, _, _ = weigh_rows(actions.offsets, NOTHING, pmfs, known)
    return OpeBatch(
        keys=batch.keys,
        reward=batch.reward,
        propensity=batch.propensity,
        target=batch.propensity if isinstance(target, LoggingTarget) else pmfs[at],
        predicted=None if predictions is None else predictions[at],
        expected=None if predictions is None else expected,
        unsupported=mass_outside(mass),
    )
