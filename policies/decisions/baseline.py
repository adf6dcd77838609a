"""The baseline beside an apprentice: the choice that is served, and what it was drawn from."""

from typing import NamedTuple, Protocol

import numpy as np

from banditloop_client.schemas import BaselineProbabilities
from bandits.decide import PURPOSE_APPRENTICE, Decision, decide, left_after
from bandits.errors import InvalidFieldError, InvalidPmfError
from bandits.log.records import Apprentice, DecisionRecord
from bandits.types import ActionSet, Context, Float32, Float64, Pmf, Policy, check_mass, frozen
from policies.candidate_pool import Pool
from policies.decisions.holdout import FixedPolicy
from policies.requests import RankRequest
from policies.spec import PolicySpec


class Served(NamedTuple):
    """What is served beside an apprentice.

    Attributes:
        by: whose choice it is; see ``Apprentice.served``.
        decision: the actions, and what each was drawn from.
    """

    by: str
    decision: Decision


class Draw(Protocol):
    """Draws a decision from a policy."""

    def __call__(self, policy: Policy, *, purpose: str = ...) -> Decision:
        """Return the decision; ``purpose``: see ``decide``."""
        ...


def beside(served: Served, draw: Draw, policy: Policy) -> Apprentice:
    """Return what an apprentice would have chosen.

    Args:
        served: what is served in its place.
        draw: draws from the same actions.
        policy: the apprentice's.
    """
    own = draw(policy, purpose=PURPOSE_APPRENTICE)
    return Apprentice(served.by, own.pmfs.tobytes(), list(own.chosen))


class Baseline:
    """The choice of a caller, or of a source, in place of a policy's own."""

    def __init__(self, source: str | None, *, salt: bytes, name: str) -> None:
        """Serve a source's best, or what requests say.

        Args:
            source: the source; None: the first of the actions, where a request names none.
            salt: draws are hashed with it.
            name: the policy's name.
        """
        self._source, self._salt, self._name = source, salt, name

    def serve(self, request: RankRequest, pool: Pool, event_id: str, slots: int) -> Served:
        """Return what is served.

        Args:
            request: it may name what.
            pool: the K actions that may be chosen.
            event_id: the decision.
            slots: how many are served.

        Raises:
            InvalidFieldError: the baseline of the request cannot be served, or there is none.
        """
        said = request.baseline
        if isinstance(said, BaselineProbabilities):
            return self._of_probabilities(said, request, pool, event_id, slots)
        if said is not None:
            ids = [said] if isinstance(said, str) else said
            if len(ids) != slots or len(set(ids)) != slots:
                raise InvalidFieldError(
                    f"one action for each of {slots} slots, none twice, not {len(ids)}", "baseline"
                )
            chosen = [_place(each, request, pool, "baseline") for each in ids]
            return Served("request", certain(event_id, chosen, len(pool.ids)))

        scores = pool.scores.get(self._source) if self._source is not None else None
        if scores is not None and np.count_nonzero(~np.isnan(scores)) >= slots:
            return Served("source", certain(event_id, _best(scores, slots), len(pool.ids)))
        if request.actions is None and self._source is None:
            raise InvalidFieldError(
                "the candidates are of sources, and none of them is the first: name the action that"
                " is served, or send actions, or name a source as the spec's baseline",
                "baseline",
            )
        return Served("first", certain(event_id, list(range(slots)), len(pool.ids)))

    def _of_probabilities(
        self,
        said: BaselineProbabilities,
        request: RankRequest,
        pool: Pool,
        event_id: str,
        slots: int,
    ) -> Served:
        """Return a draw from the caller's probabilities: ours, or what the caller has drawn."""
        if slots != 1:
            raise InvalidFieldError(
                f"probabilities are of one slot, not of {slots}: name the actions", "baseline"
            )
        target = "baseline.probabilities"
        pmf = np.zeros(len(pool.ids))
        for action_id, probability in said.probabilities.items():
            if probability != 0.0:
                pmf[_place(action_id, request, pool, target)] = probability
        try:
            check_mass(pmf)
        except InvalidPmfError as error:
            raise InvalidFieldError(error.message, target) from error

        if said.id is None:
            drawn = decide(
                _Given(pmf),
                Context(()),
                ActionSet(pool.ids, ()),
                event_id=event_id,
                salt=self._salt,
                name=self._name,
            )
            return Served("drawn", drawn)
        place = _place(said.id, request, pool, "baseline.id")
        if not pmf[place] > 0.0:
            raise InvalidFieldError(
                f"{said.id!r} cannot have been drawn: it has no probability", "baseline.id"
            )
        return Served("request", Decision(event_id, (place,), frozen(pmf[None])))


def served_again(record: DecisionRecord, spec: PolicySpec) -> Float64 | None:
    """Return what the served actions of an apprentice's record were drawn from, float64[slots, K].

    Args:
        record: the decision.
        spec: the one that it names.

    Returns:
        None where only the caller knows.
    """
    served = "" if record.apprentice is None else record.apprentice.served
    slots, count = len(record.chosen), len(record.action_ids)
    if served == "first":
        return certain(record.event_id, list(range(slots)), count).pmfs
    if served == "source" and isinstance(spec.baseline, str):
        scores = record.source_scores().get(spec.baseline, np.full(count, np.nan, np.float32))
        return certain(record.event_id, _best(scores, slots), count).pmfs
    if served == "holdout" and spec.holdout is not None:
        policy, pmfs = FixedPolicy(spec.holdout.policy), np.zeros((slots, count))
        actions = ActionSet(tuple(record.action_ids), scores=record.source_scores())
        for slot in range(slots):
            remaining, left = left_after(actions, record.chosen[:slot])
            pmfs[slot, remaining] = policy.pmf(Context(), left)
        return pmfs
    return None


def _best(scores: Float32, slots: int) -> list[int]:
    """Return a source's best; of equal ones the first, and last what it does not know."""
    best: list[int] = np.argsort(-scores, kind="stable")[:slots].tolist()
    return best


class _Given(NamedTuple):
    """A policy of one PMF."""

    given: Pmf

    def pmf(self, context: Context, actions: ActionSet) -> Pmf:  # noqa: ARG002 - the protocol's
        return self.given


def certain(event_id: str, chosen: list[int], count: int) -> Decision:
    """Return a decision without chance.

    Args:
        event_id: its name.
        chosen: the actions, slot by slot.
        count: how many actions there are.
    """
    pmfs: Float64 = np.zeros((len(chosen), count))
    pmfs[np.arange(len(chosen)), chosen] = 1.0
    return Decision(event_id, tuple(chosen), frozen(pmfs))


def _place(action_id: str, request: RankRequest, pool: Pool, target: str) -> int:
    """Return where an action is in the pool; refuse one that is not there, and say why."""
    if action_id in pool.ids:
        return pool.ids.index(action_id)
    if action_id in request.exclude:
        why = "the request excludes it"
    elif request.actions is None:
        why = "no source proposes it, or it may not be offered: send actions"
    elif any(action.id == action_id for action in request.actions):
        why = "the policy's filter refuses it, or repeat holds it back"
    else:
        why = "it is none of the actions"
    raise InvalidFieldError(f"{action_id!r} cannot be served: {why}", target)
