"""Retrieval in a catalogue too large to score: what is found, what must not be, exact scores."""

import numpy as np
import pytest

from bandits.errors import ArtifactError
from bandits.log.records import ItemChange, ItemsRecord, LogEntry
from policies.artifacts import source_artifact as artifact
from policies.artifacts.histories import Profile
from policies.artifacts.source_artifact import Artifact, Calibration, TrainedSource
from policies.items.catalogue import Catalogue, Item
from policies.items.offering import Offering
from policies.items.timeline import ItemTimeline
from policies.sources import LocalSource, SourceRequest, load_sources
from policies.sources.blocks import LOOK_AT, Blocks
from policies.training.blocks import arrange

N, TOP = 60_000, 100
ITEMS = tuple(map(str, range(N)))
CONFIG = {"alpha": 5.0, "regularization": 3.0}


def make_factors() -> np.ndarray:
    """200 centres, noise as large as they are, and rows of very different lengths."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(200, 32))[rng.integers(200, size=N)] + rng.normal(size=(N, 32))
    rows *= np.exp(rng.normal(size=(N, 1)) / 2)
    rows[1000:1100] = 4 * rows[0]  # ties
    return rows.astype(np.float32)


FACTORS = make_factors()
ARRAYS = {"item_factors": FACTORS, **arrange(FACTORS, seed=1)}
USER = np.array([7, 70, 700, 7000], np.int32)
KNOWN = Profile("known", USER, np.ones(4, np.float32))


def make_artifact(*, blocks: bool) -> Artifact:
    arrays = ARRAYS if blocks else {"item_factors": FACTORS}
    return Artifact((), ITEMS, {"als": TrainedSource("als", arrays, CONFIG, Calibration(0.5, 2.0))})


def make_source(*, blocks: bool) -> LocalSource:
    source = load_sources(make_artifact(blocks=blocks))["als"]
    assert isinstance(source, LocalSource)
    return source


LARGE, EXACT = make_source(blocks=True), make_source(blocks=False)


def make_requests(count: int) -> list[SourceRequest]:
    rng = np.random.default_rng(2)
    return [SourceRequest(None, tuple(map(str, rng.choice(N, 10).tolist()))) for _ in range(count)]


def test_recall_of_the_best_hundred_and_their_scores() -> None:
    assert len(ARRAYS["starts"]) > 2 * LOOK_AT, "else all blocks are looked at"
    hits, requests = 0, [SourceRequest(profile=KNOWN), *make_requests(40)]
    for request in requests:
        found, expected = LARGE.propose(request, TOP), EXACT.propose(request, TOP)
        assert len(found.ids) == len(set(found.ids)) == TOP
        hits += len(set(found.ids) & set(expected.ids))
        assert expected.score_items is not None
        np.testing.assert_allclose(
            found.scores, expected.score_items(found.ids), rtol=1e-4, atol=1e-5
        )
    assert hits / (TOP * len(requests)) >= 0.95


def test_the_best_items_barred_are_never_proposed() -> None:
    """Thousands of them, in the history and excluded; what is left is found by looking further."""
    best = EXACT.propose(SourceRequest(profile=KNOWN), 20_000).ids
    for exclude, sent in (
        (best, ()),
        (best[:3000], best[3000:3050]),
        (ITEMS[:-50], ()),
        (ITEMS, ()),
    ):
        request = SourceRequest(None, sent, frozenset(exclude), KNOWN)
        found = LARGE.propose(request, TOP)
        open_ = set(ITEMS).difference(exclude, sent, map(str, USER))
        assert open_.issuperset(found.ids)
        assert len(found.ids) == min(TOP, len(open_))


def test_any_limit() -> None:
    whole = EXACT.propose(SourceRequest(profile=KNOWN), N)
    assert set(LARGE.propose(SourceRequest(profile=KNOWN), 2 * N).ids) == set(whole.ids)
    for limit in (0, 1, 5, 30_000):
        found = LARGE.propose(SourceRequest(profile=KNOWN), limit)
        assert len(found.ids) == limit
        order = [(-score, int(item)) for score, item in zip(found.scores, found.ids, strict=True)]
        assert order == sorted(order), "best first, ties by item"


def test_equal_items_have_equal_scores_and_keep_their_order() -> None:
    found = LARGE.propose(SourceRequest(None, ("0",)), 40)
    assert found.ids == tuple(map(str, range(1000, 1040)))
    assert len(set(found.scores.tolist())) == 1


def test_scores_of_any_items_are_those_of_the_proposal() -> None:
    for request in (SourceRequest(profile=KNOWN), *make_requests(5)):
        found = LARGE.propose(request, TOP)
        assert found.score_items is not None
        assert np.array_equal(found.score_items(found.ids), found.scores)
        some = ["not an item", "0", "59999", *found.ids[::-1], "7"]
        exact = EXACT.propose(request, TOP).score_items
        assert exact is not None
        scores = found.score_items(some)
        assert np.isnan(scores[0])
        np.testing.assert_allclose(scores[1:], exact(some)[1:], rtol=1e-4, atol=1e-5)
        assert found.score_items([]).shape == (0,)
    assert not LARGE._cache, "no user's scores of the whole catalogue are kept"


def test_two_replicas_answer_alike(tmp_path) -> None:
    """The artifact says which items lie together.

    A replica computes nothing that chance could change.
    """
    version = artifact.write(make_artifact(blocks=True), tmp_path)
    assert artifact.write(make_artifact(blocks=True), tmp_path) == version
    again = arrange(FACTORS, seed=1)
    assert all(np.array_equal(again[name], ARRAYS[name]) for name in again)
    one, two = (load_sources(artifact.load(tmp_path))["als"] for _ in range(2))
    assert isinstance(one, LocalSource)
    assert isinstance(two, LocalSource)
    for request in make_requests(10):
        here, there = one.propose(request, TOP), two.propose(request, TOP)
        assert here.ids == there.ids
        assert here.scores.tobytes() == there.scores.tobytes()


@pytest.mark.parametrize("items", [1, 2, 30, 500])
def test_few_items_or_all_alike(items: int) -> None:
    for factors in (FACTORS[:items], np.zeros((items, 4), np.float32)):
        blocks = Blocks(factors, **arrange(factors, seed=0))
        found, products = blocks.nearest(factors[0], np.array([0], np.int32), items)
        assert sorted(found.tolist()) == list(range(1, items))
        np.testing.assert_allclose(products, factors[found] @ factors[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "damage",
    [
        {"order": np.zeros(N, np.int32)},
        {"order": ARRAYS["order"].astype(np.float32)},
        {"order": ARRAYS["order"][1:]},
        {"starts": ARRAYS["starts"][:-1]},
        {"starts": ARRAYS["starts"][1:]},
        {"starts": np.array([0, 9, 9, N], np.int32)},
        {"starts": np.array([N], np.int32)},
        {"starts": ARRAYS["starts"].astype(np.float32)},
    ],
)
def test_blocks_that_do_not_fit_are_refused(damage) -> None:
    with pytest.raises(ArtifactError):
        load_sources(
            Artifact((), ITEMS, {"als": TrainedSource("als", {**ARRAYS, **damage}, CONFIG)})
        )


def test_order_without_starts_is_refused() -> None:
    arrays = {name: array for name, array in ARRAYS.items() if name != "starts"}
    with pytest.raises(ArtifactError, match="starts"):
        load_sources(Artifact((), ITEMS, {"als": TrainedSource("als", arrays, CONFIG)}))


@pytest.mark.parametrize("share", [0.9, 0.02, 0.001, 0.0])
def test_what_the_catalogue_lacks_is_never_found_and_the_pool_is_filled_all_the_same(
    share: float,
) -> None:
    """Also when hardly a block has an item left.

    Where fewer remain than are looked at, the very best are found.
    """
    held = [ITEMS[i] for i in np.flatnonzero(np.random.default_rng(9).random(N) < share)]
    catalogue = Catalogue.put([Item(item) for item in held])
    offering, open_ = Offering(catalogue), set(held)
    large, exact = LARGE.over(offering), EXACT.over(offering)
    hits = 0
    for request in [SourceRequest(profile=KNOWN), *make_requests(10)]:
        found, expected = large.propose(request, TOP), exact.propose(request, TOP)
        assert set(found.ids) <= open_
        assert len(found.ids) == len(set(found.ids)) == len(expected.ids)
        assert len(expected.ids) >= min(TOP, len(held) - 10)
        hits += len(set(found.ids) & set(expected.ids))
        if not held:
            continue
        assert found.score_items is not None
        np.testing.assert_array_equal(found.scores, found.score_items(found.ids))
    assert hits >= (0.95 if share > 0.1 else 0.99) * 11 * min(TOP, max(0, len(held) - 10))


def test_a_source_that_is_told_later_than_another_of_the_same_items_knows_as_much() -> None:
    """Two are over the same items: one is told of each change, the other of all together."""
    timeline = ItemTimeline(Catalogue.put([Item(item) for item in ITEMS]))
    offering = Offering(timeline.newest, timeline)
    first, second = LARGE.over(offering), LARGE.over(offering)
    best = LARGE.propose(SourceRequest(profile=KNOWN), 3).ids
    for number, item in enumerate(best):
        entry = LogEntry(f"{number + 1}-0", ItemsRecord([ItemChange("delete", item)]))
        timeline.apply(entry, {}.__getitem__)
        offering.change(timeline.newest, timeline, {item})
        first.update({item})
    second.update(set(best))
    one, two = (source.propose(SourceRequest(profile=KNOWN), TOP) for source in (first, second))
    assert one.ids == two.ids
    assert not set(best) & set(one.ids)
    assert first.known == second.known == N - 3
