"""The decision path as a plain object: request, candidates, features, PMF, decision, record."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

import msgspec
import numpy as np

from banditloop_client.schemas import Trouble
from bandits.decide import decide
from bandits.errors import (
    BanditloopError,
    EmptyActionsError,
    InvalidEventIdError,
    InvalidFieldError,
    NoCandidatesError,
    NotReadyError,
    SourceError,
    TooManyFeaturesError,
    UnknownUserError,
)
from bandits.log.records import DecisionRecord
from bandits.types import ActionSet, Context, Float32, Policy, Snapshot
from bandits.values import MAX_EVENT_ID_BYTES, MAX_NUMBER
from policies.artifacts.profiles import Profiles
from policies.blend import load_policy
from policies.candidate_pool import Pool, explicit_pool
from policies.encoding import check_features
from policies.features import featurise
from policies.holdout import FixedPolicy, in_holdout
from policies.items.catalogue import Catalogue
from policies.mixture import Mixture
from policies.pseudonyms import pseudonym
from policies.requests import MAX_ACTIONS, RankRequest
from policies.sources.base import Candidates, CandidateSource, ContextScorer, Source, SourceRequest
from policies.spec import PolicySpec

MAX_PAIRS = 8_000_000
"""Pairs of features of one decision that a learner may have to cross."""
MAX_REASON = 200
"""Characters that are kept of a source's failure."""
WARN_EVERY_S = 30.0
"""The process's log tells at most this often what is wrong with a source."""

log = logging.getLogger("banditloop.sources")


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """Everything that is swapped at once when a new snapshot arrives.

    ``sources`` propose only what the catalogue holds.
    """

    snapshot_id: str
    policy: Policy
    catalogue: Catalogue
    snapshot: Snapshot
    sources: tuple[CandidateSource, ...]


