"""Teaching a prior: the rows that an artifact brings, to a model that has learned nothing.

A row's features are made as a decision's are, by the same functions, from the spec in force and the
catalogue that the log names for it. Each row is worth ``strength`` interactions.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import msgspec
import numpy as np

from bandits.errors import ArtifactError, RefusedError
from bandits.log.codec import encode
from bandits.log.encoded_decisions import starts_of
from bandits.log.records import DecisionRecord
from bandits.types import ChosenRows, Float32, Interaction, Learner
from policies.artifacts.prior import PriorDecision, PriorRows, decode_prior
from policies.decisions.mixture import source_actions
from policies.features import featurise, rows_of_chosen
from policies.fold.known_prior import SPEC_WANTS_NONE, KnownPrior, TaughtPrior
from policies.items.catalogue import Catalogue
from policies.requests import without_private
from policies.spec import PolicySpec

AT_ONCE = 64
"""Decisions whose rows are made at a time."""


def demand_prior(data: bytes) -> PriorRows:
    """Return the rows in a blob that the log names.

    Raises:
        RefusedError: it holds none, as everybody who folds the log finds.
    """
    try:
        return decode_prior(data)
    except ArtifactError as error:
        raise RefusedError(error.message, error.target) from error


def begin_with(
    known: KnownPrior,
    learner: Learner,
    spec: PolicySpec,
    catalogue: Catalogue,
    fetch: Callable[[str], bytes],
    time_ms: int,
) -> tuple[KnownPrior, bool]:
    """Teach a fresh learner the prior of its log, and return what became of it, and if it failed.

    Args:
        known: the prior.
        learner: of this spec; it has learned nothing.
        spec: the one in force; what it says of strength counts, else what the log says.
        catalogue: the one that its rows are of.
        fetch: returns the bytes of a digest.
        time_ms: when, in log time; a learner that forgets counts the rows' age from here.
    """
    said = spec.prior_strength
    strength = known.strength if said is None else said
    if not strength:
        return known.without(SPEC_WANTS_NONE), False

    prior = demand_prior(fetch(known.digest))
    try:
        rows, skipped = teach_prior(learner, spec, catalogue, prior, strength, time_ms)
    except RefusedError as error:
        return known.without(error.message), True
    taught = TaughtPrior(known.digest, strength, rows, skipped, learner.learned)
    return msgspec.structs.replace(known, taught=taught, reason=""), False


class _Candidates(msgspec.Struct, frozen=True, gc=False):
    """The candidates of a prior's decision that this policy could have been offered."""

    decision: PriorDecision
    ids: list[str]
    scores: dict[str, Float32]
    rewards: Float32


def teach_prior(
    learner: Learner,
    spec: PolicySpec,
    catalogue: Catalogue,
    rows: PriorRows,
    strength: float,
    time_ms: int = 0,
) -> tuple[int, int]:
    """Teach a fresh learner a prior; return how many rows it was taught, and how many not.

    Not taught are rows of items that the catalogue lacks, and of items that none of the spec's
    sources proposed. Scores of other sources are left out. To a mixture each decision is one row
    per source: what its candidates earned on average, as likely as it would have chosen them.

    Args:
        learner: of this spec; it has learned nothing.
        spec: the one in force.
        catalogue: the one that they are of.
        rows: what is taught, in order.
        strength: how many interactions each row is worth.
        time_ms: see ``begin_with``.

    Raises:
        RefusedError: this policy learns nothing of any row; then the learner is as it was.
    """
    if not spec.learner.learns:
        raise RefusedError(f"a policy of kind {spec.kind} learns from no rows", "learner.kind")

    offered = [found for each in rows.decisions if (found := _offered(spec, catalogue, each))]
    known = sum(int(np.isfinite(each.rewards).sum()) for each in offered)
    skipped = len(rows) - known
    if not known:
        raise RefusedError(
            "the catalogue, or the spec's sources, have none of its items", "prior.decisions"
        )

    if spec.kind == "mixture":
        taught = learner.learn_prior(_of_sources(spec, catalogue, offered), strength, time_ms)
    elif learner.by_row:
        taught = learner.learn_prior(_of_chosen(spec, catalogue, offered), strength, time_ms)
    else:
        taught = learner.learn_prior(_of_items(spec, catalogue, offered), strength, time_ms)
    return taught, skipped


