"""Learners by what they make of pools: taught what some users did, they order those of others."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from bandits.errors import BanditloopError
from bandits.types import Float64
from bandits.values import FeatureMap
from policies.artifacts.prior import PriorDecision, PriorRows
from policies.blend import load_policy, make_learner
from policies.features import featurise
from policies.fold.prior import teach_prior
from policies.items.catalogue import Catalogue
from policies.requests import Item
from policies.spec import PolicySpec, spec_of
from simulator.ranking.fusion import Pools
from simulator.ranking.metrics.lists import ItemSets, hits_of, ndcg
from simulator.ranking.metrics.significance import bootstrap, intervals
from simulator.ranking.report import LearnerRow, Metric

LIMIT: Final = 30
"""Candidates of each source in the pools that learners order: a spec's default."""
TAUGHT_USERS: Final = 400
JUDGED_USERS: Final = 500

RIDGE: Final[Mapping[str, Any]] = {
    "kind": "ridge",
    "l2": 30.0,
    "bias_l2": 10.0,
    "max_features": 512,
}
ALL: Final = ["context", "item", "features", "scores"]
TRIED: Final[Mapping[str, Mapping[str, Any]]] = {
    "ridge on scores and features": {"use": ALL, "learner": RIDGE},
    "ridge on scores": {"use": ["context", "item", "scores"], "learner": RIDGE},
    "ridge on scores and features, crossed with the context": {
        "use": ALL,
        "learner": {**RIDGE, "interactions": [["context", "scores"], ["context", "features"]]},
    },
    "vw on scores and features": {
        "use": ["context", "features", "scores"],
        "learner": {"kind": "vw", "args": "--cb_explore_adf --cb_type mtr -q cs -q cf"},
        "exploration": {"kind": "squarecb"},
    },
}
"""The fields of the specs that are tried, by a name for a reader; the first is the usual one."""


@dataclass(frozen=True, slots=True, eq=False)
class PoolsOfUsers:
    """Pools of some users, what these turned to, and what a caller would say of each.

    ``contexts`` are empty where nothing is known of users.
    """

    pools: Pools
    relevant: ItemSets
    contexts: Sequence[FeatureMap]

    def first(self, users: int) -> "PoolsOfUsers":
        """Return the first users, with no more than a pool of LIMIT holds."""
        part = slice(0, min(users, len(self.pools.items)))
        return PoolsOfUsers(
            self.pools.first(part.stop, LIMIT),
            self.relevant.rows(part),
            self.contexts[part],
        )


def measure_learners(
    taught: PoolsOfUsers,
    taught_items: Sequence[str],
    judged: PoolsOfUsers,
    judged_items: Sequence[str],
    catalogue: Sequence[Mapping[str, Any]],
    sources: Sequence[str],
    *,
    k: int,
    seed: int,
) -> list[LearnerRow]:
    """Teach each learner what users of the validation part did, and let it order test pools.

    Args:
        taught: of the validation part.
        taught_items: the items that its pools index.
        judged: of the test part.
        judged_items: the items that its pools index.
        catalogue: ``{"id", "features"}`` each.
        sources: in the pools' order.
        k: where lists are cut.
        seed: of the resampling.

    Raises:
        BanditloopError: nobody can be taught any of it.
    """
    taught, judged = taught.first(TAUGHT_USERS), judged.first(JUDGED_USERS)
    known = Catalogue(msgspec.convert(list(catalogue), list[Item]))
    decisions = [
        PriorDecision.of(context, ids, scores, rewards)
        for ids, scores, rewards, context in _decisions(taught, taught_items, sources)
        if ids
    ]
    rows, crossed = PriorRows.of(decisions), any(taught.contexts)

    found = list[LearnerRow]()
    usual: Float64 | None = None
    for name, fields in TRIED.items():
        # Without contexts, whether anything is crossed with them cannot be measured.
        if "context" in name and not crossed:
            continue
        spec = spec_of(
            {
                "name": "tried",
                "sources": [{"kind": "artifact", "name": source} for source in sources],
                "artifact": "tried",
                **fields,
                # Chances in the order of scores: only the order is judged.
                "exploration": {"kind": "softmax"},
                "floor": 0.0,
            }
        )
        began = time.perf_counter()
        try:
            values = _judge(spec, known, rows, judged, judged_items, sources, k)
        except BanditloopError:  # one that cannot learn these rows is no choice
            continue
        usual = values if usual is None else usual
        found.append(
            LearnerRow(
                name=name,
                spec=dict(fields),
                ndcg=_with_interval(values, seed),
                gain=_with_interval(values - usual, seed),
                seconds=time.perf_counter() - began,
            )
        )
    return found


def _with_interval(values: Float64, seed: int) -> Metric:
    low, high = intervals(bootstrap(values[:, None], seed=seed))[0].tolist()
    return Metric(float(values.mean()), low, high)


def _judge(
    spec: PolicySpec,
    catalogue: Catalogue,
    rows: PriorRows,
    judged: PoolsOfUsers,
    items: Sequence[str],
    sources: Sequence[str],
    k: int,
) -> Float64:
    """Return the nDCG of each user's pool in the order of what a learner has learned."""
    learner = make_learner(spec, salt=b"evaluation")
    teach_prior(learner, spec, catalogue, rows, 1.0)
    policy = load_policy(spec, learner.snapshot("0-0"))

    lists = np.full((len(judged.pools.items), k), -1, np.int32)
    for user, (ids, scores, _, context) in enumerate(_decisions(judged, items, sources)):
        if ids:
            seen, actions = featurise(spec, catalogue, context, ids, None, scores)
            order = np.argsort(-policy.pmf(seen, actions), kind="stable")[:k]
            candidates = judged.pools.items[user]
            lists[user, : order.size] = candidates[candidates >= 0][order]
    return ndcg(hits_of(lists, judged.relevant, k))


def _decisions(
    users: PoolsOfUsers, items: Sequence[str], sources: Sequence[str]
) -> Iterator[tuple[list[str], dict[str, Any], Any, FeatureMap]]:
    """Yield each user's candidates, their scores by source, their rewards, and the context."""
    rewards = users.relevant.holds(users.pools.items).astype(np.float32)
    for user, context in enumerate(users.contexts):
        there = users.pools.items[user] >= 0
        scores = {
            source: users.pools.scores[user, there, number]
            for number, source in enumerate(sources)
            if users.pools.answers[user, number]
        }
        ids = [items[place] for place in users.pools.items[user, there].tolist()]
        yield ids, scores, rewards[user, there], context
