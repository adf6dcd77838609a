"""The MovieLens world: a split by time that leaks nothing, and contexts that identify nobody."""

from collections import Counter

import numpy as np
import pytest

from simulator.worlds.movielens import MovieLensWorld, age_band, movielens_data, split_by_time


@pytest.fixture(scope="module")
def world() -> MovieLensWorld:
    return MovieLensWorld.of(movielens_data())


def test_training_comes_before_the_held_out_part(world: MovieLensWorld) -> None:
    for user in np.unique(world.train_ratings["user"]):
        before = world.train_ratings[world.train_ratings["user"] == user]
        after = world.test_ratings[world.test_ratings["user"] == user]
        assert before["timestamp"].max() <= after["timestamp"].min()
        assert len(before) == int(0.75 * (len(before) + len(after)))


def test_nothing_is_lost_or_doubled(world: MovieLensWorld) -> None:
    assert len(world.train_ratings) + len(world.test_ratings) == 100_000
    for user in world.users:
        assert not world.held_out(user) & set(world.train_history(user))


def test_the_split_does_not_depend_on_file_order() -> None:
    made = MovieLensWorld.of(movielens_data())
    ratings = np.concatenate([made.train_ratings, made.test_ratings])
    shuffled = ratings[np.random.default_rng(0).permutation(len(ratings))]
    for ours, theirs in zip(
        split_by_time(ratings, 0.75), split_by_time(shuffled, 0.75), strict=True
    ):
        assert np.array_equal(ours, theirs)


def test_rewards_are_the_held_out_likes(world: MovieLensWorld) -> None:
    liked = Counter(str(row["user"]) for row in world.test_ratings if row["rating"] >= 4)
    for user in world.users[:50]:
        paid = [item["id"] for item in world.catalogue if world.reward(user, item["id"]) == 1.0]
        assert set(paid) == world.held_out(user)
        assert len(paid) == liked[user]
    assert world.reward(world.users[0], "no such item") == 0.0


def test_contexts_identify_nobody(world: MovieLensWorld) -> None:
    """At most 20 groups, none smaller than 10 people; no age in years, no zip code."""
    groups = Counter(world.context(user)["group"] for user in world.users)
    assert len(groups) <= 20
    assert min(groups.values()) >= 10
    assert {tuple(world.context(user)) for user in world.users} == {
        ("age_band", "gender", "occupation", "group")
    }


def test_age_bands_meet_at_their_limits() -> None:
    assert [age_band(age) for age in (7, 17, 18, 24, 25, 44, 45, 73)] == [
        "under-18", "under-18", "18-24", "18-24", "25-34", "35-44", "45-and-over", "45-and-over",
    ]  # fmt: skip


def test_users_are_drawn_uniformly(world: MovieLensWorld) -> None:
    """Chi-square over 943 users, 100 draws each; false alarm 1e-4. Seeded."""
    rng = np.random.default_rng(5)
    counts = Counter(world.draw_user(rng) for _ in range(94_300))
    assert sum((counts[user] - 100) ** 2 / 100 for user in world.users) < 1112


def test_the_catalogue_covers_everything_rated(world: MovieLensWorld) -> None:
    ids = {item["id"] for item in world.catalogue}
    assert len(ids) == len(world.catalogue) == 1682
    assert {str(item) for item in world.train_ratings["item"]} <= ids
    toy_story = world.catalogue[0]
    assert toy_story["features"] == {
        "genres": ["Animation", "Children's", "Comedy"],
        "decade": "1990",
    }
    assert toy_story["metadata"] == {"title": "Toy Story", "year": "1995"}
