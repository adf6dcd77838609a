"""The evaluation of sources: split, train on the first part, ask for the users of the second."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from bandits.errors import ArtifactError, BanditloopError
from bandits.values import FeatureMap
from policies.artifacts.prior import PriorRows, decode_prior
from policies.data.coded import CodedEvents, event_weights, weights_as_rewards
from policies.data.manifest import WeightOptions
from policies.training.histories import histories_of
from simulator.ranking.asking import TrainedModels
from simulator.ranking.blending.boosting import can_boost, fit_boosted
from simulator.ranking.blending.decisions import BlendUsers
from simulator.ranking.blending.measure import measure_blend
from simulator.ranking.fusion import Fusion, fusions
from simulator.ranking.gather import FUSED_LIMIT, add_references, gather, gather_pools
from simulator.ranking.learners import JUDGED_USERS, PoolsOfUsers, measure_learners
from simulator.ranking.metrics.beyond import popularity
from simulator.ranking.metrics.chances import Chances, fit_chances, loss_sentence
from simulator.ranking.metrics.groups import item_groups, user_groups
from simulator.ranking.metrics.ratings import RatingFit, fit_ratings
from simulator.ranking.pool import pools_by_limit, pools_by_sources
from simulator.ranking.references import user_knn
from simulator.ranking.references.user_knn import user_neighbours
from simulator.ranking.report import (
    BlendReport,
    LearnerRow,
    RankerResult,
    RankingReport,
    SplitSummary,
)
from simulator.ranking.splits import TEST_SHARE, Split, SplitName, split_events
from simulator.ranking.summarise import summarise, vectors_of
from simulator.ranking.task import RankingTask, make_task

VALIDATION_USERS: Final = 2_000
"""Users of the validation part that fusions are fitted on."""
FEW_USERS: Final = 100
"""Below so many users, a figure says little."""

Train = Callable[[CodedEvents, str], TrainedModels]
"""Trains sources on some events; told what for, for a progress bar."""
Progress = Callable[[str, int, int], None]
"""Told (what is being done, steps done, steps in all)."""


def silent(*_: object) -> None:
    """Tell nobody of progress."""


@dataclass(frozen=True, slots=True)
class RankingOptions:
    """How sources are judged.

    Attributes:
        split: the kind of split.
        share: of the events that test.
        k: where lists are cut.
        seed: of the sample of users and of all resampling.
        most_users: users that are judged at most.
        fuse: whether fusions of the sources are judged, too; they need a second training, on the
            earlier part of the training part.
        blend: whether a blend is judged without each of its sources; it is taught by the same
            second training, or by an artifact's prior.
        user_knn: whether neighbours of users are a row to compare with.
    """

    split: SplitName = "global-time"
    share: float = TEST_SHARE
    k: int = 10
    seed: int = 0
    most_users: int = 10_000
    fuse: bool = True
    blend: bool = False
    user_knn: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Fitted:
    """Fusions and ratings that were fitted on the validation part, and pools of its users."""

    fusions: list[Fusion]
    ratings: Mapping[str, RatingFit]
    notes: list[str]
    pools: PoolsOfUsers | None = None
    items: tuple[str, ...] = ()
    users: BlendUsers | None = None
    chances: Chances | None = None


def evaluate_sources(
    name: str,
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    weights: WeightOptions,
    options: RankingOptions,
    train: Train,
    *,
    contexts: Mapping[str, FeatureMap] | None = None,
    artifact: str | None = None,
    progress: Progress = silent,
) -> RankingReport:
    """Judge sources by what users did after the events that the sources were trained on.

    Args:
        name: of the data set.
        events: all of its events.
        items: of the data set, ``{"id", "features"}``.
        weights: what its events are worth.
        options: how to judge.
        train: trains the sources on a part of the events.
        contexts: by user, what a caller would say of each with a request.
        artifact: the artifact that ``train`` gives instead, for the report.
        progress: told of steps.

    Raises:
        DataSetError: the data set cannot be split like this, or the test part judges nobody.
    """
    began = time.perf_counter()
    split = split_events(events, options.split, options.share)
    early = weighed_part(events, split, weights)
    trained = train(early, "sources")
    task = make_task(
        events,
        split,
        trained.items,
        rating_scale=weights.rating_scale,
        most_users=options.most_users,
        seed=options.seed,
        contexts=contexts,
        worth=weights_as_rewards(events, weights),
    )
    if trained.proposing:
        fitted = _fit(early, weights, options, train, list(trained.models), contexts or {})
    else:
        names = " and ".join(trained.models)
        fitted = _Fitted([], {}, [f"there is no pool: {names} score what others propose"])

    found = gather(
        task,
        trained,
        fitted.fusions,
        options.k,
        lambda done: progress("asking", done, task.users),
        fitted.chances,
    )
    if options.user_knn:
        add_references(found, task, user_neighbours(histories_of(early), trained.items), options.k)
    if "" in found.log_loss:
        fitted.notes.append(loss_sentence(float(np.nanmean(found.log_loss[""]))))
    predicted = {
        source: fitted.ratings[source].predict(raw)
        for source, raw in found.rated.items()
        if source in fitted.ratings and task.ratings.size
    }
    vectors = vectors_of(items, trained.items, task, options.seed)
    results, tests = summarise(task, found, vectors, predicted, options.k, seed=options.seed)
    members, group_sentence = user_groups(task.known.sets.sizes)
    groups = item_groups(popularity(task.everyone, task.items))

    learners = _learners(events, task, trained, fitted, items, options, contexts or {})
    blend = None
    if options.blend:
        asked = _blend_users(events, task, trained, contexts or {})
        blend = _blend(fitted, asked, items, options, progress)
    notes = [*split.notes, *trained.notes, *fitted.notes]
    if artifact is not None:
        notes.append(
            "an artifact that has seen the test events recites them: that this one was trained on"
            " the earlier part alone is not checked"
        )
    if task.users < FEW_USERS:
        notes.append(f"{task.users} users are few: the intervals are wide, and hold only roughly")
    return RankingReport(
        data=name,
        k=options.k,
        seed=options.seed,
        split=_summary(split, task),
        results=_described(results, trained, fitted.fusions),
        tests=tests,
        pools=pools_by_sources(task, found, seed=options.seed),
        limits=(
            pools_by_limit(task, found, options.k, seed=options.seed) if trained.proposing else []
        ),
        learners=learners,
        user_groups={group: int(inside.sum()) for group, inside in members.items()},
        item_groups={
            group: float(inside[task.relevant.indices].mean()) for group, inside in groups.items()
        },
        group_sentence=group_sentence,
        diversity_by=vectors.by,
        ratings=_rating_sentence(task, fitted.ratings),
        notes=notes,
        artifact=artifact,
        blend=blend,
        seconds=time.perf_counter() - began,
    )


def weighed_part(events: CodedEvents, split: Split, weights: WeightOptions) -> CodedEvents:
    """Return the training part, weighed as if nothing had come after it.

    Args:
        events: all of them.
        split: of these.
        weights: what events are worth.
    """
    early = events.select(split.train).compact()
    return early.with_weight(
        event_weights(early.types, early.type, early.time, early.value, weights)
    )


def _fit(
    early: CodedEvents,
    weights: WeightOptions,
    options: RankingOptions,
    train: Train,
    names: list[str],
    contexts: Mapping[str, FeatureMap],
) -> _Fitted:
    """Fit fusions and ratings on the last part of the training part.

    The sources are trained on what is before it.
    """
    if not options.fuse:
        return _Fitted([], {}, [])

    k, seed = options.k, options.seed
    try:
        split = split_events(early, options.split, options.share)
        trained = train(weighed_part(early, split, weights), "validation")
        task = make_task(
            early,
            split,
            trained.items,
            rating_scale=weights.rating_scale,
            most_users=VALIDATION_USERS,
            seed=seed,
            contexts=contexts,
            worth=weights_as_rewards(early, weights),
        )
    except BanditloopError as error:
        votes = fusions(names, None, None, k, limit=FUSED_LIMIT, seed=seed)
        return _Fitted(votes, {}, [f"nothing is fitted on a validation part: {error.message}"])

    # A source that the smaller part cannot support has no weight in what is fitted.
    if list(trained.models) != names:
        votes = fusions(names, None, None, k, limit=FUSED_LIMIT, seed=seed)
        return _Fitted(votes, {}, ["nothing is fitted: the validation part supports other sources"])
    pools = gather_pools(task, trained)
    rated = gather(task, trained, [], k, silent).rated if task.ratings.size else {}
    fused = fusions(names, pools, task.relevant, k, limit=FUSED_LIMIT, seed=seed)
    boosted = fit_boosted(pools, task.relevant) if can_boost() else None
    if boosted is not None:
        fused.append(Fusion("stack_boosted", boosted, "boosted trees on scores"))
    return _Fitted(
        fused,
        fit_ratings(rated, task.ratings),
        [],
        PoolsOfUsers(pools, task.relevant, _contexts_of(early, task, contexts)),
        trained.items,
        _blend_users(early, task, trained, contexts),
        fit_chances(list(trained.models), fused, pools, task.relevant),
    )


def _learners(
    events: CodedEvents,
    task: RankingTask,
    trained: TrainedModels,
    fitted: _Fitted,
    items: Sequence[Mapping[str, Any]],
    options: RankingOptions,
    contexts: Mapping[str, FeatureMap],
) -> list[LearnerRow]:
    """Return what learners make of the pools of some users, where they can be taught any."""
    if fitted.pools is None:
        return []

    rng = np.random.default_rng([options.seed, 4])
    drawn = np.sort(rng.permutation(task.users)[:JUDGED_USERS])
    part = task.part(drawn)
    judged = PoolsOfUsers(
        gather_pools(part, trained), part.relevant, _contexts_of(events, part, contexts)
    )
    try:
        return measure_learners(
            fitted.pools,
            fitted.items,
            judged,
            trained.items,
            items,
            list(trained.models),
            k=options.k,
            seed=options.seed,
        )
    except BanditloopError as error:
        fitted.notes.append(f"learners are not compared: {error.message}")
        return []


def _blend(
    fitted: _Fitted,
    asked: BlendUsers | None,
    items: Sequence[Mapping[str, Any]],
    options: RankingOptions,
    progress: Progress,
) -> BlendReport | None:
    """Return what each source of a blend is worth, where one can be taught."""
    try:
        if asked is None:
            raise ArtifactError("these sources are of no artifact", "artifact")
        taught: BlendUsers | PriorRows | None = fitted.users
        if taught is None and asked.artifact.prior is not None:
            taught = decode_prior(asked.artifact.prior)
        if taught is None:
            raise ArtifactError(
                "nobody can be taught: it needs fusions, or an artifact with a prior", "artifact"
            )
        return measure_blend(
            taught, asked, items, k=options.k, seed=options.seed, progress=progress
        )
    except BanditloopError as error:
        fitted.notes.append(f"the blend is not measured: {error.message}")
        return None


def _blend_users(
    events: CodedEvents,
    task: RankingTask,
    trained: TrainedModels,
    contexts: Mapping[str, FeatureMap],
) -> BlendUsers | None:
    """Return the users of a task, as a blend is asked for them."""
    if trained.artifact is None:
        return None
    users = [events.user_ids[code] for code in task.user_codes.tolist()]
    return BlendUsers(
        trained.artifact, users, task.known, task.relevant, _contexts_of(events, task, contexts)
    )


def _contexts_of(
    events: CodedEvents, task: RankingTask, contexts: Mapping[str, FeatureMap]
) -> list[FeatureMap]:
    return [contexts.get(events.user_ids[code], {}) for code in task.user_codes.tolist()]


def _described(
    results: Sequence[RankerResult], trained: TrainedModels, fused: Sequence[Fusion]
) -> list[RankerResult]:
    notes = {fusion.name: fusion.note for fusion in fused} | {user_knn.NAME: user_knn.NOTE}
    seconds = trained.seconds or {}
    return [
        msgspec.structs.replace(
            result,
            note=notes.get(result.name, ""),
            train_s=seconds.get(result.name),
            needs_history=result.kind == "reference"
            or (result.name in trained.models and trained.models[result.name].needs_history),
        )
        for result in results
    ]


def _summary(split: Split, task: RankingTask) -> SplitSummary:
    return SplitSummary(
        name=split.name,
        sentence=split.sentence,
        cut_ms=split.cut_ms,
        train_events=int(split.train.sum()),
        test_events=int(split.test.sum()),
        unknown_items=task.unknown_items,
        known_already=task.known_already,
        irrelevant=task.irrelevant,
        test_users=task.test_users,
        evaluated_users=task.users,
        items=task.items,
    )


def _rating_sentence(task: RankingTask, fits: Mapping[str, RatingFit]) -> str:
    if not fits or not task.ratings.size:
        return ""
    return (
        f"errors of {task.ratings.size:,} ratings of the test part: a rating is predicted as"
        " a + b * score, fitted by least squares on the validation part; without a score it is the"
        " mean rating there"
    )
