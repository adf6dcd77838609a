"""A policy of this project that learns from a log as it goes."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import InvalidFieldError, ReplayError
from bandits.log.positions import START
from bandits.types import ActionSet, Context, Interaction, Pmf
from policies.blend import load_policy, make_learner
from policies.spec import PolicySpec
from policies.spec.checks import check_learner
from simulator.learners.features import featurise_row
from simulator.learners.row_rules import RowRules
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
        if spec.join.page_reward is not msgspec.UNSET:
            raise ReplayError(
                "a policy that learns on the way learns a row at a time, and knows nothing of the"
                " other slots of its page: train it on the archive (banditloop train policy)",
                "join.page_reward",
            )
        if publish_every < 1:
            raise InvalidFieldError(
                f"a model is published every 1 row or more, not {publish_every}", "publish_every"
            )

        self._spec, self._publish_every = spec, publish_every
        self._rules = RowRules(spec)
        self._learner = make_learner(spec, salt=salt_of(seed))
        self._policy = load_policy(spec, self._learner.snapshot(START))
        self._learned = 0
        self._pending: list[Interaction] = []

    def features(self, row: LoggedDecision) -> tuple[Context, ActionSet]:
        """Return what the policy sees of a row; see ``featurise_row``."""
        return featurise_row(self._spec, row)

    def pmf(self, row: LoggedDecision, context: Context, actions: ActionSet) -> Pmf:
        """Return the probabilities of the K actions, float64[K], by the model last published.

        Args:
            row: A row of a log.
            context: What the policy sees of its context.
            actions: What it sees of its K actions.

        Raises:
            InvalidPmfError: What the policy computes is no PMF.
            ReplayError: Its rules look at what the row's record does not say.
        """
        return self._rules.on(row, (context, actions)).pmf(self._policy)

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
