"""The shop's users and their sessions: who comes when, and which pages they open, in which order.

Nothing here depends on what is recommended.
"""

from dataclasses import dataclass

import numpy as np

from bandits.types import Float64
from simulator.worlds.frozen.chance import Chance
from simulator.worlds.frozen.parameters import ShopParameters
from simulator.worlds.frozen.parts import DAY_MS, Indexes, drawn_by_weight, start_ms
from simulator.worlds.frozen.shop.items import ShopItems

_MINUTES = 1440
_LONGEST_PAGE_MS = 1_800_000.0


@dataclass(frozen=True, slots=True, eq=False)
class ShopUsers:
    """All users of a shop, by index.

    Attributes:
        groups: int64[n], the group of each.
        tastes: float64[n, r], standard normal over all users.
        sensitivities: float64[n], how much a dear item is liked less.
        activities: float64[n], weights of how often they come.
    """

    groups: Indexes
    tastes: Float64
    sensitivities: Float64
    activities: Float64


@dataclass(frozen=True, slots=True, eq=False)
class ShopVisits:
    """All visits of a shop, in the order of time, and the pages of their sessions.

    Attributes:
        times: int64[n], milliseconds since 1970.
        days: int64[n], the day of each, from 0.
        users: int64[n].
        devices: int64[n], 0 a desktop, 1 a phone.
        sessions: int64[n], the row of ``paths``.
        steps: int64[n], the column of ``paths``: which page of the session it is.
        paths: int64[sessions, steps], the items that are opened, as far as a session goes.
    """

    times: Indexes
    days: Indexes
    users: Indexes
    devices: Indexes
    sessions: Indexes
    steps: Indexes
    paths: Indexes


def users_of_shop(parameters: ShopParameters, seed: int) -> ShopUsers:
    """Make the users of a shop.

    Args:
        parameters: The shop's parameters.
        seed: The shop's seed.
    """
    count, rank, share = parameters.users, parameters.rank, parameters.group_share
    groups = (Chance(seed, "groups").uniforms(count) * parameters.groups).astype(np.int64)
    common = Chance(seed, "tastes of groups").normals(parameters.groups, rank)
    own = Chance(seed, "tastes").normals(count, rank)

    spread = parameters.sensitivity_spread
    luck = Chance(seed, "sensitivities").normals(count)
    return ShopUsers(
        groups,
        np.sqrt(share) * common[groups] + np.sqrt(1.0 - share) * own,
        parameters.price_sensitivity * np.exp(spread * luck - spread**2 / 2.0),
        np.exp(parameters.activity * Chance(seed, "activity").normals(count)),
    )


def seasons_of_shop(parameters: ShopParameters, seed: int, days: Float64) -> Float64:
    """Return float64[n, categories]: how much the season raises the logit of each category.

    Args:
        parameters: The shop's parameters.
        seed: The shop's seed.
        days: float64[n], days since the start.
    """
    phases = Chance(seed, "seasons").uniforms(parameters.categories)
    turns = days[:, None] / parameters.season_days + phases
    raised: Float64 = parameters.season * np.sqrt(2.0) * np.sin(2.0 * np.pi * turns)
    return raised


def visits_of_shop(
    parameters: ShopParameters, seed: int, users: ShopUsers, items: ShopItems
) -> ShopVisits:
    """Make the visits of a shop.

    Args:
        parameters: The shop's parameters.
        seed: The shop's seed.
        users: The users.
        items: The items.
    """
    lengths = _lengths(parameters, seed)
    count = len(lengths)
    starts = _starts(parameters, seed, count)
    who = drawn_by_weight(users.activities, Chance(seed, "users").uniforms(count))
    paths = _paths(parameters, seed, users.tastes[who], starts, items)

    # The pages of a session follow each other; visits are then put in the order of time.
    sessions = np.repeat(np.arange(count), lengths)
    steps = np.arange(len(sessions)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    luck = Chance(seed, "pages").uniforms(count, parameters.steps)
    waits = parameters.page_s * 1000.0 * np.sqrt(luck / (1.0 - luck))
    gaps = np.minimum(waits, _LONGEST_PAGE_MS).astype(np.int64) + 1
    gaps[:, 0] = 0
    times = starts[sessions] + np.cumsum(gaps, axis=1)[sessions, steps]
    order = np.argsort(times, kind="stable")
    sessions, steps, times = sessions[order], steps[order], times[order]

    phones = (Chance(seed, "devices").uniforms(count) < parameters.phones).astype(np.int64)
    return ShopVisits(
        times=start_ms(parameters) + times,
        days=_days(parameters, times),
        users=who[sessions],
        devices=phones[sessions],
        sessions=sessions,
        steps=steps,
        paths=paths,
    )


def _lengths(parameters: ShopParameters, seed: int) -> Indexes:
    """Return int64[sessions]: pages of each session, in all as many as there are visits."""
    luck, goes_on = Chance(seed, "lengths").uniforms(parameters.visits), parameters.continue_session
    lengths = np.full(parameters.visits, parameters.steps if goes_on == 1.0 else 1)
    if 0.0 < goes_on < 1.0:
        geometric = 1.0 + np.floor(np.log(luck) / np.log(goes_on))
        lengths = np.minimum(geometric, parameters.steps).astype(np.int64)

    ends = np.cumsum(lengths)
    last = int(np.searchsorted(ends, parameters.visits))
    lengths = lengths[: last + 1].copy()
    lengths[last] -= ends[last] - parameters.visits
    return lengths


def _starts(parameters: ShopParameters, seed: int, count: int) -> Indexes:
    """Return int64[count]: when sessions begin, in milliseconds since the start."""
    places = Chance(seed, "starts").uniforms(count) * parameters.days
    hours = (np.arange(_MINUTES) + 0.5) / 60.0
    weights = 1.0 + parameters.evening * np.cos(2.0 * np.pi * (hours - 20.0) / 24.0)
    cumulative = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])

    # Within a day, time runs as visits come.
    within = np.interp(places % 1.0, cumulative, np.linspace(0.0, 1.0, _MINUTES + 1))
    starts = (np.floor(places) + within) * DAY_MS
    return np.minimum(starts, parameters.days * DAY_MS - 1.0).astype(np.int64)


