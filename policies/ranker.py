"""The decision path as a plain object: request to candidates to features to PMF to decision to record."""

import asyncio
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest

import msgspec
import numpy as np

from bandits.decide import decide
from bandits.errors import (
    BanditloopError,
    DuplicateActionError,
    EmptyActionsError,
    InvalidEventIdError,
    InvalidFieldError,
    InvalidInputError,
    NoCandidatesError,
    NonFiniteNumberError,
    NotReadyError,
    SourceError,
    TooManyActionsError,
    TooManyFeaturesError,
    UnknownUserError,
)
from bandits.log.records import DecisionRecord
from bandits.types import ActionSet, Context, Float32, Policy, Snapshot
from bandits.values import MAX_EVENT_ID_BYTES, MAX_NUMBER, FeatureMap
from policies.blend import load_policy
from policies.catalogue import Catalogue
from policies.encoding import check_features
from policies.features import featurise
from policies.guardrails import FixedPolicy, in_holdout
from policies.mixture import Mixture
from policies.requests import MAX_ACTIONS, ActionRequest, RankRequest
from policies.source_failures import Trouble
from policies.sources.base import Candidates, CandidateSource, ContextScorer, Source, SourceRequest
from policies.spec import PolicySpec

MAX_PAIRS = 8_000_000
MAX_REASON = 200
"""Characters of what is kept of a source's failure."""
SAY_EVERY_S = 30.0
"""What is wrong with a source is in the process's log at most so often."""

log = logging.getLogger("banditloop.sources")


