"""What each source of a blend is worth, and what it costs: the blend without each of them.

A blend is taught what users of an earlier part did with its candidates, and then decides for others
by the code that serves. Its choice earns 1 if the user then turned to the item: every item's reward
is known, so a replay on a data set weighs nothing and draws nothing.
"""

import time
import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from bandits.errors import ArtifactError
from bandits.types import Float64
from policies.artifacts.prior import PriorDecision, PriorRows
from policies.artifacts.source_artifact import Artifact
from policies.blend import make_learner
from policies.fold.prior import teach_prior
from policies.items.catalogue import Catalogue
from policies.requests import Item
from policies.sources import load_sources
from policies.spec import ArtifactSource, PolicySpec, spec_of
from simulator.ranking.blending.decisions import (
    SALT,
    BlendUsers,
    Without,
    decide_for_all,
    make_rankers,
    rewards_of,
)
from simulator.ranking.learners import TRIED
from simulator.ranking.metrics.lists import hits_of, ndcg
from simulator.ranking.metrics.significance import bootstrap, intervals
from simulator.ranking.report import BlendReport, BlendRow, Metric

LIMIT: Final = 30
"""Candidates of each source: a spec's default."""
TAUGHT_USERS: Final = 400
JUDGED_USERS: Final = 500
WHOLE: Final[Without] = ()
"""The blend of all sources."""


