"""What a trained policy of sessions earns of users it never met, beside the sources' own orders."""

from collections.abc import Callable

import msgspec

from bandits.exploration import Greedy
from bandits.types import Policy
from policies.artifacts.learner_model import TrainedModel
from policies.blend import load_policy, make_learner
from policies.decisions.holdout import FixedPolicy
from policies.spec import UNIFORM, PolicySpec
from simulator.ranking.metrics.significance import bootstrap, intervals
from simulator.sessions.data_set import DataSetSessions
from simulator.sessions.play import SALT, play

SESSIONS = 300
CHANCE = "chance"
"""The row of a policy that shows anything, as often."""


class SessionsEarned(msgspec.Struct, frozen=True):
    """What sessions earned under one policy.

    Attributes:
        policy: the trained one's name, a source's (the best by its score is shown), or CHANCE.
        sessions: how many were played, the same users' and with the same chance for each policy.
        mean: reward of a session.
        low: the lower end of its 95% interval.
        high: the upper end.
        decisions: mean number of a session's decisions.
    """

    policy: str
    sessions: int
    mean: float
    low: float
    high: float
    decisions: float


def judge_on_tested(
    world: DataSetSessions,
    spec: PolicySpec,
    model: TrainedModel,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[SessionsEarned]:
    """Return what is earned of the users who were kept for this, by policy.

    The trained policy shows its best, as it does as a source.

    Args:
        world: it was trained in.
        spec: the trained policy.
        model: what it has learned.
        seed: of the sessions.
        progress: told how many of the policies have played, of how many.
    """
    greedy = msgspec.structs.replace(spec, exploration=Greedy(), floor=0.0)
    snapshot = make_learner(spec, salt=SALT, checkpoint=model.checkpoint).snapshot("1-0")
    policies: dict[str, Policy] = {spec.name: load_policy(greedy, snapshot)}
    policies |= {source: FixedPolicy(source) for source in world.sources}
    policies[CHANCE] = FixedPolicy(UNIFORM)

    rows, tested = [], world.tested()
    for number, (name, policy) in enumerate(policies.items()):
        progress(number, len(policies))
        played = play(tested, policy, SESSIONS, seed)
        low, high = intervals(bootstrap(played.returns[:, None], seed=seed))[0].tolist()
        rows.append(
            SessionsEarned(
                name,
                SESSIONS,
                float(played.returns.mean()),
                low,
                high,
                float(played.lengths.mean()),
            )
        )
    return rows
