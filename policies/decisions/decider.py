"""The step from a pool to a decision and its record."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np

from bandits.decide import Decision, decide
from bandits.errors import InvalidFieldError, SourceError, TooManyFeaturesError
from bandits.log.records import DecisionRecord, Ruled
from bandits.page import HeardPage, LoggedPage
from bandits.types import ActionSet, Context, Policy, Snapshot
from policies.asker import Asker, asked_of_sources
from policies.candidate_pool import NOTHING, Pool
from policies.decisions.barred_slots import BarredSlots, barred_slots
from policies.decisions.baseline import Baseline, Draw, Served, beside
from policies.decisions.holdout import FixedPolicy, in_holdout
from policies.decisions.mixture import Mixture
from policies.encoding import check_features
from policies.features import boosted, featurise
from policies.items.catalogue import Catalogue
from policies.offered import Offered
from policies.requests import RankRequest, check_event_id, without_private
from policies.rules.pages.ruled_page import RuledPage
from policies.rules.quotas.quota import Control
from policies.rules.ruling import Ruling
from policies.source_answers import check_scores
from policies.sources.source_set import SourceSet
from policies.spec import PolicySpec

MAX_PAIRS = 8_000_000
"""Pairs of features of one decision that a learner may have to cross."""


_F4 = np.dtype("<f4")

PageBars = RuledPage | BarredSlots
"""What says which actions may follow on a page, and why others may not."""
NOTHING_DRAWN = Decision("", (), np.zeros((0, 0)))
"""The decision of a page on which all is placed."""


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """All that is swapped at once when a new snapshot arrives, or a new state of the quotas."""

    snapshot_id: str
    policy: Policy
    snapshot: Snapshot
    control: Control | None = None


class Decider:
    """Makes the decisions of one policy from pools. Pure, but for the event_ids that it makes."""

    def __init__(
        self, spec: PolicySpec, *, salt: bytes, failed: Callable[[str, SourceError], str]
    ) -> None:
        """Decide by a spec.

        Args:
            spec: the policy.
            salt: draws are hashed with it.
            failed: is told of a source that could not score, and says why in few words.
        """
        self._spec = spec
        self._spec_digest = spec.digest
        self._salt = salt
        self._failed = failed
        self._holdout_policy = FixedPolicy(spec.holdout.policy) if spec.holdout else None
        self._private = frozenset(spec.context_private or ())
        self._baseline: Baseline | None = None
        if spec.is_apprentice:
            source = spec.baseline if isinstance(spec.baseline, str) else None
            self._baseline = Baseline(source, salt=salt, name=spec.name)

    def decide(
        self,
        serving: Serving,
        request: RankRequest,
        asker: Asker,
        pool: Pool,
        offered: Offered,
        ruling: Ruling | None,
    ) -> DecisionRecord:
        """Choose from a pool, and return the record of the decision.

        Args:
            serving: the model.
            request: what is asked.
            asker: who asks.
            pool: the K actions.
            offered: the items, and the sources over them.
            ruling: what the rules say; None: there are none.

        Raises:
            InvalidInputError: a field of the request is wrong.
        """
        slots = request.slots - (0 if ruling is None else len(ruling.placed))
        _check_slots(request, asker, pool, ruling)
        event_id = (
            check_event_id(request.event_id)
            if request.event_id is not None
            else os.urandom(16).hex()
        )
        check_features(request.context, "context")

        # What is chosen from, and by which policy.
        held_out = self._held_out(request, event_id)
        policy = self._holdout_policy if held_out and self._holdout_policy else serving.policy
        pushed = self._baseline is not None or not held_out
        if not pushed and len(pool.ids) - len(pool.for_quotas) >= max(slots, 1):
            pool = pool.without(pool.for_quotas)
        name, catalogue = self._spec.name, offered.offering.catalogue
        if offered.sources.scorers and slots and pool.ids:
            pool = self.scored(pool, request, offered.sources, catalogue, asker)
        public = without_private(request.context, self._private)
        context, actions = featurise(
            self._spec, catalogue, public, pool.ids, pool.features, pool.scores, pool.numbers
        )
        _check_crosses(context, actions)
        boosts = control = None
        if ruling is not None and pushed:
            control = serving.control if ruling.has_quotas else None
            boosts = ruling.boosts(pool.ids, pool.features, control)
            actions = boosted(actions, None if boosts is None else boosts.astype(np.float64))

        ruled = None if ruling is None else ruling.page(request, pool, diverse=not held_out)
        # What somebody else puts on the page, they have seen to themselves.
        rule = (None if self._baseline else barred_slots(request, pool, ruled)) or ruled
        short = _all_barred(pool, rule) if slots else None
        if short is not None:
            pool, boosts, slots = NOTHING, None, 0
        page = None if rule is None else HeardPage(rule)
        decision, apprentice = NOTHING_DRAWN, None
        if slots and pool.ids:  # all that there is may be placed
            draw: Draw = partial(
                decide,
                context=context,
                actions=actions,
                event_id=event_id,
                salt=self._salt,
                name=name,
                slots=min(slots, len(pool.ids)),
                page=page,
            )
            if self._baseline is None:
                decision = draw(policy)
            else:
                # What cannot be served is refused of whoever is held out, too: else a caller's
                # fault shows in some requests and not in others.
                served = self._baseline.serve(request, pool, event_id, slots)
                if held_out:
                    served = Served("holdout", draw(policy))
                decision, apprentice = served.decision, beside(served, draw, serving.policy)
        said = b"" if page is None else page.encoded(len(decision.chosen))
        short = short or _short(slots, decision, rule)
        credit = None
        if isinstance(policy, Mixture) and pool.scores:
            credit = policy.credit(
                context,
                actions,
                decision,
                salt=self._salt,
                name=name,
                page=LoggedPage(said, len(decision.chosen), len(actions)) if said else None,
            )

        return DecisionRecord(
            event_id=event_id,
            policy=name,
            spec=self._spec_digest,
            snapshot_id=serving.snapshot_id,
            catalogue=catalogue.digest,
            context=public,
            action_ids=list(pool.ids),
            features=pool.features,
            scores={
                source: values.astype(_F4, copy=False).tobytes()
                for source, values in pool.scores.items()
            },
            pmf=decision.pmfs.tobytes(),
            chosen=list(decision.chosen),
            user=asker.user,
            deferred=request.defer_activation,
            holdout=held_out,
            credit=credit,
            unserved=held_out
            and slots > 0
            and self._holdout_policy is not None
            and not self._holdout_policy.served(pool.scores, decision.chosen),
            failed=pool.failed,
            artifact=pool.artifact,
            profile=asker.profile,
            rules=_barred(said, short)
            if ruling is None
            else ruling.record(boosts, control, said, short),
            apprentice=apprentice,
        )

    def scored(
        self,
        pool: Pool,
        request: RankRequest,
        sources: SourceSet,
        catalogue: Catalogue,
        asker: Asker,
    ) -> Pool:
        """Return the pool with the scores of the sources that look at the context.

        Each of them sees the scores that candidate sources gave, and not those of the others.

        Args:
            pool: the K actions.
            request: what is asked.
            sources: those of the policy.
            catalogue: what they know of items by.
            asker: who asks.

        Raises:
            InvalidFieldError: the request brings the scores of one of them.
        """
        scores, failed = dict(pool.scores), dict(pool.failed or {})
        asked = asked_of_sources(request, asker, sources)

        for scorer in sources.scorers:
            if scorer.name in pool.scores:
                raise InvalidFieldError(
                    "this source scores actions itself", f"actions.scores.{scorer.name}"
                )
            try:
                found = scorer.score_actions(
                    catalogue,
                    asked,
                    pool.ids,
                    pool.features,
                    pool.scores,
                )
                check_scores(found, some=True)
                scores[scorer.name] = found
            except SourceError as error:
                failed[scorer.name] = self._failed(scorer.name, error)
        return msgspec.structs.replace(pool, scores=scores, failed=failed or None)

    def _held_out(self, request: RankRequest, event_id: str) -> bool:
        holdout = self._spec.holdout
        if holdout is None:
            return False

        unit = request.user_id if holdout.field == "user_id" else request.context.get(holdout.field)
        # Requests without the field are not one unit: each is assigned by its event_id.
        known = unit is not None and unit != ""
        return in_holdout(
            holdout, salt=self._salt, name=self._spec.name, unit=f"={unit}" if known else event_id
        )


def _check_slots(request: RankRequest, asker: Asker, pool: Pool, ruling: Ruling | None) -> None:
    """Refuse more slots than there are actions to fill them, unless the page has rules."""
    placed = 0 if ruling is None else len(ruling.placed)
    if request.slots - placed <= len(pool.ids) or (ruling is not None and ruling.has_page):
        return
    out = ["repeat holds back"] if asker.held_back else []
    filters = ruling is not None and ruling.admission is not None
    out += ["the filters refuse"] if filters else []
    beside = f", {placed} of them by placements" if placed else ""
    without = f", without what {' and what '.join(out)}" if out else ""
    raise InvalidFieldError(
        f"{request.slots} slots{beside}, but only {len(pool.ids)} actions to fill them{without}",
        "slots",
    )


def _barred(said: bytes, short: str | None) -> Ruled | None:
    """Return what a record says of a request's own bars, where the policy has no rules."""
    return Ruled(page=said, short=short) if said or short else None


def _all_barred(pool: Pool, rule: PageBars | None) -> str | None:
    """Return why no action may stand on a page beside what is placed; None: one may."""
    offsets = None if rule is None or not pool.ids else rule.after(())
    if rule is None or offsets is None or not np.isnan(offsets).all():
        return None
    barring = " and ".join(rule.barring(()))
    return f"none of the {len(pool.ids)} actions may stand beside what is placed, by {barring}"


def _short(slots: int, decision: Decision, rule: PageBars | None) -> str | None:
    """Return why fewer slots were drawn for than was to be; None: all were."""
    filled, count = len(decision.chosen), decision.pmfs.shape[1]
    if rule is None or filled == slots:
        return None
    if filled == count:
        return f"there are {count} actions for {slots} slots"
    barring = " and ".join(rule.barring(decision.chosen))
    return f"none of the {count - filled} actions that are left may follow, by {barring}"


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
