"""The blend with either artifact for users held out in time: what they did since training ended.

Sources propose by what was known of a user when training ended, and the blend chooses; what the
user took to since says how good the choice was. So what an artifact proposes is measured, too.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from bandits.errors import BanditloopError
from bandits.statistics.intervals import z_of
from bandits.types import Float64
from policies.artifacts.histories import Histories
from policies.artifacts.profiles import Profiles
from policies.data.coded import CodedEvents
from policies.items.timeline import ItemTimeline
from policies.ranker import Ranker
from policies.requests import RankRequest
from policies.sources import load_sources
from policies.spec import ArtifactSource, PolicySpec
from policies.training.histories import histories_of
from simulator.ranking.metrics.lists import Hits, ndcg
from simulator.refresh.contenders import Contender
from simulator.refresh.report import ALPHA, Measure

K = 10
"""Where lists are cut."""
MOST_USERS = 1_000
FEWEST_USERS = 30
"""Users without whom nothing is said."""
_SALT = b"held-out users"
"""The salt of pseudonyms that never leave this module."""


class HeldOut(NamedTuple):
    """A user, and the items that the user took to after training had ended, none known before."""

    user: str
    items: frozenset[str]


def held_out_users(
    events: CodedEvents, cut_ms: int, *, seed: int = 0, most: int = MOST_USERS
) -> list[HeldOut]:
    """Return users who did something after a time, a sample if there are many.

    Args:
        events: all of them.
        cut_ms: the time, in ms since 1970.
        seed: of the sample.
        most: users at most.
    """
    late = np.flatnonzero((events.time >= cut_ms) & (events.weight > 0))
    starts, found = events.starts, []
    for user in np.unique(events.user[late]).tolist():
        part = slice(int(starts[user]), int(starts[user + 1]))
        after = events.time[part] >= cut_ms
        known = set(events.item[part][~after].tolist())
        taken = set(events.item[part][after].tolist()) - known
        if taken:
            names = frozenset(events.item_ids[item] for item in taken)
            found.append(HeldOut(events.user_ids[user], names))

    if len(found) > most:
        drawn = np.random.default_rng(seed).choice(len(found), most, replace=False)
        found = [found[at] for at in np.sort(drawn).tolist()]
    return found


def compare_on_users(
    spec: PolicySpec,
    items: ItemTimeline,
    early: CodedEvents,
    users: Sequence[HeldOut],
    serving: Contender | None,
    fresh: Sequence[Contender],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Measure]:
    """Return what users held out would have been chosen, with either artifact.

    Args:
        spec: the policy.
        items: what there is to offer.
        early: what was known of users when training ended.
        users: those held out.
        serving: the blend that serves; None if its artifact cannot be had.
        fresh: the blends with the new one.
        progress: told how many users were asked for.
    """
    if len(users) < FEWEST_USERS:
        return []
    histories = histories_of(early)
    contenders = [*([] if serving is None else [serving]), *fresh]
    values: dict[str, Float64] = {}
    for number, each in enumerate(contenders):
        ranker = _ranker(spec, items, histories, each)
        values[each.name] = _ask(ranker, users, partial(_add, progress, number * len(users)))

    before = None if serving is None else values[serving.name]
    return [
        _measure(what, each.weights, values[each.name][:, column], before, column)
        for each in fresh
        for column, what in enumerate((f"NDCG@{K}", "chance of what the user took to"))
    ]


def profiles_over(histories: Histories, items: Sequence[str], salt: bytes) -> Profiles:
    """Return what histories say of their users, over other items than their own.

    Args:
        histories: by the users' ids.
        items: the items of an artifact; what it lacks is left out.
        salt: the key of the pseudonyms.
    """
    place = {item: at for at, item in enumerate(items)}
    places = np.array([place.get(item, -1) for item in histories.items], np.int32)
    mapped = places[histories.indices]
    owner = np.repeat(np.arange(len(histories.users)), np.diff(histories.starts))
    kept = np.flatnonzero(mapped >= 0)
    kept = kept[np.lexsort((mapped[kept], owner[kept]))]
    counts = np.bincount(owner[kept], minlength=len(histories.users))
    return Profiles.of(
        Histories(
            tuple(items),
            histories.users,
            np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
            mapped[kept],
            histories.weights[kept],
        ),
        salt,
    )


def _ranker(
    spec: PolicySpec, items: ItemTimeline, histories: Histories, contender: Contender
) -> Ranker:
    artifact = contender.rescorer.artifact
    trained = [source for source in spec.sources if isinstance(source, ArtifactSource)]
    ranker = Ranker(
        msgspec.structs.replace(spec, holdout=None, sources=trained, placements=msgspec.UNSET),
        list(load_sources(artifact, trained).values()),
        salt=_SALT,
        profiles=profiles_over(histories, artifact.items, _SALT),
    )
    ranker.offer(items.newest, items)
    ranker.serve(contender.name, contender.snapshot)
    return ranker


def _ask(ranker: Ranker, users: Sequence[HeldOut], progress: Callable[[int], None]) -> Float64:
    """Return both measures of each user, float64[users, 2]."""
    values = np.zeros((len(users), 2))
    with asyncio.Runner() as runner:
        # The runner's own run() would make the repr of each record.
        ask = runner.get_loop().run_until_complete
        for at, held_out in enumerate(users):
            try:
                record = ask(ranker.rank(RankRequest(user_id=held_out.user)))
            except BanditloopError:  # nothing was proposed: nothing was hit
                continue
            pmf = record.pmfs()[0]
            wanted = np.array([item in held_out.items for item in record.action_ids], np.bool_)
            best = np.argsort(-pmf, kind="stable")[:K]
            hits = np.zeros((1, K), np.bool_)
            hits[0, : len(best)] = wanted[best]
            values[at] = ndcg(Hits(hits, np.array([len(held_out.items)])))[0], pmf[wanted].sum()
            progress(at + 1)
    return values


def _add(progress: Callable[[int], None], before: int, done: int) -> None:
    progress(before + done)


def _measure(
    what: str, weights: str, fresh: Float64, before: Float64 | None, column: int
) -> Measure:
    if before is None:
        return Measure(what, "users", weights, len(fresh), None, float(fresh.mean()), decides=False)
    serving = before[:, column]
    apart = fresh - serving
    radius = z_of(ALPHA) * float(apart.std(ddof=1)) / math.sqrt(len(apart))
    mean = float(apart.mean())
    return Measure(
        what,
        "users",
        weights,
        len(fresh),
        float(serving.mean()),
        float(fresh.mean()),
        mean - radius,
        mean + radius,
        decides=column == 0,
    )
