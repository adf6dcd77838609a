"""The rows of a prior: what users of the last part of the data did with what was proposed to them.

Sources are trained on the earlier part of the events and propose candidates as they would when
serving; a candidate's reward is 1 if its user then took to it, else 0. So the blend knows what a
source's score, its rank, an item and a group of users are worth before its first decision.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bandits.errors import ArtifactError
from bandits.types import Float32
from bandits.values import FeatureMap
from policies.artifacts.prior import MAX_ROWS, PriorDecision, PriorRows
from policies.artifacts.profiles import Profiles
from policies.data.coded import UNTIMED, CodedEvents
from policies.data.data_set import DataSet
from policies.data.items import catalogue_items
from policies.items.catalogue import Catalogue
from policies.none_proposed import NOTHING_PROPOSED
from policies.ranker import Ranker
from policies.requests import Item, RankRequest
from policies.sources import load_sources
from policies.spec import ArtifactSource, PolicySpec, Source
from policies.training.fits import TrainConfig
from policies.training.train import CheckpointsOf, MapTasks, Progress, run_training

EARLIER = 0.75
"""The share of the events that sources are trained on; by measurement, docs/benchmarks/start.md."""
LIKED = 1.0
"""An event of this weight is a reward; it is what an item of a history that is sent counts."""
LIMIT = 30
"""Candidates of each source, as a policy asks for them by default."""
RETURNING = 0.5
"""The share of the later part's users who must have come before, for a split at one time."""
FEWEST = 20
"""Users of the later part, and rewards among the rows, without which there is no prior."""

MOST_VALUES = 50
"""Values of a column of users that is learned from."""


@dataclass(frozen=True, slots=True)
class MadePrior:
    """A prior, or why there is none.

    Attributes:
        rows: what a fresh model is taught; None if there is no prior.
        split: how the events were parted: ``time``, or ``user``, each user's own last part.
        users: how many users the rows are of.
        rewarded: the share of the rows with a reward.
        reason: why there is no prior.
    """

    rows: PriorRows | None = None
    split: str = ""
    users: int = 0
    rewarded: float = 0.0
    reason: str = ""


def make_prior(
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    *,
    sources: Sequence[str] | None = None,
    limit: int = LIMIT,
    contexts: Mapping[str, FeatureMap] | None = None,
    worth: Float32 | None = None,
    config: TrainConfig | None = None,
    seed: int = 0,
    max_rows: int = MAX_ROWS,
    progress: Progress | None = None,
    map_tasks: MapTasks | None = None,
    checkpoints: CheckpointsOf | None = None,
) -> MadePrior:
    """Return the rows of a prior; the same events and seed give the same rows.

    Where most users come again, the events are parted at one time, as they are between training and
    serving. Where most come once, each user's own events are parted.

    Args:
        events: what users did.
        items: the catalogue, ``{"id": str, "features": {…}}`` each.
        sources: those that propose; every one that the events are enough for, by default.
        limit: how many candidates each proposes.
        contexts: by user, what a caller will send with a request.
        worth: float32[n], how strongly each event speaks for its item, if not its weight, which may
            fade with its age.
        config: what each source is fitted with.
        seed: of all random numbers, among them the sample of users if there are too many.
        max_rows: the most rows.
        progress: told of each source's steps, and of those of ``prior``.
        map_tasks: where sources are fitted.
        checkpoints: where long fits keep how far they have come.
    """
    say = progress or (lambda *_: None)
    try:
        earlier, split, users = _parted(events)
        ranker = _proposers(
            events.select(earlier).compact(),
            items,
            sources,
            limit,
            contexts,
            config,
            seed,
            say,
            map_tasks,
            checkpoints,
        )
    except _NoPriorError as error:
        return MadePrior(reason=str(error))

    liked = (events.weight if worth is None else worth) >= LIKED
    took = _taken(events, ~earlier & liked)
    catalogue = Catalogue(msgspec.convert(list(items), list[Item]))

    # A sample of users in a random order: the order of the rows says nothing of who they are.
    order = np.random.default_rng(seed).permutation(users).tolist()
    decisions: list[PriorDecision] = []
    count, rewarded = 0, 0
    with asyncio.Runner() as runner:
        # The runner's own run() would make the repr of each pool.
        ask = runner.get_loop().run_until_complete
        for done, user in enumerate(order):
            user_id = events.user_ids[user]
            context = (contexts or {}).get(user_id, {})
            try:
                pool = ask(
                    ranker.scored_pool(RankRequest(user_id=user_id, context=context), catalogue)
                )
            except NOTHING_PROPOSED:
                continue
            if count + len(pool.ids) > max_rows:
                break

            rewards = np.array([item in took.get(user, ()) for item in pool.ids], np.float32)
            decisions.append(PriorDecision.of(context, pool.ids, pool.scores, rewards))
            count, rewarded = count + len(pool.ids), rewarded + int(rewards.sum())
            if done % 100 == 0:
                say("rows", done, len(order))
    say("rows", len(order), len(order))

    if rewarded < FEWEST:
        reason = (
            f"{rewarded} of {count:,} candidates were then taken to (by an event of weight"
            f" {LIKED:g} or more), fewer than {FEWEST}"
        )
        return MadePrior(reason=reason)
    return MadePrior(PriorRows.of(decisions), split, len(decisions), rewarded / count)