class Ranker:
    """Makes decisions for one policy.

    It holds no connection: sources are given to it, with what is known of users, and its caller
    logs the decisions.

    By source, ``source_failures`` counts the decisions that it fell out of, ``source_partial``
    those for which only a part of its answer could be used, and ``source_troubles`` keeps what was
    last wrong.
    """

    def __init__(
        self,
        spec: PolicySpec,
        sources: Sequence[Source],
        *,
        salt: bytes,
        profiles: Profiles | None = None,
    ) -> None:
        self.spec = spec
        self.profiles = profiles
        self.sources = tuple(source for source in sources if not isinstance(source, ContextScorer))
        self._scorers = tuple(source for source in sources if isinstance(source, ContextScorer))
        self.serving: Serving | None = None
        self.source_failures: Counter[str] = Counter()
        self.source_partial: Counter[str] = Counter()
        self.source_troubles: dict[str, Trouble] = {}
        self._warned_at: dict[str, float] = {}
        self._spec_digest = spec.digest
        self._salt = salt
        self._holdout_policy = FixedPolicy(spec.holdout.policy) if spec.holdout else None

    def serve(self, snapshot_id: str, snapshot: Snapshot, catalogue: Catalogue) -> None:
        """Swap in a snapshot.

        Args:
            snapshot_id: the name that decisions are logged with.
            snapshot: the model.
            catalogue: what the sources may propose, and the features of it.

        Raises:
            SnapshotError: it cannot be loaded; the previous one keeps serving.
        """
        policy = load_policy(self.spec, snapshot)
        if self.spec.kind == "mixture":
            policy = Mixture(policy, self.spec.within, self.spec.floor)
        sources = self._limited_to(catalogue)
        self.serving = Serving(snapshot_id, policy, catalogue, snapshot, sources)

    def _limited_to(self, catalogue: Catalogue) -> tuple[CandidateSource, ...]:
        """Return the sources, proposing nothing that the catalogue lacks."""
        if not catalogue.limits:
            return self.sources
        # Most snapshots come with the catalogue of the one before.
        if self.serving is not None and self.serving.catalogue.digest == catalogue.digest:
            return self.serving.sources
        return tuple(source.within(catalogue) for source in self.sources)

    async def rank(self, request: RankRequest) -> DecisionRecord:
        """Ask the sources, choose, and return the record of the decision.

        Raises:
            NotReadyError: no snapshot yet.
            InvalidInputError: a field of the request is wrong.
            UnknownUserError, NoCandidatesError: nothing to choose from.
            SourceError: every source failed.
        """
        # A snapshot may be swapped in while sources are asked. The candidates are limited to the
        # catalogue that the record names.
        serving, user = self._ready(), self._user(request)
        return self._decide(request, await self._pool(request, serving, user), serving, user)

    def decide(self, request: RankRequest, pool: Pool) -> DecisionRecord:
        """Choose from a pool.

        Pure, but for the event_id that it makes when the request has none.

        Args:
            request: its actions, history and exclusions no longer matter: the pool is made.
            pool: the K actions, at least as many as there are slots.

        Raises:
            NotReadyError: no snapshot yet.
            InvalidInputError: a field of the request is wrong.
        """
        return self._decide(request, pool, self._ready(), self._user(request))

    def _user(self, request: RankRequest) -> str | None:
        """Return the pseudonym of who asks."""
        return pseudonym(self._salt, request.user_id) if request.user_id else None

    def _ready(self) -> Serving:
        if self.serving is None:
            raise NotReadyError("no snapshot is loaded yet: try again in a moment")
        return self.serving

    def _decide(
        self, request: RankRequest, pool: Pool, serving: Serving, user: str | None
    ) -> DecisionRecord:
        if request.slots > len(pool.ids):
            raise InvalidFieldError(
                f"{request.slots} slots, but only {len(pool.ids)} actions to fill them", "slots"
            )
        event_id = (
            check_event_id(request.event_id)
            if request.event_id is not None
            else os.urandom(16).hex()
        )
        check_features(request.context, "context")

        # What is chosen from, and by which policy.
        held_out = self._held_out(request, event_id)
        policy = self._holdout_policy if held_out and self._holdout_policy else serving.policy
        name = self.spec.name
        if self._scorers:
            pool = self._scored(pool, request, serving.catalogue)
        context, actions = featurise(
            self.spec, serving.catalogue, request.context, pool.ids, pool.features, pool.scores
        )
        _check_crosses(context, actions)

        decision = decide(
            policy,
            context,
            actions,
            event_id=event_id,
            salt=self._salt,
            name=name,
            slots=request.slots,
        )
        credit = None
        if isinstance(policy, Mixture) and pool.scores:
            credit = policy.credit(context, actions, decision, salt=self._salt, name=name)

        return DecisionRecord(
            event_id=event_id,
            policy=name,
            spec=self._spec_digest,
            snapshot_id=serving.snapshot_id,
            catalogue=serving.catalogue.digest,
            context=request.context,
            action_ids=list(pool.ids),
            features=pool.features,
            scores={
                source: values.astype("<f4").tobytes() for source, values in pool.scores.items()
            },
            pmf=decision.pmfs.tobytes(),
            chosen=list(decision.chosen),
            user=user,
            deferred=request.defer_activation,
            holdout=held_out,
            credit=credit,
            unserved=held_out
            and self._holdout_policy is not None
            and not self._holdout_policy.serves(pool.scores, request.slots),
            failed=pool.failed,
        )

    async def pool(self, request: RankRequest) -> Pool:
        """Return the explicit actions, or the union of what the sources propose.

        What the request excludes is gone before any PMF. Before a snapshot is served, sources
        propose whatever they know.
        """
        return await self._pool(request, self.serving, self._user(request))

    async def _pool(self, request: RankRequest, serving: Serving | None, user: str | None) -> Pool:
        excluded = frozenset(request.exclude)
        if request.actions is not None:
            return explicit_pool(request.actions, excluded)

        sources = self.sources if serving is None else serving.sources
        if not sources:
            raise EmptyActionsError(
                f"policy {self.spec.name} has no sources: send the actions to choose from",
                "actions",
            )

        # Whatever each source is told of the user is looked up once.
        known = None if user is None or self.profiles is None else self.profiles.find(user)
        asked = SourceRequest(request.user_id, tuple(request.history), excluded, known)
        answers = dict(await asyncio.gather(*(self._ask(source, asked) for source in sources)))

        # One source that answers is enough; the record says which failed.
        pool = self._union(
            {name: answer for name, answer in answers.items() if isinstance(answer, Candidates)}
        )
        if failed := {name: reason for name, reason in answers.items() if isinstance(reason, str)}:
            pool = msgspec.structs.replace(pool, failed=failed)
        if not pool.ids:
            raise _no_candidates(request, failed, serving)
        return pool

    async def _ask(
        self, source: CandidateSource, request: SourceRequest
    ) -> tuple[str, Candidates | str]:
        """Return the source's name with what it proposes, or why it failed."""
        try:
            candidates = _checked(await source.candidates(request, self.spec.limit))
        except SourceError as error:
            return source.name, self._failed(source.name, error)

        if candidates.trouble:
            self.source_partial[source.name] += 1
            self._keep_trouble(source.name, candidates.trouble)
        return source.name, candidates

    def _failed(self, name: str, error: SourceError) -> str:
        self.source_failures[name] += 1
        return self._keep_trouble(name, error.message)

    def _keep_trouble(self, name: str, reason: str) -> str:
        """Keep what is wrong with a source, warn of it now and then, and return it shortened."""
        now_s, reason = time.time(), reason[:MAX_REASON]
        self.source_troubles[name] = Trouble(reason, now_s)

        if abs(now_s - self._warned_at.get(name, 0.0)) >= WARN_EVERY_S:
            self._warned_at[name] = now_s
            log.warning(
                "policy %s: %s (%d failures, %d answers used in part)",
                self.spec.name,
                reason,
                self.source_failures[name],
                self.source_partial[name],
            )
        return reason

    def _union(self, answers: Mapping[str, Candidates]) -> Pool:
        ids = tuple(dict.fromkeys(item for answer in answers.values() for item in answer.ids))
        if len(ids) > MAX_ACTIONS:
            ids = self._cut(answers)
        rows = {item: row for row, item in enumerate(ids)}

        scores: dict[str, Float32] = {}
        for name, candidates in answers.items():
            # In a blend a source also scores what others propose. In a mixture it stands only for
            # its own candidates.
            if candidates.score_items is not None and self.spec.kind != "mixture":
                scores[name] = candidates.score_items(ids)
                continue
            column = np.full(len(ids), np.nan, np.float32)
            for item, score in zip(candidates.ids, candidates.scores.tolist(), strict=True):
                if item in rows:
                    column[rows[item]] = score
            scores[name] = column
        return Pool(ids, None, scores)

    def _cut(self, answers: Mapping[str, Candidates]) -> tuple[str, ...]:
        """Return as many ids as a decision may have, from each source in turn, best first.

        What is left out is counted.
        """
        in_turn = chain.from_iterable(zip_longest(*(answer.ids for answer in answers.values())))
        ids = tuple(
            islice(dict.fromkeys(item for item in in_turn if item is not None), MAX_ACTIONS)
        )

        kept = set(ids)
        for name, answer in answers.items():
            if lost := sum(item not in kept for item in answer.ids):
                self.source_partial[name] += 1
                self._keep_trouble(
                    name,
                    f"{lost} of its candidates are beyond the {MAX_ACTIONS:,} actions of a"
                    " decision: lower limit",
                )
        return ids

    def _scored(self, pool: Pool, request: RankRequest, catalogue: Catalogue) -> Pool:
        """Return the pool with the scores of the sources that look at the context.

        Each of them sees the scores that candidate sources gave, and not those of the others.
        """
        scores, failed = dict(pool.scores), dict(pool.failed or {})
        for scorer in self._scorers:
            if scorer.name in pool.scores:
                raise InvalidFieldError(
                    "this source scores actions itself", f"actions.scores.{scorer.name}"
                )
            try:
                scores[scorer.name] = scorer.score_actions(
                    catalogue, request.context, pool.ids, pool.features, pool.scores
                )
            except SourceError as error:
                failed[scorer.name] = self._failed(scorer.name, error)
        return Pool(pool.ids, pool.features, scores, failed or None)

    def _held_out(self, request: RankRequest, event_id: str) -> bool:
        holdout = self.spec.holdout
        if holdout is None:
            return False

        unit = request.user_id if holdout.field == "user_id" else request.context.get(holdout.field)
        # Requests without the field are not one unit: each is assigned by its event_id.
        known = unit is not None and unit != ""
        return in_holdout(
            holdout, salt=self._salt, name=self.spec.name, unit=f"={unit}" if known else event_id
        )


