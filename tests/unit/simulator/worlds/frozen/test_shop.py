"""``shop``: order, text and persons matter, by margins and over seeds; items come, go and are popular."""

import itertools

import numpy as np
import pytest

from simulator.worlds.frozen.make import frozen_world
from simulator.worlds.frozen.oracle import appeal_to_all, value_of_policy
from simulator.worlds.frozen.shop.orders import order_probabilities

SEEDS = (0, 1, 2, 3)
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def shops():
    """A smaller shop of each seed; its numbers but these are the committed ones."""
    return [
        frozen_world("shop", seed, users=1000, items=600, visits=30_000, events=20_000)
        for seed in SEEDS
    ]


def sample(shop, count, where=None):
    numbers = np.arange(shop.visits) if where is None else np.flatnonzero(where)
    return np.sort(np.random.default_rng(1).choice(numbers, count, replace=False))


def greedy_value(shop, scores, numbers):
    """The true value of taking, of the pool, the item of the highest score."""

    def policy(visit, items):
        return np.eye(len(items))[int(np.argmax(scores(visit, items)))]

    return value_of_policy(shop, policy, numbers).value


@pytest.mark.slow
def test_the_best_for_everybody_earns_less_than_the_best_for_each(shops):
    for shop in shops:
        numbers = sample(shop, 400)
        for_all = appeal_to_all(shop, sample(shop, 400, shop.plan.steps >= 0))
        best = greedy_value(shop, lambda v, i, s=shop: s.expected(v.number, i), numbers)
        same = greedy_value(shop, lambda _, i, a=for_all: a[i], numbers)
        anything = value_of_policy(shop, lambda _, i: np.full(len(i), 1 / len(i)), numbers).value
        assert best > 1.5 * same
        assert same > 1.2 * anything


def test_who_knows_the_order_of_the_pages_earns_more(shops):
    """All else is known to both: users, tastes, season, and which pages there were."""
    for shop in shops:
        numbers = sample(shop, 400, shop.plan.steps >= 1)
        sighted = greedy_value(shop, lambda v, i, s=shop: s.expected(v.number, i), numbers)
        blind = greedy_value(shop, lambda v, i, s=shop: s.means_without_order(v.number, i), numbers)
        assert sighted > 1.05 * blind


def test_without_order_effects_the_order_is_worth_nothing():
    shop = frozen_world(
        "shop", 1, users=300, items=300, visits=3000, events=2000, order=0.0, fatigue=0.0
    )
    for number in sample(shop, 50).tolist():
        items = shop.offered(number)
        expected = shop.expected(number, items)
        assert np.allclose(expected, shop.means_without_order(number, items), rtol=1e-6)


def test_what_the_blind_expect_is_the_mean_of_what_comes(shops):
    """Calibrated: over visits, what it expects is the expected reward, within 4 standard errors."""
    for shop in shops:
        numbers = sample(shop, 600, shop.plan.steps >= 1)
        items = shop.pools(numbers)[:, :5]
        errors = [
            (shop.means_without_order(n, row) - shop.expected(n, row)).mean()
            for n, row in zip(numbers.tolist(), items, strict=True)
        ]
        assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(len(errors))


def test_the_probabilities_of_orders_are_those_of_all_permutations():
    rng = np.random.default_rng(0)
    first, follows = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4), size=4)
    for pages in ([2], [1, 3], [0, 0, 2], [3, 1, 0, 3], [0, 1, 2, 3, 1]):
        wanted: dict[tuple, float] = {}
        for order in itertools.permutations(pages):
            weight = first[order[0]] * np.prod(
                [follows[a, b] for a, b in itertools.pairwise(order)]
            )
            pair = (order[-1], order[-2] if len(order) > 1 else None)
            wanted[pair] = wanted.get(pair, 0.0) + weight
        total = sum(wanted.values())
        found = {
            (last, before): p for last, before, p in order_probabilities(pages, first, follows)
        }
        assert found == pytest.approx({pair: weight / total for pair, weight in wanted.items()})


