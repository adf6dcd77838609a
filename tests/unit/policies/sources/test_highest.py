"""The highest scores that a filter admits are found without asking about most others."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.sources import highest as room
from policies.sources.highest import highest


@given(
    st.lists(st.integers(0, 9), max_size=60),
    st.integers(1, 20),
    st.integers(1, 5),
    st.integers(1, 9),
)
def test_they_are_those_of_all_with_what_equals_the_last(scores, limit, one_in, least):
    values = np.array(scores, np.float32)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(room, "LEAST_ASKED", least)
        found = highest(values, limit, lambda places: places % one_in == 0)
    admitted = [place for place in range(values.size) if place % one_in == 0]
    last = sorted((scores[place] for place in admitted), reverse=True)[:limit]
    assert sorted(found.tolist()) == [p for p in admitted if scores[p] >= last[-1]]


def test_a_filter_is_asked_about_the_highest_alone_and_never_about_all_of_very_many():
    scores = np.random.default_rng(0).permutation(300_000).astype(np.float32)
    for one_in, most in ((20, 1_000), (10_000, room.MOST_ASKED), (10**9, room.MOST_ASKED)):
        asked: list[np.ndarray] = []

        def admits(places, one_in=one_in, asked=asked):
            asked.append(places)
            return scores[places] % one_in == 0

        found = scores[highest(scores, 20, admits)]
        assert max(each.size for each in asked) <= most
        wanted = [v for v in range(299_999, 299_999 - most, -1) if v % one_in == 0][:20]
        assert sorted(found.tolist(), reverse=True) == wanted
