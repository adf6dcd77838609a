"""A target policy's choices in sessions of the log, as the rows that estimators take."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bandits.types import Float64
from simulator.logs.rows import LoggedDecision, key_of
from simulator.ope.feature_design import FeatureScales
from simulator.ope.sessions.batch import SessionBatch, session_batch
from simulator.ope.sessions.cutting import Rows
from simulator.ope.sessions.model import FittedSessionModel, SessionModel, mean_features
from simulator.ope.targets import LoggingTarget, Target


def fit_target_sessions(
    out: SessionModel, target: Target, scales: FeatureScales, sessions: Sequence[Rows]
) -> None:
    """Add sessions to a target policy's model.

    Args:
        out: the model.
        target: the policy.
        scales: the units of features.
        sessions: of the log.
    """
    rows = [row for session in sessions for row in session]
    chosen = mean_features(rows, [_choice(row) for row in rows], out.bits, scales)
    expected = mean_features(rows, [target.pmf(row) for row in rows], out.bits, scales)
    rewards = np.array([row.reward for row in rows])

    start = 0
    for session in sessions:
        mine = slice(start, start + len(session))
        out.update(chosen[mine], expected[mine], rewards[mine], key_of(session[0].event_id))
        start += len(session)


def target_session_batch(
    target: Target,
    sessions: Sequence[Rows],
    *,
    horizon: int,
    gamma: float,
    bits: int,
    model: FittedSessionModel | None,
    scales: FeatureScales | None,
) -> SessionBatch:
    """Return sessions beside what a target policy would have done in them.

    Args:
        target: the policy.
        sessions: of the log.
        horizon: decisions of a session that count.
        gamma: what a reward counts one decision later.
        bits: of the model.
        model: the target's, if there is one.
        scales: the units of features in it.
    """
    kept = [session[:horizon] for session in sessions]
    lengths = np.array([len(session) for session in kept])
    rows = [row for session in kept for row in session]
    keys = np.array([key_of(session[0].event_id) for session in sessions], np.uint64)
    there = np.arange(horizon) < lengths[:, None]

    # A log without PMFs does not say what its own policy would have done, but for its choices.
    has_pmfs = model is not None or not isinstance(target, LoggingTarget)
    pmfs = [target.pmf(row) for row in rows] if has_pmfs else []
    mass, unsupported = [row.propensity for row in rows], [0.0] * len(rows)
    if has_pmfs:
        mass = [float(pmf[row.chosen]) for pmf, row in zip(pmfs, rows, strict=True)]
        unsupported = [_unsupported(pmf, row) for pmf, row in zip(pmfs, rows, strict=True)]

    action_values = values = None
    if model is not None and scales is not None:
        owners = np.repeat(keys, lengths)
        ahead = np.broadcast_to(horizon - np.arange(horizon), there.shape)[there]
        chosen = mean_features(rows, [_choice(row) for row in rows], bits, scales)
        expected = mean_features(rows, pmfs, bits, scales)
        action_values = _laid_out(model.values(chosen, owners, ahead), there)
        values = _laid_out(model.values(expected, owners, ahead), there)

    return session_batch(
        keys,
        lengths,
        _laid_out((row.reward for row in rows), there),
        _laid_out((row.propensity for row in rows), there),
        _laid_out(mass, there),
        _laid_out(unsupported, there),
        gamma=gamma,
        action_values=action_values,
        values=values,
    )


def _laid_out(values: Iterable[float], there: NDArray[np.bool_]) -> Float64:
    """Return one value a decision as float64[n, H], 0 after a session's end."""
    out = np.zeros(there.shape)
    out[there] = np.fromiter(values, np.float64, int(there.sum()))
    return out


def _choice(row: LoggedDecision) -> Float64:
    """Return a PMF with all mass on what was chosen."""
    pmf = np.zeros(len(row.action_ids))
    pmf[row.chosen] = 1.0
    return pmf


def _unsupported(pmf: Float64, row: LoggedDecision) -> float:
    """Return the mass on actions that the log never takes, or that the row does not have."""
    outside = max(0.0, 1.0 - float(pmf.sum()))
    never = 0.0 if row.pmf is None else float(pmf[row.pmf <= 0.0].sum())
    return never + (outside if outside > 1e-9 else 0.0)
