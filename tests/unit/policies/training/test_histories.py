"""Histories of events: what counts of several events, and an order that is the ids' alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.events import coded_events

from bandits.errors import ArtifactError
from policies.training.histories import histories_of


def test_the_latest_of_one_type_counts_and_the_strongest_of_several() -> None:
    """Who rates again means it; a look at what was bought does not undo the purchase."""
    found = histories_of(
        coded_events(
            [
                ("x", "rated", 1.5, "rating", 10),
                ("x", "rated", 0.1, "rating", 20),
                ("x", "bought", 1, "view", 5),
                ("x", "bought", 10, "purchase", 30),
                ("x", "bought", 1, "view", 40),
                ("x", "seen", 0, "view", 50),
            ]
        )
    )
    assert found.items == ("seen", "rated", "bought")
    assert found.weights.tolist() == [0, np.float32(0.1), 10]
    assert found.times is not None
    assert found.types is not None
    assert found.times.tolist() == [50, 20, 40]
    assert [found.type_names[kind] for kind in found.types] == ["view", "rating", "view"]

    # What was done with an item besides is kept beside it.
    others = found.others
    assert others is not None
    assert others.starts.tolist() == [0, 1]
    assert [found.items[place] for place in others.indices] == ["bought"]
    assert [found.type_names[kind] for kind in others.types] == ["purchase"]
    assert others.times.tolist() == [30]


def test_ids_stand_by_length_and_then_as_text() -> None:
    """So numbers stand as numbers do, however the data set was put together."""
    rows = [(user, item, 1.0) for user in ("10", "9", "b") for item in ("2", "11", "100")]
    found = histories_of(coded_events(rows))
    assert (found.users, found.items) == (("9", "b", "10"), ("2", "11", "100"))
    assert found.starts.tolist() == [0, 3, 6, 9]


def test_who_and_what_has_no_event_is_left_out() -> None:
    events = coded_events([("x", "a", 1), ("y", "b", 1), ("z", "c", 1)])
    found = histories_of(events.select(np.array([0, 2])))
    assert (found.users, found.items, found.indices.tolist()) == (("x", "z"), ("a", "c"), [0, 1])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 3)), min_size=1))
@settings(max_examples=50, deadline=None)
def test_it_is_what_a_loop_finds(rows: list[tuple[int, int, int]]) -> None:
    expected: dict[tuple[str, str], float] = {}
    for user, item, weight in rows:  # of one type: the latest
        expected[str(user), str(item)] = weight
    found = histories_of(coded_events([(str(u), str(i), float(w)) for u, i, w in rows]))
    got = {
        (user, found.items[at]): weight
        for row, user in enumerate(found.users)
        for at, weight in zip(*(part.tolist() for part in found.row(row)), strict=True)
    }
    assert got == expected
    for row in range(len(found.users)):
        assert np.all(np.diff(found.row(row)[0]) > 0), "ascending"


@pytest.mark.parametrize("weight", [np.nan, np.inf, -1.0])
def test_a_bad_weight_is_refused(weight: float) -> None:
    with pytest.raises(ArtifactError, match="finite and not negative"):
        histories_of(coded_events([("x", "a", 1), ("x", "b", weight)]))


def test_no_events_are_refused() -> None:
    with pytest.raises(ArtifactError, match="at least one event"):
        histories_of(coded_events([("x", "a", 1)]).select(np.zeros(1, bool)))