@pytest.fixture(scope="module")
def catalogues():
    """All items of each seed's shop, and few visits."""
    return [frozen_world("shop", seed, users=1000, visits=3000, events=2000) for seed in SEEDS]


def words_matrix(shop):
    """How often each word stands in each item's text, without its brand; and one-hot categories."""
    texts = [text[1:] for text in shop.items.texts]
    words = {word: at for at, word in enumerate(sorted({w for text in texts for w in text}))}
    matrix = np.zeros((len(texts), len(words)))
    for at, text in enumerate(texts):
        for word in text:
            matrix[at, words[word]] += 1.0
    return matrix, np.eye(shop.parameters.categories)[shop.items.categories]


def predicted(features, known, targets, new):
    """Ridge regression from the features of known items to targets, at new items."""
    x = np.hstack([features, np.ones((len(features), 1))])
    gram = x[known].T @ x[known] + 3.0 * np.eye(x.shape[1])
    return x[new] @ np.linalg.solve(gram, x[known].T @ targets[known])


def test_text_says_what_a_new_item_is_like_beyond_its_category(catalogues):
    """Vectors of new items are predicted from words: better than from the category alone."""
    for shop in catalogues:
        words, categories = words_matrix(shop)
        new = np.flatnonzero(shop.items.first_days > 0)
        known = np.flatnonzero(shop.items.first_days == 0)
        truth = shop.items.vectors
        explained = []
        for features in (categories, words):
            left = truth[new] - predicted(features, known, truth, new)
            explained.append(1 - (left**2).sum() / ((truth[new] - truth[known].mean(0)) ** 2).sum())
        by_category, by_words = explained
        assert by_category > 0.2
        assert by_words > by_category + 0.12


def test_who_reads_the_texts_of_new_items_earns_more(catalogues):
    """Of new items alone, tastes known: by predicted vectors against the same without text."""
    for shop in catalogues:
        words, categories = words_matrix(shop)
        new = np.flatnonzero(shop.items.first_days > 0)
        known = np.flatnonzero(shop.items.first_days == 0)
        likings = {}
        for name, features in (("words", words), ("category", categories)):
            vectors = shop.items.vectors.copy()
            vectors[new] = predicted(features, known, shop.items.vectors, new)
            likings[name] = vectors

        def scores(visit, items, vectors, shop=shop):
            return vectors[items] @ shop.users.tastes[shop.plan.users[visit.number]]

        value = dict.fromkeys(likings, 0.0)
        for number in sample(shop, 400, shop.plan.days > 40).tolist():
            offered = np.intersect1d(shop.offered(number), new)
            visit = shop.visit(number)
            for name, vectors in likings.items():
                best = offered[scores(visit, offered, vectors).argmax()]
                value[name] += shop.expected(number, np.array([best]))[0]
        assert value["words"] > 1.08 * value["category"]


def test_items_come_every_day_and_some_sell_out(shops):
    for shop in shops:
        first, last = shop.items.first_days, shop.items.last_days
        assert abs((first > 0).mean() - 0.4) < 0.1
        assert len(np.unique(first)) > 65
        assert abs((last < 1 << 30).mean() - 0.2) < 0.08
        for number in sample(shop, 30).tolist():
            day = shop.plan.days[number]
            offered = shop.offered(number)
            assert ((first[offered] <= day) & (day < last[offered])).all()
            gone = np.setdiff1d(np.arange(600), offered)
            assert not shop.expected(number, gone).any()
            assert shop.outcome(number, [shop.people.item_ids[item] for item in gone[:3]]) == []
        for category in range(shop.parameters.categories):
            always = (first == 0) & (last == 1 << 30) & (shop.items.categories == category)
            assert always.any()


def test_pages_are_of_items_on_offer_and_follow_each_other(shops):
    for shop in shops:
        rows = np.arange(shop.visits)
        assert shop.on_offer(rows, shop.people.views).mean() > 0.999  # sessions over midnight
        later = rows[shop.plan.steps > 0]
        before = shop.plan.paths[shop.plan.sessions[later], shop.plan.steps[later] - 1]
        cats = shop.items.categories
        follows = (cats[shop.people.views[later]] == shop.items.successors[cats[before]]).mean()
        assert 0.3 < follows < 0.4
        number = int(later[5])
        visit = shop.visit(number)
        assert visit.recent[-1] == shop.people.item_ids[shop.people.views[number]]
        assert len(visit.recent) == shop.plan.steps[number] + 1


