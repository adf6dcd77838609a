"""From a snapshot to a policy: a model scores the actions, exploration makes a PMF of them, a floor holds it."""

from collections.abc import Callable
from dataclasses import dataclass

from bandits.errors import SnapshotError
from bandits.exploration import LinTs, LinUcb, VwExploration, greedy, votes, with_floor
from bandits.ridge import learner as ridge
from bandits.ridge.learner import RidgeConfig, RidgeLearner
from bandits.ridge.model import RidgeModel
from bandits.rl import network as rl
from bandits.rl.network import RlConfig, RlLearner, RlModel
from bandits.types import ActionSet, Context, Learner, Pmf, Policy, Snapshot
from bandits.vw.learner import VwLearner, VwModel, VwWeights, load_vw
from policies.spec import PolicySpec, VwConfig


@dataclass(frozen=True, slots=True, eq=False)
class Blend:
    """A PMF of any kind, mixed with ``floor`` of uniform exploration."""

    explore: Callable[[Context, ActionSet], Pmf]
    floor: float

    def pmf(self, context: Context, actions: ActionSet) -> Pmf:
        """float64[K]; every action has at least floor/K."""
        return with_floor(self.explore(context, actions), self.floor)


def make_learner(spec: PolicySpec, *, salt: bytes, checkpoint: bytes | None = None) -> Learner:
    """The learner that a spec describes, fresh or resumed."""
    exploration = spec.exploration
    if isinstance(spec.learner, RidgeConfig):
        return RidgeLearner(
            spec.learner,
            draws=exploration.draws if isinstance(exploration, LinTs) else 0,
            scale=exploration.scale if isinstance(exploration, LinTs) else 1.0,
            uncertainty=isinstance(exploration, LinUcb),
            salt=salt,
            checkpoint=checkpoint,
        )
    if isinstance(spec.learner, RlConfig):
        return RlLearner(spec.learner, checkpoint=checkpoint)
    own = isinstance(exploration, VwExploration)
    return VwLearner(spec.learner.args, own_exploration=own, by_row=True, checkpoint=checkpoint)


def load_policy(spec: PolicySpec, snapshot: Snapshot) -> Policy:
    """What a replica serves.

    Raises:
        SnapshotError: the snapshot is corrupt, or of another kind than the spec's learner makes.
    """
    kinds = {ridge.KIND: RidgeConfig, rl.KIND: RlConfig}
    if not isinstance(spec.learner, kinds.get(snapshot.kind, VwConfig)):
        raise SnapshotError(
            f"a snapshot of kind {snapshot.kind} does not fit this spec's learner", "snapshot.kind"
        )
    if snapshot.kind == ridge.KIND:
        return Blend(_explore_ridge(spec, RidgeModel(snapshot)), spec.floor)
    if isinstance(spec.learner, RlConfig):
        return Blend(_explore_scores(spec, RlModel(spec.learner, snapshot)), spec.floor)
    return Blend(_explore_vw(spec, load_vw(snapshot)), spec.floor)


def _explore_ridge(spec: PolicySpec, model: RidgeModel) -> Callable[[Context, ActionSet], Pmf]:
    exploration = spec.exploration
    if isinstance(exploration, LinTs):
        return lambda context, actions: votes(model.draws(context, actions))
    if isinstance(exploration, LinUcb):
        alpha = exploration.alpha
        return lambda context, actions: greedy(model.upper_bounds(context, actions, alpha))
    return _explore_scores(spec, model)


def _explore_vw(
    spec: PolicySpec, model: VwWeights | VwModel
) -> Callable[[Context, ActionSet], Pmf]:
    return model.pmf if isinstance(model, VwModel) else _explore_scores(spec, model)


def _explore_scores(
    spec: PolicySpec, model: RidgeModel | VwWeights | RlModel
) -> Callable[[Context, ActionSet], Pmf]:
    exploration = spec.exploration
    if isinstance(exploration, LinTs | LinUcb | VwExploration):
        raise SnapshotError(
            f"a model of scores cannot explore as {type(exploration).__name__}", "exploration.kind"
        )
    scores = model.comparable if isinstance(model, RidgeModel) else model.scores
    return lambda context, actions: exploration.pmf(scores(context, actions), model.learned)