def _days(parameters: ShopParameters, times: Indexes) -> Indexes:
    """Return int64[n]: the day of each time; sessions may go on a little after the last one."""
    return np.minimum(times // DAY_MS, int(np.ceil(parameters.days)) - 1)


def _paths(
    parameters: ShopParameters, seed: int, tastes: Float64, starts: Indexes, items: ShopItems
) -> Indexes:
    """Return int64[sessions, steps]: the items that users open.

    The first page is of a category that the user likes in this season; a further one is of the
    category that follows the last, or of one that the user likes. Within a category, users look at
    a few popular items and open one by taste.
    """
    chance, count = Chance(seed, "paths"), len(starts)
    sessions, days = np.arange(count), _days(parameters, starts)
    paths = np.empty((count, parameters.steps), np.int64)
    likings = category_likings(parameters, seed, tastes, starts / DAY_MS, items)
    cumulative = np.cumsum(likings, axis=1)

    categories = np.zeros(count, np.int64)
    for step in range(parameters.steps):
        follows, which = chance.at(sessions, step, 0), chance.at(sessions, step, 1)
        liked = (which[:, None] * cumulative[:, -1:] > cumulative).sum(axis=1)
        liked = np.minimum(liked, parameters.categories - 1)
        followed = items.successors[categories]
        goes_along = (follows < parameters.follow) & (step > 0)
        categories = np.where(goes_along, followed, liked)

        luck = chance.at(sessions, step, 2 + np.arange(2 * parameters.looks)[:, None])
        paths[:, step] = _opened(parameters, items, categories, tastes, days, luck)
    return paths


def category_likings(
    parameters: ShopParameters, seed: int, tastes: Float64, days: Float64, items: ShopItems
) -> Float64:
    """Return float64[n, categories]: weights of the categories that users open pages of.

    Args:
        parameters: The shop's parameters.
        seed: The shop's seed.
        tastes: float64[n, r], the users' tastes.
        days: float64[n], days since the start.
        items: The items.
    """
    seasons = seasons_of_shop(parameters, seed, days)
    likings: Float64 = np.exp(parameters.need * (tastes @ items.centres.T + seasons))
    return likings


def _opened(
    parameters: ShopParameters,
    items: ShopItems,
    categories: Indexes,
    tastes: Float64,
    days: Indexes,
    luck: Float64,
) -> Indexes:
    """Return int64[n]: an item of each category, of a few popular ones the one by taste."""
    by_category = np.lexsort((-items.popularity, items.categories))
    cumulative = np.cumsum(items.popularity[by_category])
    sizes = np.bincount(items.categories, minlength=parameters.categories)
    ends = np.cumsum(sizes)
    firsts = ends - sizes
    upper = cumulative[ends - 1]
    lower = np.concatenate([[0.0], upper[:-1]])

    # The most popular item of a category is always on offer: it is what is left if all else is not.
    best: Indexes = by_category[firsts[categories]]
    most = np.full(len(categories), -np.inf)
    for look in range(parameters.looks):
        wanted = lower[categories] + luck[2 * look] * (upper - lower)[categories]
        places = np.searchsorted(cumulative, wanted, side="right")
        found = by_category[np.clip(places, firsts[categories], ends[categories] - 1)]

        liked = parameters.taste * np.einsum("nr,nr->n", tastes, items.vectors[found])
        liked -= np.log(-np.log(luck[2 * look + 1]))
        offered = (items.first_days[found] <= days) & (days < items.last_days[found])
        better = offered & (liked > most)
        best, most = np.where(better, found, best), np.where(better, liked, most)
    return best