def _no_candidates(
    request: RankRequest, failed: Mapping[str, str], serving: Serving | None
) -> BanditloopError:
    """Return the error that says why there is no candidate."""
    if failed:
        why = "; ".join(failed.values())
        return SourceError(f"no source proposed anything ({why}): try again in a moment", "sources")

    # An empty catalogue, an unknown user and an exclusion are mended in different places.
    limited = serving is not None and serving.catalogue.limits
    if limited and serving is not None and not len(serving.catalogue):
        return NoCandidatesError(
            "the catalogue has no items: put some, or send the actions to choose from", "actions"
        )

    beside = " that the catalogue holds" if limited else ""
    if request.user_id is not None and not request.history:
        return UnknownUserError(
            f"no source proposed anything{beside} for this user: send a history, or configure a"
            " source for everyone (popular)",
            "user_id",
        )
    return NoCandidatesError(f"no source proposed anything{beside} that is not excluded", "exclude")


def _checked(candidates: Candidates) -> Candidates:
    if not (np.abs(candidates.scores) <= MAX_NUMBER).all():  # also catches NaN
        raise SourceError(f"a score is a number up to {MAX_NUMBER:g}", "scores")
    return candidates


def _check_crosses(context: Context, actions: ActionSet) -> None:
    """Refuse more pairs of features than MAX_PAIRS: a learner may cross any two namespaces."""
    shared = sum(ns.values.shape[-1] for ns in context.namespaces)
    own = sum(ns.values.shape[-1] for ns in actions.namespaces)
    if len(actions) * (1 + shared + own) * (1 + own) > MAX_PAIRS:
        raise TooManyFeaturesError(
            f"{len(actions)} actions with {own} features each, beside {shared} of the context, are"
            f" too many pairs: at most {MAX_PAIRS:,}",
            "actions",
        )


def check_event_id(event_id: str) -> str:
    """Return the event_id if it may be used; refuse it otherwise.

    Raises:
        InvalidEventIdError: it is empty, or has more than 256 bytes.
    """
    if not 0 < len(event_id.encode(errors="replace")) <= MAX_EVENT_ID_BYTES:
        raise InvalidEventIdError(f"an event_id has 1 to {MAX_EVENT_ID_BYTES} bytes", "event_id")
    return event_id