def test_pages_alone_tell_what_follows_and_what_users_like(shops):
    """What events.csv has is enough: for a model of sequences, and for one of tastes."""
    for shop in shops:
        plan, cats, pages = shop.plan, shop.items.categories, shop.people.views
        later = np.flatnonzero(plan.steps > 0)
        before = cats[plan.paths[plan.sessions[later], plan.steps[later] - 1]]
        counts = np.zeros((20, 20))
        np.add.at(counts, (before, cats[pages[later]]), 1.0)
        alone = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
        surprise = (counts - alone) / np.sqrt(np.maximum(alone, 1.0))
        assert (surprise.argmax(axis=1) == shop.items.successors).mean() > 0.9

        # What a user has opened, on average, points where the user's taste does.
        opened = np.zeros(shop.users.tastes.shape)
        np.add.at(opened, plan.users, shop.items.vectors[pages])
        times = np.bincount(plan.users, minlength=len(opened))[:, None]
        opened = opened / np.maximum(times, 1) - shop.items.vectors[pages].mean(axis=0)
        often = times[:, 0] >= 10
        a, b = opened[often], shop.users.tastes[often]
        cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosines.mean() > 0.45


def test_successors_are_one_cycle_of_all_categories(shops):
    for shop in shops:
        seen, at = [], 0
        for _ in range(shop.parameters.categories):
            at = int(shop.items.successors[at])
            seen.append(at)
        assert sorted(seen) == list(range(shop.parameters.categories))


def test_popularity_is_skewed(shops):
    """A tenth of the items has more than a third of the pages."""
    for shop in shops:
        views = np.sort(np.bincount(shop.people.views, minlength=600))[::-1]
        assert views[:60].sum() > views.sum() / 3


def test_seasons_change_what_is_wanted(shops):
    for shop in shops:
        items = np.arange(600)[None, :]
        early, late = (
            shop.means(
                sample(shop, 200, (shop.plan.days >= day) & (shop.plan.days < day + 5))[:, None],
                items,
            )
            for day in (0, 30)
        )
        cats = shop.items.categories
        always = (shop.items.first_days == 0) & (shop.items.last_days > 40)
        change = [
            np.log(late[:, always & (cats == c)].mean() / early[:, always & (cats == c)].mean())
            for c in range(20)
        ]
        assert np.std(change) > 0.3


def test_dear_items_are_bought_less_and_by_some_users_much_less(shops):
    for shop in shops:
        visits = sample(shop, 300)
        items = np.arange(600)
        bought = np.cumprod(shop.stages(visits[:, None], items[None, :]), axis=0)[2]
        dear, cheap = shop.items.dearness > 0.7, shop.items.dearness < -0.7
        assert bought[:, cheap].mean() > 1.3 * bought[:, dear].mean()


def test_purchases_come_late():
    """The median one a day and a half after the cart; clicks within a minute, mostly."""
    shop = frozen_world("shop", 2, users=1000, items=600, visits=30_000, events=20_000)
    visits = np.arange(shop.visits)
    draws = shop.draws(visits, visits * 0, shop.pools(visits)[:, 0])
    clicks, carts, purchases = draws.delays_ms
    assert np.median(clicks) == pytest.approx(10_000, rel=0.05)
    assert np.median(carts - clicks) == pytest.approx(90_000, rel=0.05)
    assert np.median(purchases - carts) == pytest.approx(1.5 * DAY_MS, rel=0.05)
    assert (purchases - carts).max() <= 14 * DAY_MS + 1
    assert (draws.happened[1] <= draws.happened[0]).all()
    assert (draws.happened[2] <= draws.happened[1]).all()
    assert draws.happened[2].sum() > 30
