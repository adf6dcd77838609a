"""A policy of this project that learns from a log as it goes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError, ReplayError
from bandits.log.positions import START
from bandits.types import ActionSet, Context, Interaction, Pmf, check_pmf
from policies.blend import load_policy, make_learner
from policies.features import featurise, featurise_record
from policies.items.catalogue import Catalogue
from policies.spec import PolicySpec
from policies.spec.checks import check_learner
from simulator.logs.rows import LoggedDecision

PUBLISH_EVERY = 100


def salt_of(seed: int) -> bytes:
    """Return the salt from which a replay with this seed derives all its chance."""
    return f"replay-{seed}".encode()


def check_blend(spec: PolicySpec) -> None:
    """Refuse a policy that cannot be replayed.

    Raises:
        ReplayError: The spec is of a mixture, whose actions are sources and not those of a log; or
            of a policy that learns from no log.
    """
    if spec.kind == "rl":
        raise ReplayError(
            "a policy of kind rl does not learn from a log: banditloop train rl makes its network",
            "kind",
        )
    if spec.kind != "blend":
        raise ReplayError(
            f"the actions of a {spec.kind} are its sources, not a log's: replay a blend", "kind"
        )


def featurise_row(spec: PolicySpec, row: LoggedDecision) -> tuple[Context, ActionSet]:
    """Return what a policy sees of a row.

    Where the log is the project's, that includes source scores and the catalogue's features.

    Args:
        spec: The policy.
        row: A row of a log.

    Raises:
        ReplayError: A feature is too large for a policy, which computes with float32.
    """
    catalogue = row.catalogue or _NO_ITEMS
    if row.record is not None:
        context, actions = featurise_record(spec, catalogue, row.record)
        return context, actions.take(_places(row.action_ids, row.record.action_ids))

    with np.errstate(over="ignore"):
        context, actions = featurise(spec, catalogue, row.context, row.action_ids, row.features, {})
    namespaces = (*context.namespaces, *actions.namespaces)
    if not all(np.isfinite(namespace.values).all() for namespace in namespaces):
        raise too_large(row.event_id)
    return context, actions


def demand_times(times_ms: NDArray[np.int64]) -> None:
    """Refuse rows without a time, which a learner that forgets cannot weigh.

    Args:
        times_ms: int64[n], 0 where the log has no time.

    Raises:
        ReplayError: One has none.
    """
    if (times_ms == 0).any():
        raise ReplayError(
            "this log has rows without a time, so nobody knows how old they are: leave half_life"
            " out, or use a log with times",
            "learner.half_life",
        )


def too_large(event_id: str) -> ReplayError:
    """Return the error of a row with a feature that float32 does not hold."""
    return ReplayError(
        f"decision {event_id} has a feature beyond {np.finfo(np.float32).max:.3g},"
        " too large for a policy: leave such rows out, or give it in another unit",
        "features",
    )


_NO_ITEMS = Catalogue()


class OnlinePolicy:
    """A spec's policy and its learner, from nothing.

    The policy sees what was learned ``publish_every`` rows at a time. ``seed`` seeds a ridge
    learner's posterior draws.

    Raises:
        ReplayError: The spec is of a mixture, whose actions are sources and not those of a log.
    """

    def __init__(self, spec: PolicySpec, *, publish_every: int, seed: int) -> None:
        check_learner(spec)
        check_blend(spec)
        if publish_every < 1:
            raise InvalidFieldError(
                f"a model is published every 1 row or more, not {publish_every}", "publish_every"
            )

        self._spec, self._publish_every = spec, publish_every
        self._learner = make_learner(spec, salt=salt_of(seed))
        self._policy = load_policy(spec, self._learner.snapshot(START))
        self._learned = 0
        self._pending: list[Interaction] = []

    def features(self, row: LoggedDecision) -> tuple[Context, ActionSet]:
        """Return what the policy sees of a row; see ``featurise_row``."""
        return featurise_row(self._spec, row)

    def pmf(self, context: Context, actions: ActionSet) -> Pmf:
        """Return the probabilities of the K actions, float64[K], by the model last published.

        Args:
            context: What the policy sees of a row's context.
            actions: What it sees of the row's K actions.

        Raises:
            InvalidPmfError: What the policy computes is no PMF.
        """
        return check_pmf(self._policy.pmf(context, actions))

    def learn(
        self, row: LoggedDecision, context: Context, actions: ActionSet, propensity: float
    ) -> None:
        """Learn that the row's choice earned the row's reward.

        Args:
            row: A row of the log.
            context: What the policy saw of its context.
            actions: What the policy saw of its actions.
            propensity: The probability with which the choice was made.
        """
        if self._learner.timed:
            demand_times(np.array([row.time_ms], np.int64))
        self._pending.append(
            Interaction(
                row.event_id,
                row.slot,
                context,
                actions,
                row.chosen,
                propensity,
                row.reward,
                row.time_ms,
            )
        )

        if len(self._pending) == self._publish_every:
            self._learned += len(self._pending)
            self._learner.learn(self._pending)
            self._pending = []
            self._policy = load_policy(self._spec, self._learner.snapshot(f"{self._learned}-0"))


def _places(ids: Sequence[str], among: Sequence[str]) -> list[int]:
    at = {action_id: place for place, action_id in enumerate(among)}
    return [at[action_id] for action_id in ids]
