"""What a kind of learner has to say of itself, and that the kinds there are keep their bytes."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, get_args

import msgspec
import numpy as np
import pytest

from bandits.decide import decide
from bandits.errors import SpecError
from bandits.exploration import EpsilonGreedy, Exploration, LinTs, VwExploration
from bandits.learner_config import LearnerConfig, Merges, Standbys, explore_scores
from bandits.learner_kinds import LearnerKind
from bandits.ridge.config import RidgeConfig
from bandits.rl.config import RlConfig
from bandits.types import (
    ActionSet,
    ChosenRow,
    Context,
    Explore,
    Float64,
    Interaction,
    Learner,
    Snapshot,
)
from bandits.vw.config import VwConfig
from policies.blend import load_policy, make_learner
from policies.spec import PolicySpec

KINDS = get_args(LearnerKind)
Sums = dict[str, tuple[int, float]]


class MeanLearner(Learner):
    """The mean reward of each action: the least a learner has to do."""

    by_row = True

    def __init__(self, checkpoint: bytes | None) -> None:
        self.sums: Sums = msgspec.msgpack.decode(checkpoint, type=Sums) if checkpoint else {}

    def learn(self, interactions: Sequence[Interaction]) -> None:
        for interaction in interactions:
            self.learn_row(ChosenRow.of(interaction))

    def learn_row(self, row: ChosenRow) -> None:
        count, total = self.sums.get(row.action_id, (0, 0.0))
        self.sums[row.action_id] = count + 1, total + row.reward

    def scores(self, context: Context, actions: ActionSet) -> Float64:
        sums = [self.sums.get(name, (0, 0.0)) for name in actions.ids]
        return np.array([total / (1 + count) for count, total in sums])

    def snapshot(self, position: str) -> Snapshot:
        learned = sum(count for count, _ in self.sums.values())
        return Snapshot("mean", position, learned, self.checkpoint())

    def checkpoint(self) -> bytes:
        return msgspec.msgpack.encode(self.sums)


class MeanConfig(
    LearnerConfig, tag="mean", tag_field="kind", frozen=True, forbid_unknown_fields=True
):
    standbys: Standbys = 0

    merges: ClassVar[Merges] = "sums"
    snapshots: ClassVar[Mapping[str, Mapping[str, str] | None]] = {"mean": None}

    def make(
        self, exploration: Exploration, *, salt: bytes, checkpoint: bytes | None = None
    ) -> Learner:
        return MeanLearner(checkpoint)

    def load(self, snapshot: Snapshot, exploration: Exploration) -> Explore:
        model = MeanLearner(snapshot.payload)
        return explore_scores(exploration, model.scores, snapshot.learned)


def test_a_learner_of_another_kind_learns_and_is_served_by_what_its_config_says():
    """The best of three arms has the largest share of 500 decisions, but for chance below 1e-6."""
    spec = PolicySpec("p", learner=MeanConfig(), exploration=EpsilonGreedy(0.3))
    learner = make_learner(spec, salt=b"s")
    rng, actions, best = np.random.default_rng(0), ActionSet(("a", "b", "c")), 0
    for number in range(500):
        policy = load_policy(spec, learner.snapshot("1-0"))
        decision = decide(policy, Context(), actions, event_id=f"e{number}", salt=b"s")
        chosen = decision.chosen[0]
        reward = float(rng.random() < (0.1, 0.1, 0.9)[chosen])
        propensity = decision.propensities[0]
        learner.learn([Interaction("e", 0, Context(), actions, chosen, propensity, reward)])
        learner = make_learner(spec, salt=b"s", checkpoint=learner.checkpoint())
        best += chosen == 2
    assert best > 250


def test_what_a_config_does_not_say_is_refused_by_name():
    config = MeanConfig()
    with pytest.raises(SpecError, match="a mean learner does not explore by lints, but by one of"):
        config.check_exploration(LinTs())
    with pytest.raises(SpecError, match="models of a mean learner do not merge"):
        config.merge(b"", [])
    with pytest.raises(SpecError, match="cannot correct what it has learned"):
        PolicySpec("p", learner=config, exploration=EpsilonGreedy(), join=_correcting())
    with pytest.raises(NotImplementedError, match="MeanLearner does not correct"):
        config.make(EpsilonGreedy(), salt=b"").correct_row(ChosenRow("a", (), (), 1.0))


def _correcting():
    return msgspec.structs.replace(PolicySpec("p").join, late="correct")


def test_each_kind_has_standbys_and_snapshots_of_its_own():
    names = [name for kind in KINDS for name in kind.snapshots]
    assert len(set(names)) == len(names)
    assert all(kind.snapshots and "standbys" in kind.__struct_fields__ for kind in KINDS)
    assert len({kind.__struct_config__.tag for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize(
    ("config", "exploration", "written", "model"),
    [
        (
            RidgeConfig(standbys=2),
            LinTs(),
            b"".join(
                [
                    b'{"kind":"ridge","l2":1.0,"action_bias":true,"bias_l2":10.0,',
                    b'"interactions":[],"max_features":256,"standbys":2}',
                ]
            ),
            "827b7e0b151de67f53ca94917c62eae8",
        ),
        (
            VwConfig("--cb_explore_adf"),
            VwExploration(),
            b'{"kind":"vw","args":"--cb_explore_adf","standbys":0}',
            "c0c939237cdffeb889558f6efa9990bd",
        ),
        (
            RlConfig("0" * 16),
            EpsilonGreedy(),
            b'{"kind":"rl","features":"0000000000000000","standbys":0}',
            "40f45886a1de38335ae6d586366f3526",
        ),
    ],
)
def test_a_config_is_written_as_ever_and_its_models_keep_their_names(
    config, exploration, written, model
):
    assert msgspec.json.encode(config) == written
    kind = config.policy_kinds[0]
    assert PolicySpec("p", kind=kind, learner=config, exploration=exploration).model_digest == model