def _offered(spec: PolicySpec, catalogue: Catalogue, decision: PriorDecision) -> _Candidates | None:
    """Return what of a decision's candidates this policy could have been offered; None: nothing."""
    names = {source.name for source in spec.sources}
    scores = {
        name: values
        for name, values in decision.source_scores().items()
        if not names or name in names
    }

    keep = np.ones(len(decision.action_ids), np.bool_)
    if catalogue.limits:
        keep &= catalogue.rows(decision.action_ids) >= 0
    if names:
        proposed = [~np.isnan(values) for values in scores.values()]
        keep &= np.any(proposed, axis=0) if proposed else False

    rewards = decision.known_rewards()
    if not np.isfinite(rewards[keep]).any():
        return None
    ids = [action_id for action_id, kept in zip(decision.action_ids, keep, strict=True) if kept]
    kept_scores = {name: values[keep] for name, values in scores.items()}
    return _Candidates(decision, ids, kept_scores, rewards[keep])


def _of_chosen(
    spec: PolicySpec, catalogue: Catalogue, offered: Sequence[_Candidates]
) -> Iterator[ChosenRows]:
    """Yield the rows as columns, by what makes them of decisions in the log."""
    for at in range(0, len(offered), AT_ONCE):
        part = offered[at : at + AT_ONCE]
        data = [encode(_record(each, spec.unseen)) for each in part]
        rewards = [each.rewards[np.isfinite(each.rewards)] for each in part]
        counts = [known.size for known in rewards]

        rows = rows_of_chosen(
            spec,
            catalogue,
            b"".join(data),
            np.repeat(starts_of(data)[:-1], counts),
            np.concatenate([np.arange(count) for count in counts]),
            np.concatenate(rewards).astype(np.float64),
        )
        # Each row is a choice of its own, among all candidates.
        among = np.repeat([len(each.ids) for each in part], counts)
        yield msgspec.structs.replace(rows, available=among, propensities=1.0 / among)


def _record(offered: _Candidates, unseen: Collection[str]) -> DecisionRecord:
    """Return a record of all candidates whose reward is known, one per slot.

    Args:
        offered: the candidates.
        unseen: features of the context that the learner does not see.
    """
    known = np.flatnonzero(np.isfinite(offered.rewards)).tolist()
    count = len(offered.ids)
    return DecisionRecord(
        event_id="prior",
        policy="",
        spec="",
        snapshot_id="",
        catalogue="",
        context=without_private(offered.decision.context, unseen),
        action_ids=offered.ids,
        features=None,
        scores={name: values.tobytes() for name, values in offered.scores.items()},
        pmf=np.full((len(known), count), 1.0 / count).tobytes(),
        chosen=known,
    )


def _of_items(
    spec: PolicySpec, catalogue: Catalogue, offered: Iterable[_Candidates]
) -> Iterator[Interaction]:
    """Yield an interaction for each row, among all candidates of its decision."""
    for each in offered:
        context, actions = featurise(
            spec, catalogue, each.decision.context, each.ids, None, each.scores
        )
        for index in np.flatnonzero(np.isfinite(each.rewards)).tolist():
            reward = float(each.rewards[index])
            yield Interaction("prior", 0, context, actions, index, 1.0 / len(actions), reward)


def _of_sources(
    spec: PolicySpec, catalogue: Catalogue, offered: Iterable[_Candidates]
) -> Iterator[Interaction]:
    """Yield an interaction for each source of each decision."""
    for each in offered:
        context, items = featurise(
            spec, catalogue, each.decision.context, each.ids, None, each.scores
        )
        sources = source_actions(items)
        for index, name in enumerate(sources.ids):
            scores = each.scores[name]
            known = np.flatnonzero(~np.isnan(scores) & np.isfinite(each.rewards))
            if known.size:
                pmf = spec.within.pmf(scores[known].astype(np.float64), 0)
                reward = float(pmf @ each.rewards[known])
                yield Interaction("prior", 0, context, sources, index, 1.0 / len(sources), reward)
