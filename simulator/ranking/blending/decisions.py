"""Decisions of several blends of the same sources for the same users, by the code that serves.

Each source is asked once for a user, whatever the number of blends that it is in.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bandits.errors import EmptyActionsError, SourceError
from bandits.log.records import DecisionRecord
from bandits.types import Float32
from bandits.values import FeatureMap
from policies.artifacts.profiles import Profiles, halves_of, take_rows_of
from policies.artifacts.source_artifact import Artifact
from policies.items.catalogue import Catalogue
from policies.none_proposed import NOTHING_PROPOSED
from policies.pseudonyms import pseudonym
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.sources.base import Candidates, CandidateSource, ContextScorer, SourceRequest
from policies.spec import PolicySpec
from simulator.ranking.asking import KnownItems
from simulator.ranking.metrics.lists import ItemSets

Without = tuple[str, ...]
"""Names a blend by the sources that are left out of it."""
SALT: Final = b"blends"
"""The salt of pseudonyms that are never written."""
SILENT: Final = (*NOTHING_PROPOSED, SourceError, EmptyActionsError)
"""Nothing is proposed to a user by any source of a blend."""


@dataclass(frozen=True, slots=True, eq=False)
class BlendUsers:
    """Users for whom blends decide, with the sources that were trained before.

    ``known``: what each had; ``relevant``: what each then turned to; ``contexts``: what a caller
    would say of each.
    """

    artifact: Artifact
    user_ids: Sequence[str]
    known: KnownItems
    relevant: ItemSets
    contexts: Sequence[FeatureMap]

    def first(self, users: int) -> "BlendUsers":
        """Return no more than so many of them."""
        count = min(users, len(self.user_ids))
        return BlendUsers(
            self.artifact,
            self.user_ids[:count],
            self.known.take(np.arange(count)),
            self.relevant.rows(slice(0, count)),
            self.contexts[:count],
        )

    @property
    def profiles(self) -> Profiles:
        """What is known of them, as serving finds it."""
        keys = halves_of([pseudonym(SALT, user) for user in self.user_ids])
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        starts, rows = take_rows_of(self.known.sets.starts, order)
        return Profiles(keys[order], starts, self.known.places[rows], self.known.weights[rows])


@dataclass(slots=True, eq=False)
class BlendDecision:
    """What each blend decided for one user: by blend its record, None where it had no candidate.

    ``ms``: processor time of the decision by blend, with that of its sources.
    """

    user: int
    records: dict[Without, DecisionRecord | None] = field(default_factory=dict)
    ms: dict[Without, float] = field(default_factory=dict)


class _Kept:
    """A candidate source that answers again what it said of the user who is asked for.

    ``ms`` is what the answer took; what was spent on it is taken out of the time of whoever asked.
    """

    def __init__(self, source: CandidateSource) -> None:
        self.name, self.ms, self.spent = source.name, 0.0, 0.0
        self._source = source
        self._answer: Candidates | None = None

    def forget(self) -> None:
        """Be ready for another user."""
        self._answer, self.ms, self.spent = None, 0.0, 0.0

    async def candidates(self, request: SourceRequest, limit: int) -> Candidates:
        """Return what the source proposes; it is asked once."""
        if self._answer is None:
            began = time.process_time()
            self._answer = await self._source.candidates(request, limit)
            self.ms = self.spent = 1000 * (time.process_time() - began)
        return self._answer


def decide_for_all(
    users: BlendUsers, blends: Mapping[Without, Ranker], kept: Sequence[object]
) -> Iterator[BlendDecision]:
    """Yield what each blend decides, user by user.

    Args:
        users: who is asked for.
        blends: by name, as ``make_rankers`` made them; each serves a model.
        kept: the sources that these share, as ``make_rankers`` made them.
    """
    proposing = {each.name: each for each in kept if isinstance(each, _Kept)}
    with asyncio.Runner() as runner:
        # The runner's own run() would make the repr of each record.
        ask = runner.get_loop().run_until_complete
        for user, user_id in enumerate(users.user_ids):
            for each in proposing.values():
                each.forget()
            request = RankRequest(user_id=user_id, context=users.contexts[user], event_id=f"{user}")

            decided = BlendDecision(user)
            for name, ranker in blends.items():
                for each in proposing.values():
                    each.spent = 0.0
                began = time.process_time()
                try:
                    decided.records[name] = ask(ranker.rank(request))
                except SILENT:
                    decided.records[name] = None
                took = 1000 * (time.process_time() - began)
                asked = [each.name for each in ranker.spec.sources if each.name in proposing]
                took -= sum(each.spent for each in proposing.values())
                decided.ms[name] = took + sum(proposing[source].ms for source in asked)
            yield decided


def make_rankers(
    users: BlendUsers, specs: Mapping[Without, PolicySpec], catalogue: Catalogue
) -> tuple[dict[Without, Ranker], list[_Kept | ContextScorer]]:
    """Return a ranker of each spec, and the sources that they share.

    Args:
        users: with what is known of them, and their sources.
        specs: by name.
        catalogue: the items.
    """
    loaded = load_sources(users.artifact)
    kept: dict[str, _Kept | ContextScorer] = {
        name: source if isinstance(source, ContextScorer) else _Kept(source)
        for name, source in loaded.items()
    }
    profiles = users.profiles
    rankers = {}
    for name, spec in specs.items():
        sources = [kept[source.name] for source in spec.sources]
        rankers[name] = Ranker(spec, sources, salt=SALT, profiles=profiles)
        rankers[name].offer(catalogue)
    return rankers, list(kept.values())


def rewards_of(record: DecisionRecord, wanted: frozenset[str]) -> Float32:
    """Return 1 for each action of a decision that its user turned to, else 0, float32[K].

    Args:
        record: of the decision.
        wanted: ids of the items that the user turned to.
    """
    return np.array([each in wanted for each in record.action_ids], np.float32)