class _NoPriorError(Exception):
    """Why there is no prior."""


_SALT = b"prior"
"""The salt of pseudonyms that never leave this module."""


def _parted(events: CodedEvents) -> tuple[NDArray[np.bool_], str, NDArray[np.int32]]:
    """Return which events are of the earlier part, bool[n], how they were parted, and for whom.

    Users are those with events in both parts.

    Raises:
        _NoPriorError: there are too few of them.
    """
    timed = events.time != UNTIMED
    if not timed.any():
        raise _NoPriorError("no event has a time, so none is known to have come later")

    split = "time"
    earlier: NDArray[np.bool_] = ~timed | (events.time < np.quantile(events.time[timed], EARLIER))
    before, after = np.unique(events.user[earlier]), np.unique(events.user[~earlier])
    users = np.intersect1d(before, after)

    # Events stand by user and time; those without a time stay in the earlier part.
    if len(users) < RETURNING * len(after):
        split, counts = "user", np.diff(events.starts)
        ranks = np.arange(len(events)) - np.repeat(events.starts[:-1], counts)
        earlier = ~timed | (ranks < np.repeat(np.floor(counts * EARLIER), counts))
        users = np.intersect1d(events.user[earlier], events.user[~earlier])

    if len(users) < FEWEST:
        raise _NoPriorError(
            f"{len(users)} users have events in the earlier part of the time and in the later one,"
            f" fewer than {FEWEST}"
        )
    return earlier, split, users


def _proposers(
    events: CodedEvents,
    items: Sequence[Mapping[str, Any]],
    sources: Sequence[str] | None,
    limit: int,
    contexts: Mapping[str, FeatureMap] | None,
    config: TrainConfig | None,
    seed: int,
    progress: Progress,
    map_tasks: MapTasks | None,
    checkpoints: CheckpointsOf | None,
) -> Ranker:
    """Train sources on the earlier part; return what asks them as a policy does.

    Raises:
        _NoPriorError: there are not two of them.
    """
    try:
        run = run_training(
            events,
            items,
            sources=sources,
            config=config,
            contexts=contexts,
            seed=seed,
            progress=progress,
            map_tasks=map_tasks,
            checkpoints=checkpoints,
        )
    except ArtifactError as error:
        raise _NoPriorError(
            f"the sources cannot be trained on the earlier part alone: {error.message}"
        ) from error

    configs: list[Source] = [ArtifactSource(name) for name in run.artifact.sources]
    if len(configs) < 2:
        raise _NoPriorError(f"there is one source, {configs[0].name}: nothing to blend")
    return Ranker(
        PolicySpec("prior", sources=configs, artifact="", limit=limit),
        list(load_sources(run.artifact, configs).values()),
        salt=_SALT,
        profiles=Profiles.of(run.histories, _SALT),
    )


def _taken(events: CodedEvents, rows: NDArray[np.bool_]) -> dict[int, set[str]]:
    """Return the items that each user took to, by the user's code."""
    taken: dict[int, set[str]] = {}
    chosen = events.select(rows)
    for user, item in zip(chosen.user.tolist(), chosen.item.tolist(), strict=True):
        taken.setdefault(user, set()).add(events.item_ids[item])
    return taken


def contexts_of(data: DataSet) -> dict[str, FeatureMap]:
    """Return what a data set's table of users says of each, as a caller would send it.

    A category of more than MOST_VALUES values is left out: it would be a second name of the user.
    """
    table = data.users()
    if table is None:
        return {}
    kinds = {
        name: kind
        for name, kind in data.manifest.user_columns.items()
        if kind != "category" or len(table[name].unique()) <= MOST_VALUES
    }
    return {user["id"]: user["features"] for user in catalogue_items(table, kinds)}