class _Steps:
    """Tells somebody how many users of all passes are done."""

    def __init__(self, tell: Any, total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0

    def one(self) -> None:
        """Count a user."""
        self._done += 1
        self._tell("blends", min(self._done, self._total), self._total)


def measure_blend(
    taught: BlendUsers | PriorRows,
    judged: BlendUsers,
    items: Sequence[Mapping[str, Any]],
    *,
    k: int,
    seed: int,
    progress: Any,
) -> BlendReport:
    """Return what a blend of all sources earns, and the same without each of them.

    What can be spared alone is then left out together, the least missed first; a source without
    which what is left would surely be worse than the whole stays.

    Args:
        taught: users of an earlier part, with sources trained before it, or the rows themselves.
        judged: users of the test part, with the sources that are judged.
        items: the catalogue, ``{"id", "features"}`` each.
        k: where lists are cut.
        seed: of the resampling.
        progress: told of steps.

    Raises:
        ArtifactError: there are not two sources.
        BanditloopError: nobody can be taught any of it.
    """
    names = list(judged.artifact.sources)
    if len(names) < 2:
        raise ArtifactError("one source is no blend: train or name two", "sources")

    began, judged = time.perf_counter(), judged.first(JUDGED_USERS)
    if isinstance(taught, BlendUsers):
        taught = taught.first(TAUGHT_USERS)
    catalogue = Catalogue(msgspec.convert(list(items), list[Item]))
    users = len(judged.user_ids)
    passed = users + (0 if isinstance(taught, PriorRows) else len(taught.user_ids))
    total = passed * (1 + len(names))
    trial = _Trial(taught, judged, catalogue, k, _Steps(progress, total))

    blends: list[Without] = [WHOLE, *((name,) for name in names)]
    trial.play(blends)
    sizes = megabytes_of(judged.artifact)
    rows = [_row(trial, blend, sizes, seed) for blend in blends]

    # What may be spared alone may be missed with others: one after the other is left out, too.
    spared: BlendRow | None = None
    for row in sorted(rows[1:], key=lambda row: row.lost_ndcg.value or 0.0):
        if row.verdict == "keep":
            continue
        if spared is None:
            spared = row
            continue
        blend = (*spared.without, *row.without)
        trial.play([blend])
        if (joined := _row(trial, blend, sizes, seed)).verdict != "keep":
            spared = joined
    progress("blends", total, total)
    return BlendReport(
        rows=rows,
        spared=spared,
        users=users,
        limit=LIMIT,
        seconds=time.perf_counter() - began,
    )


class _Trial:
    """Blends that are taught, and what they then choose; by blend, figures of each user."""

    def __init__(
        self,
        taught: BlendUsers | PriorRows,
        judged: BlendUsers,
        catalogue: Catalogue,
        k: int,
        steps: _Steps,
    ) -> None:
        self._taught, self._judged, self._catalogue = taught, judged, catalogue
        self._k, self._steps = k, steps
        self.reward: dict[Without, Float64] = {}
        self.ndcg: dict[Without, Float64] = {}
        self.ms: dict[Without, Float64] = {}

    def play(self, blends: Sequence[Without]) -> None:
        """Teach blends, and let them decide."""
        names = self._judged.artifact.sources
        specs = {blend: blend_of([n for n in names if n not in blend]) for blend in blends}
        rows = self._rows(specs)
        users = self._judged
        for blend in [blend for blend in specs if blend not in rows]:
            nothing = np.zeros(len(users.user_ids))
            self.reward[blend], self.ndcg[blend], self.ms[blend] = nothing, nothing, nothing
            del specs[blend]

        rankers, kept = make_rankers(self._judged, specs, self._catalogue)
        for name, spec in specs.items():
            learner = make_learner(spec, salt=SALT)
            teach_prior(learner, spec, self._catalogue, rows[name], 1.0)
            rankers[name].serve("taught", learner.snapshot("0-0"))

        place_of = {item: place for place, item in enumerate(users.artifact.items)}
        lists = {name: np.full((len(users.user_ids), self._k), -1, np.int32) for name in specs}
        spent = {name: np.zeros(len(users.user_ids)) for name in specs}
        for decided in decide_for_all(users, rankers, kept):
            for name, record in decided.records.items():
                spent[name][decided.user] = decided.ms[name]
                if record is not None:
                    pmf = np.frombuffer(record.pmf, np.float64)[: len(record.action_ids)]
                    best = np.argsort(-pmf, kind="stable")[: self._k]
                    # An item that came after the training has no place, and is no hit.
                    places = [place_of.get(record.action_ids[at], -1) for at in best.tolist()]
                    lists[name][decided.user, : len(places)] = places
            self._steps.one()

        for name in specs:
            hits = hits_of(lists[name], users.relevant, self._k)
            self.reward[name] = hits.hits[:, 0].astype(np.float64)
            self.ndcg[name], self.ms[name] = ndcg(hits), spent[name]

    def _rows(self, specs: Mapping[Without, PolicySpec]) -> dict[Without, PriorRows]:
        """Return what each blend is taught, its own candidates, and who turned to them.

        A blend that has no candidates is not among them.
        """
        if isinstance(self._taught, PriorRows):
            return dict.fromkeys(specs, self._taught)

        users = self._taught
        rankers, kept = make_rankers(users, specs, self._catalogue)
        for name, spec in specs.items():
            rankers[name].serve("fresh", make_learner(spec, salt=SALT).snapshot("0-0"))
        decisions: dict[Without, list[PriorDecision]] = {name: [] for name in specs}
        for decided in decide_for_all(users, rankers, kept):
            relevant = users.relevant.rows(slice(decided.user, decided.user + 1)).indices
            wanted = frozenset(users.artifact.items[place] for place in relevant.tolist())
            for name, record in decided.records.items():
                if record is not None:
                    rewards = rewards_of(record, wanted).astype("<f4").tobytes()
                    row = PriorDecision(record.context, record.action_ids, record.scores, rewards)
                    decisions[name].append(row)
            self._steps.one()
        return {name: PriorRows.of(rows) for name, rows in decisions.items() if rows}


def blend_of(sources: Sequence[str]) -> PolicySpec:
    """Return a blend of sources of an artifact, which orders by its scores and explores nothing."""
    return spec_of(
        {
            "name": "blend",
            "sources": [{"kind": "artifact", "name": source} for source in sources],
            "artifact": "measured",
            "limit": LIMIT,
            **next(iter(TRIED.values())),
            "exploration": {"kind": "softmax"},
            "floor": 0.0,
        }
    )


def _row(trial: _Trial, blend: Without, sizes: Mapping[str, float], seed: int) -> BlendRow:
    """Return a row of a blend that was played."""
    reward, order = trial.reward[blend], trial.ndcg[blend]
    lost_reward, lost_ndcg = trial.reward[WHOLE] - reward, trial.ndcg[WHOLE] - order
    columns = np.stack([reward, order, lost_reward, lost_ndcg], axis=1)
    ends = intervals(bootstrap(columns, seed=seed)).tolist()
    means = columns.mean(axis=0).tolist()
    metrics = [Metric(mean, *end) for mean, end in zip(means, ends, strict=True)]

    lost = metrics[2:]
    verdict = "spare" if blend else ""
    if any((metric.low or 0.0) > 0 for metric in lost):
        verdict = "keep"
    elif any((metric.high or 0.0) < 0 for metric in lost):
        verdict = "harms"
    return BlendRow(
        without=list(blend),
        reward=metrics[0],
        ndcg=metrics[1],
        lost_reward=metrics[2],
        lost_ndcg=metrics[3],
        ms=float(np.median(trial.ms[blend])),
        saved_ms=float(np.median(trial.ms[WHOLE] - trial.ms[blend])),
        mb=sum(size for name, size in sizes.items() if name not in blend),
        saved_mb=sum(sizes[name] for name in blend),
        verdict=verdict,
    )


def megabytes_of(artifact: Artifact) -> dict[str, float]:
    """Return the memory of each source in a replica: its arrays, and what is made of them."""
    # The order of items is shared by all sources of an artifact.
    shared = _made_of(artifact, [])
    return {
        name: (
            sum(array.nbytes for array in source.arrays.values())
            + max(0, _made_of(artifact, [ArtifactSource(name)]) - shared)
        )
        / 1e6
        for name, source in artifact.sources.items()
    }


def _made_of(artifact: Artifact, sources: Sequence[ArtifactSource]) -> int:
    """Return the bytes that loading sources takes."""
    tracemalloc.start()
    try:
        made = load_sources(artifact, sources)
        taken = tracemalloc.get_traced_memory()[0]
        del made
    finally:
        tracemalloc.stop()
    return taken
