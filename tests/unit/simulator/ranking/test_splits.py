"""Splits of events, and the users that a test part can judge."""

from dataclasses import replace

import numpy as np
import pytest

from bandits.errors import DataSetError
from policies.data.coded import CodedEvents
from simulator.ranking.splits import SPLITS, check_split_name, split_events
from simulator.ranking.task import make_task


def events_of(rows):
    """Events of (user, item, time, value); those of a user stand together, in time order."""
    users = sorted({row[0] for row in rows})
    items = sorted({row[1] for row in rows})
    rows = sorted(rows, key=lambda row: (row[0], row[2]))
    return CodedEvents(
        user_ids=tuple(users),
        item_ids=tuple(items),
        types=("event",),
        user=np.array([users.index(row[0]) for row in rows], np.int32),
        item=np.array([items.index(row[1]) for row in rows], np.int32),
        type=np.zeros(len(rows), np.int16),
        time=np.array([row[2] for row in rows], np.int64),
        value=np.array([row[3] if len(row) > 3 else np.nan for row in rows], np.float32),
        weight=np.ones(len(rows), np.float32),
    )


def held_out(events, name, share=0.2):
    split = split_events(events, name, share)
    assert np.array_equal(split.train, ~split.test)
    return [
        (events.user_ids[user], events.item_ids[item])
        for user, item in zip(events.user[split.test], events.item[split.test], strict=True)
    ]


ROWS = [
    ("ann", "a", 1),
    ("ann", "b", 2),
    ("ann", "c", 9),
    ("bob", "a", 3),
    ("bob", "c", 4),
    ("cid", "b", 10),
]


def test_global_time_tests_what_came_last_of_all():
    assert held_out(events_of(ROWS), "global-time", 0.4) == [("ann", "c"), ("cid", "b")]


def test_events_of_one_moment_are_never_divided():
    rows = [("ann", "a", 1), *(("bob", f"i{n}", 5) for n in range(9))]
    assert len(held_out(events_of(rows), "global-time", 0.1)) == 9


def test_user_time_tests_the_last_part_of_each_user_and_leaves_one():
    assert held_out(events_of(ROWS), "user-time", 0.5) == [("ann", "b"), ("ann", "c"), ("bob", "c")]
    assert held_out(events_of(ROWS), "user-time", 0.01) == [("ann", "c"), ("bob", "c")]


def test_last_one_tests_the_last_event_of_each_user_with_two():
    assert held_out(events_of(ROWS), "last-one") == [("ann", "c"), ("bob", "c")]


def test_without_times_the_error_says_which_splits_there_are():
    events = events_of([(*row[:2], -1) for row in ROWS])
    with pytest.raises(DataSetError, match=r"have no times.*user-time and last-one"):
        split_events(events, "global-time")

    split = split_events(events, "last-one")
    assert "6 events have no time: the order of their rows stands for it" in split.notes


def test_one_moment_for_all_cannot_be_split_by_time():
    with pytest.raises(DataSetError, match="one and the same time"):
        split_events(events_of([(*row[:2], 7) for row in ROWS]), "global-time")


def test_users_of_one_event_each_can_only_be_split_by_global_time():
    events = events_of([("ann", "a", 1), ("bob", "a", 2)])
    for name in ("user-time", "last-one"):
        with pytest.raises(DataSetError, match="needs a user with two events"):
            split_events(events, name)


def test_an_unknown_split_lists_those_there_are():
    assert [check_split_name(name) for name in SPLITS] == list(SPLITS)
    with pytest.raises(DataSetError, match="global-time, user-time, last-one, not 'random'"):
        check_split_name("random")


def test_a_task_holds_what_can_be_found_and_counts_the_rest():
    """Left out: an item that training lacks, one that the user had, and a low rating."""
    rows = [
        ("ann", "a", 1, 5.0),
        ("ann", "b", 2, 1.0),
        ("bob", "c", 1, 4.0),
        ("bob", "d", 2, 4.0),
        ("ann", "c", 11, 4.0),
        ("ann", "d", 12, 3.0),
        ("ann", "new", 13, 5.0),
        ("ann", "a", 14, 5.0),
    ]
    events = events_of(rows)
    split = split_events(events, "global-time", 0.5)
    items = ("d", "c", "b", "a")
    task = make_task(events, split, items, rating_scale=(1.0, 5.0), most_users=10, seed=0)

    assert task.users == task.test_users == 1
    assert [items[i] for i in task.relevant.indices] == ["c"]
    assert sorted(items[i] for i in task.known.sets.indices) == ["a", "b"]
    assert (task.unknown_items, task.known_already, task.irrelevant) == (1, 1, 1)
    assert [
        (items[i], rating) for i, rating in zip(task.rated_item, task.ratings, strict=True)
    ] == [
        ("c", 4.0),
        ("d", 3.0),
    ]


def test_a_sample_of_users_is_the_same_for_the_same_seed():
    events = events_of([(f"u{n:03}", f"i{m}", m) for n in range(50) for m in (n % 5, 10)])
    split = split_events(events, "global-time", 0.3)
    split = replace(split, train=split.train | (events.user == 0))
    items = ("i0", "i1", "i2", "i3", "i4", "i10")

    def drawn(seed):
        task = make_task(events, split, items, rating_scale=None, most_users=7, seed=seed)
        assert (task.users, task.test_users) == (7, 49)
        return task.known.sets.indices.tolist()

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_test_part_that_judges_nobody_says_why():
    events = events_of([("ann", "a", 1), ("ann", "a", 2), ("bob", "a", 1), ("bob", "b", 2)])
    split = split_events(events, "last-one")
    with pytest.raises(DataSetError, match=r"1 are on items that no training.*1 on items that the"):
        make_task(events, split, ("a",), rating_scale=None, most_users=9, seed=0)
