"""What is in demand now: proposed by the counts that the snapshot in force brings."""

from dataclasses import replace

import numpy as np
import pytest
from support.fakes import SALT
from support.logs import RULE, decision, log_of

from bandits.errors import SnapshotError
from bandits.exploration import EpsilonGreedy
from bandits.log.records import RewardRecord
from bandits.log.trends import PublishedTrend, Trends, encode_trends
from bandits.ridge.config import RidgeConfig
from bandits.types import Snapshot
from policies.items.catalogue import Catalogue
from policies.ranker import Ranker
from policies.requests import Item, RankRequest
from policies.sources import load_sources
from policies.sources.base import SourceRequest
from policies.sources.live.trending import LiveTrending
from policies.spec import PolicySpec, TrendingSource

HOUR_MS = 3_600_000
SPEC = PolicySpec(
    "home",
    sources=[TrendingSource("now", "1h")],
    learner=RidgeConfig(),
    exploration=EpsilonGreedy(),
    join=RULE,
)


def snapshot_of(counts: dict[str, int], half_life_ms: int = HOUR_MS) -> Snapshot:
    trends = Trends(half_life_ms)
    for item, count in counts.items():
        for _ in range(count):
            trends.add(item, 0)
    return Snapshot("ridge", "1-0", 0, b"", trends=encode_trends([trends], 0))


def source_of(counts: dict[str, int], **options) -> LiveTrending:
    [source] = load_sources(None, SPEC.sources).values()
    source.learn(snapshot_of(counts, **options))
    return source


async def test_the_most_rewarded_come_first_but_for_what_the_user_has_or_excludes():
    source = source_of({"a": 3, "b": 9, "c": 1, "d": 2})
    asked = SourceRequest(history=("a",), exclude=frozenset({"d"}))
    found = await source.candidates(asked, 10)
    assert found.ids == ("b", "c")
    assert (await source.candidates(SourceRequest(), 2)).ids == ("b", "a")
    assert (await source.candidates(SourceRequest(), 0)).ids == ()


async def test_scores_are_standardised_and_an_item_that_was_never_rewarded_has_the_least():
    source = source_of({"a": 3, "b": 9, "c": 1})
    found = await source.candidates(SourceRequest(), 10)
    assert found.scores.mean() == pytest.approx(0.0, abs=1e-6)
    assert found.scores.std() == pytest.approx(1.0, abs=1e-6)
    scores = found.score_items(["new", "b", "c"])
    assert scores[0] < scores[2] < scores[1] == found.scores[0]
    assert scores.dtype == np.float32


def done(counts: dict[str, float]) -> dict[int, PublishedTrend]:
    return {HOUR_MS: PublishedTrend(HOUR_MS, list(counts), list(counts.values()))}


async def test_what_users_did_counts_as_rewards_do_each_as_of_its_own_time():
    source = source_of({"a": 4, "b": 1})
    alone = await source.candidates(SourceRequest(), 10)

    # An hour later: what was rewarded four times is two by then.
    source.follow(done({"c": 3.0, "b": 0.5}), HOUR_MS)
    found = await source.candidates(SourceRequest(), 10)
    assert found.ids == ("c", "a", "b")
    expected = np.log1p([3.0, 2.0, 1.0])
    assert found.scores == pytest.approx((expected - expected.mean()) / expected.std(), abs=1e-5)

    # A snapshot that is newer than what is known of activity; another half-life is nobody's.
    later = snapshot_of({"a": 4})
    source.learn(replace(later, position=f"{2 * HOUR_MS}-0"))
    assert (await source.candidates(SourceRequest(), 10)).ids == ("a", "c", "b")
    source.follow({1: PublishedTrend(1, ["d"], [9.0])}, HOUR_MS)
    source.learn(snapshot_of({"a": 4, "b": 1}))
    again = await source.candidates(SourceRequest(), 10)
    assert again.ids == alone.ids
    assert again.scores.tobytes() == alone.scores.tobytes()


def test_a_ranker_tells_its_sources_also_when_all_items_are_others():
    ranker = Ranker(SPEC, load_sources(None, SPEC.sources).values(), salt=SALT)
    ranker.follow(done({"a": 1.0}), 0)
    ranker.offer(Catalogue.put([Item("a")]))
    [source] = ranker.proposers.offered.sources.proposing
    assert source.known == 1


@pytest.mark.parametrize("counts", [{}, {"a": 2}, {"a": 2, "b": 2}])
async def test_little_or_equal_demand_has_finite_scores(counts):
    found = await source_of(counts).candidates(SourceRequest(), 10)
    assert set(found.ids) == set(counts)
    assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("apart_ms", [0, 1, 1000])
async def test_demand_that_is_about_equal_is_no_scale_for_other_items(apart_ms):
    """Each item was looked at five times, one after the other: what nobody has looked at is 5 below."""
    source = source_of({})
    counts = {f"i{n}": 5 * 2 ** (-n * apart_ms / HOUR_MS) for n in range(6)}
    source.follow(done(counts), 6 * apart_ms)
    found = await source.candidates(SourceRequest(), 10)
    assert found.score_items(["new"])[0] == pytest.approx(-5.0, abs=1e-3)
    assert np.abs(found.scores).max() < 0.01


async def test_a_snapshot_without_counts_of_its_half_life_proposes_nothing():
    assert (await source_of({"a": 2}, half_life_ms=1).candidates(SourceRequest(), 10)).ids == ()
    source = source_of({"a": 2})
    source.learn(Snapshot("ridge", "1-0", 0, b""))
    assert (await source.candidates(SourceRequest(), 10)).ids == ()
    with pytest.raises(SnapshotError, match="trends"):
        source.learn(Snapshot("ridge", "1-0", 0, b"", trends=b"no"))


async def test_a_ranker_proposes_what_its_own_log_says_also_after_a_whole_catalogue():
    steps = [
        (1, decision("e1", chosen=(1,))),
        (1, decision("e2", chosen=(2,))),
        (1, RewardRecord("e1", 1.0)),
        (1, RewardRecord("e2", 1.0)),
        (1, RewardRecord("e2", 1.0, "again")),
    ]
    ranker = Ranker(SPEC, list(load_sources(None, SPEC.sources).values()), salt=SALT)
    ranker.serve("s1", log_of(steps, SPEC).fold().snapshot())
    pool = await ranker.pool(RankRequest())
    assert pool.ids == ("c", "b")

    ranker.offer(Catalogue.put([Item("b"), Item("x")]))
    assert (await ranker.pool(RankRequest())).ids == ("b",)