class Pool(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The actions of one decision before featurising.

    ``scores``: by source float32[K], NaN where it has none.

    ``failed``: by source, why it has none, of those that failed.
    """

    ids: tuple[str, ...]
    features: list[FeatureMap | None] | None
    scores: Mapping[str, Float32]
    failed: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """What is swapped as one when a new snapshot arrives.

    ``sources`` propose what the catalogue holds.
    """

    snapshot_id: str
    policy: Policy
    catalogue: Catalogue
    snapshot: Snapshot
    sources: tuple[CandidateSource, ...]


class Ranker:
    """Makes decisions for one policy.

    Holds no connection: sources are given, logging is the caller's.

    Of each source, ``source_failures`` counts the decisions it fell out of, ``source_partial``
    those for which only a part of its answer could be used, and ``source_troubles`` keeps what was
    last wrong.
    """

    def __init__(self, spec: PolicySpec, sources: Sequence[Source], *, salt: bytes) -> None:
        self.spec = spec
        self.sources = tuple(source for source in sources if not isinstance(source, ContextScorer))
        self._scorers = tuple(source for source in sources if isinstance(source, ContextScorer))
        self.serving: Serving | None = None
        self.source_failures: Counter[str] = Counter()
        self.source_partial: Counter[str] = Counter()
        self.source_troubles: dict[str, Trouble] = {}
        self._said_at: dict[str, float] = {}
        self._spec_digest = spec.digest
        self._salt = salt
        self._holdout_policy = FixedPolicy(spec.holdout.policy) if spec.holdout else None

    def serve(self, snapshot_id: str, snapshot: Snapshot, catalogue: Catalogue) -> None:
        """Swap in a snapshot.

        The previous one keeps serving if this one cannot be loaded (SnapshotError).
        """
        policy = load_policy(self.spec, snapshot)
        if self.spec.kind == "mixture":
            policy = Mixture(policy, self.spec.within, self.spec.floor)
        self.serving = Serving(snapshot_id, policy, catalogue, snapshot, self._within(catalogue))

    def _within(self, catalogue: Catalogue) -> tuple[CandidateSource, ...]:
        """The sources, without what the catalogue lacks.

        Most snapshots come with the catalogue of the one before.
        """
        if not catalogue.limits:
            return self.sources
        if self.serving is not None and self.serving.catalogue.digest == catalogue.digest:
            return self.serving.sources
        return tuple(source.within(catalogue) for source in self.sources)

    async def rank(self, request: RankRequest) -> DecisionRecord:
        """Decide.

        Raises:
            NotReadyError: no snapshot yet.
            InvalidInputError: a field of the request is wrong.
            UnknownUserError, NoCandidatesError: nothing to choose from.
            SourceError: every source failed.
        """
        serving = self._ready()  # the candidates are of the catalogue that the record names
        return self._decide(request, await self._pool(request, serving), serving)

    def decide(self, request: RankRequest, pool: Pool) -> DecisionRecord:
        """Choose from a pool. Pure, but for the event_id it makes when the request has none."""
        return self._decide(request, pool, self._ready())

    def _ready(self) -> Serving:
        if self.serving is None:
            raise NotReadyError("no snapshot is loaded yet: try again in a moment")
        return self.serving

    def _decide(self, request: RankRequest, pool: Pool, serving: Serving) -> DecisionRecord:
        if request.slots > len(pool.ids):
            raise InvalidFieldError(
                f"{request.slots} slots, but only {len(pool.ids)} actions to fill them", "slots"
            )
        event_id = (
            check_event_id(request.event_id)
            if request.event_id is not None
            else os.urandom(16).hex()
        )
        held_out = self._held_out(request, event_id)
        policy = self._holdout_policy if held_out and self._holdout_policy else serving.policy
        name = self.spec.name
        check_features(request.context, "context")
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
            user=None if not request.user_id else pseudonym(self._salt, request.user_id),
            deferred=request.defer_activation,
            holdout=held_out,
            credit=credit,
            unserved=held_out
            and self._holdout_policy is not None
            and not self._holdout_policy.serves(pool.scores, request.slots),
            failed=pool.failed,
        )

    async def pool(self, request: RankRequest) -> Pool:
        """The explicit actions, or the union of what the sources propose.

        ``exclude`` is gone before any PMF.

        Before a snapshot is served, sources propose whatever they know.
        """
        return await self._pool(request, self.serving)

    async def _pool(self, request: RankRequest, serving: Serving | None) -> Pool:
        excluded = frozenset(request.exclude)
        if request.actions is not None:
            return explicit_pool(request.actions, excluded)
        sources = self.sources if serving is None else serving.sources
        if not sources:
            raise EmptyActionsError(
                f"policy {self.spec.name} has no sources: send the actions to choose from",
                "actions",
            )
        asked = SourceRequest(request.user_id, tuple(request.history), excluded)
        answers = dict(await asyncio.gather(*(self._ask(source, asked) for source in sources)))
        pool = self._union(
            {name: found for name, found in answers.items() if isinstance(found, Candidates)}
        )
        if failed := {name: reason for name, reason in answers.items() if isinstance(reason, str)}:
            pool = msgspec.structs.replace(pool, failed=failed)
        if not pool.ids:
            raise _nothing(request, failed, serving)
        return pool

    async def _ask(
        self, source: CandidateSource, request: SourceRequest
    ) -> tuple[str, Candidates | str]:
        """What it proposes, or why it failed."""
        try:
            found = _numbers(await source.candidates(request, self.spec.limit))
        except SourceError as error:
            return source.name, self._failed(source.name, error)
        if found.trouble:
            self.source_partial[source.name] += 1
            self._note(source.name, found.trouble)
        return source.name, found

    def _failed(self, name: str, error: SourceError) -> str:
        self.source_failures[name] += 1
        return self._note(name, error.message)

    def _note(self, name: str, reason: str) -> str:
        """Keep what is wrong with a source, and say it now and then."""
        now_s, reason = time.time(), reason[:MAX_REASON]
        self.source_troubles[name] = Trouble(reason, now_s)
        if abs(now_s - self._said_at.get(name, 0.0)) >= SAY_EVERY_S:
            self._said_at[name] = now_s
            counts = self.source_failures[name], self.source_partial[name]
            log.warning(
                "policy %s: %s (%d failures, %d answers used in part)",
                self.spec.name,
                reason,
                *counts,
            )
        return reason

    def _union(self, answers: Mapping[str, Candidates]) -> Pool:
        ids = tuple(dict.fromkeys(item for found in answers.values() for item in found.ids))
        if len(ids) > MAX_ACTIONS:
            ids = self._cut(answers)
        rows = {item: row for row, item in enumerate(ids)}
        scores: dict[str, Float32] = {}
        for name, found in answers.items():
            if found.score_items is not None and self.spec.kind != "mixture":
                scores[name] = found.score_items(ids)
                continue
            column = np.full(len(ids), np.nan, np.float32)
            for item, score in zip(found.ids, found.scores.tolist(), strict=True):
                if item in rows:
                    column[rows[item]] = score
            scores[name] = column
        return Pool(ids, None, scores)

    def _cut(self, answers: Mapping[str, Candidates]) -> tuple[str, ...]:
        """As many as a decision may have, of each source in turn, best first.

        What is left out is counted.
        """
        in_turn = chain.from_iterable(zip_longest(*(found.ids for found in answers.values())))
        ids = tuple(
            islice(dict.fromkeys(item for item in in_turn if item is not None), MAX_ACTIONS)
        )
        kept = set(ids)
        for name, found in answers.items():
            if lost := sum(item not in kept for item in found.ids):
                self.source_partial[name] += 1
                beyond = f"{lost} of its candidates are beyond the {MAX_ACTIONS:,} actions of a decision: lower limit"
                self._note(name, beyond)
        return ids

    def _scored(self, pool: Pool, request: RankRequest, catalogue: Catalogue) -> Pool:
        """With the scores of the sources that look at the context.

        Each sees those that a candidate source gave.
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
        known = unit is not None and unit != ""  # all who have none are not one unit
        return in_holdout(
            holdout, salt=self._salt, name=self.spec.name, unit=f"={unit}" if known else event_id
        )


def _nothing(
    request: RankRequest, failed: Mapping[str, str], serving: Serving | None
) -> BanditloopError:
    """Why there is no candidate."""
    if failed:
        why = "; ".join(failed.values())
        return SourceError(f"no source proposed anything ({why}): try again in a moment", "sources")
    limited = serving is not None and serving.catalogue.limits
    if limited and serving is not None and not len(serving.catalogue):
        return NoCandidatesError(
            "the catalogue has no items: put some, or send the actions to choose from", "actions"
        )
    beside = " that the catalogue holds" if limited else ""
    if request.user_id is not None and not request.history:
        return UnknownUserError(
            f"no source proposed anything{beside} for this user: send a history, or configure a"
            " source for everyone"
            " (popular)",
            "user_id",
        )
    return NoCandidatesError(f"no source proposed anything{beside} that is not excluded", "exclude")


def _numbers(found: Candidates) -> Candidates:
    if not (np.abs(found.scores) <= MAX_NUMBER).all():  # also catches NaN
        raise SourceError(f"a score is a number up to {MAX_NUMBER:g}", "scores")
    return found


def explicit_pool(actions: Sequence[ActionRequest], excluded: frozenset[str] = frozenset()) -> Pool:
    """The pool of a request that brings its actions.

    Raises:
        InvalidInputError: an action is wrong, or there are none or too many.
        NoCandidatesError: every action is excluded.
    """
    if not actions:
        raise EmptyActionsError("a decision needs at least one action", "actions")
    if len(actions) > MAX_ACTIONS:
        raise TooManyActionsError(f"at most {MAX_ACTIONS} actions, not {len(actions)}", "actions")
    ids = [action.id for action in actions]
    distinct = set(ids)
    if len(distinct) < len(ids) or "" in distinct:
        raise _wrong_id(ids)
    kept = actions
    if excluded:
        kept = [action for action in actions if action.id not in excluded]
        ids = [action.id for action in kept]
    if not kept:
        raise NoCandidatesError("every action is excluded", "exclude")
    scores = [action.scores for action in kept]
    if scores.count(None) < len(scores):
        _check_scores(actions)
    features = [action.features for action in kept]
    inline = features.count(None) < len(features)
    if inline:
        # those of the request, so that the error names its index
        for i, action in enumerate(actions):
            check_features(action.features or {}, f"actions[{i}].features")

    return Pool(
        tuple(ids),
        features if inline else None,
        {} if scores.count(None) == len(scores) else _columns(scores),
    )


def _columns(given: Sequence[Mapping[str, float] | None]) -> dict[str, Float32]:
    """Scores by source, NaN where an action has none of it."""
    each = [scores or {} for scores in given]
    columns: dict[str, Float32] = {}
    for name in sorted(set[str]().union(*each)):
        columns[name] = np.array([scores.get(name, np.nan) for scores in each], np.float32)
    return columns


def _check_scores(actions: Sequence[ActionRequest]) -> None:
    for i, action in enumerate(actions):
        for name, score in (action.scores or {}).items():
            if not abs(score) <= MAX_NUMBER:
                raise NonFiniteNumberError(
                    f"scores are numbers up to {MAX_NUMBER:g}", f"actions[{i}].scores.{name}"
                )


def _wrong_id(ids: Sequence[str]) -> InvalidInputError:
    """The first that is empty, or that came before."""
    seen: set[str] = set()
    for index, action_id in enumerate(ids):
        if not action_id:
            return InvalidFieldError("an action id is not empty", f"actions[{index}].id")
        if action_id in seen:
            return DuplicateActionError(
                f"two actions have the id {action_id!r}", f"actions[{index}].id"
            )
        seen.add(action_id)
    raise AssertionError("unreachable: called of ids that are wrong")


def _check_crosses(context: Context, actions: ActionSet) -> None:
    """A learner may cross any two namespaces: what that costs is bounded before it is paid."""
    shared = sum(ns.values.shape[-1] for ns in context.namespaces)
    own = sum(ns.values.shape[-1] for ns in actions.namespaces)
    if len(actions) * (1 + shared + own) * (1 + own) > MAX_PAIRS:
        message = f"{len(actions)} actions with {own} features each, beside {shared} of the context, are too many pairs"
        raise TooManyFeaturesError(f"{message}: at most {MAX_PAIRS:,}", "actions")


def check_event_id(event_id: str) -> str:
    """Refuse an empty event_id, or one of more than 256 bytes."""
    if not 0 < len(event_id.encode(errors="replace")) <= MAX_EVENT_ID_BYTES:
        raise InvalidEventIdError(f"an event_id has 1 to {MAX_EVENT_ID_BYTES} bytes", "event_id")
    return event_id


def pseudonym(salt: bytes, user_id: str) -> str:
    """A keyed pseudonym, 32 hex digits: the only form in which a user id enters the log."""
    return hashlib.blake2b(user_id.encode(), key=salt, person=b"user", digest_size=16).hexdigest()
