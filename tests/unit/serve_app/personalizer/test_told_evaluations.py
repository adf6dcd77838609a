"""An evaluation as it is answered: its series by interval, and which policy is the better one."""

from datetime import UTC, datetime
from typing import Any

import pytest

from serve_app.personalizer.evaluations.kept_operations import AskedTimes
from serve_app.personalizer.evaluations.operations import widths_of
from serve_app.personalizer.evaluations.searching import SEARCHED, better_than_online
from serve_app.personalizer.evaluations.told import AskedSeries, told
from serve_app.store.evaluations.kept import JudgedPolicy, KeptEvaluation
from serve_app.store.evaluations.series import SeriesPoint

HOUR = 3_600_000
KEPT = KeptEvaluation(
    *("e", "weekly", "1970-01-01", "1970-01-01T10:30:00Z", 0, "Succeeded"),
    [JudgedPolicy("online", "Online", 0.5, 0.4, 0.6)],
)
POINTS = [
    SeriesPoint(at * HOUR, at / 10, at / 10 - 0.1, at / 10 + 0.1, 0.5, 0.4, 0.6)
    for at in (0, 3, 10)
]


def points(series: Any, minutes: int, start: float | None, end: float | None) -> list[Any]:
    said = told(KEPT, {"online": series}, AskedSeries(minutes, start, end))
    (policy,) = said.content.value
    return policy.timeseries.data


def test_a_rolling_point_is_of_its_interval_and_an_expanding_one_of_all_until_then():
    """Each at the end of its window, the last one at the end of the evaluation."""
    rolling = points({60: POINTS}, 60, None, None)
    assert [each.expected_reward for each in rolling] == [0.0, 0.3, 1.0]
    assert [each.time_stamp[11:16] for each in rolling] == ["01:00", "04:00", "10:30"]
    expanding = points({5: POINTS}, 5, None, None)
    assert {each.expected_reward for each in expanding} == {0.5}
    assert {each.confidence_interval for each in expanding} == {(0.4, 0.6)}


@pytest.mark.parametrize(
    ("start", "end", "count"),
    [(None, None, 3), (HOUR, None, 2), (2.5 * HOUR, 3.5 * HOUR, 1), (4 * HOUR, 9 * HOUR, 0)],
)
def test_a_part_of_the_time_has_the_windows_that_reach_into_it(start, end, count):
    assert len(points({60: POINTS}, 60, start, end)) == count


def test_of_a_long_time_the_shortest_windows_there_are_stand_for_shorter_ones():
    assert len(points({60: POINTS, 360: POINTS[:1]}, 5, None, None)) == 3
    assert points({60: POINTS, 360: POINTS[:1]}, 720, None, None) == []
    assert told(KEPT).content is None


@pytest.mark.parametrize(
    ("days", "logged_days", "shortest"),
    [(1, 1, 5), (8, 8, 5), (20, 20, 60), (20_000, 20, 60), (400, 400, 360), (9000, 9000, 1440)],
)
def test_windows_are_as_short_as_the_logged_part_of_the_time_allows(days, logged_days, shortest):
    end = 1_800_000_000
    start = datetime.fromtimestamp(max(end - 86400 * days, 0), UTC)
    times = AskedTimes(start, datetime.fromtimestamp(end, UTC))
    widths = widths_of(times, (1000 * (end - 86400 * logged_days), 1000 * end))
    assert (widths[0], widths[-1]) == (shortest, 1440)
    assert all(each % widths[0] == 0 for each in widths)


ONLINE = JudgedPolicy("online", "Online", 0.5, 0.4, 0.6)


@pytest.mark.parametrize(
    ("others", "best"),
    [
        ([JudgedPolicy("mine", "Custom", 0.7, 0.6, 0.8)], "mine"),
        ([JudgedPolicy("mine", SEARCHED, 0.45, 0.44, 0.46)], ""),
        ([JudgedPolicy("baseline1", "Baseline", 0.9, 0.8, 1.0)], ""),
        ([JudgedPolicy(f"p{at}", SEARCHED, 0.6, 0.41, 0.79) for at in range(8)], ""),
        ([JudgedPolicy("p", SEARCHED, 0.6, 0.41, 0.79)], "p"),
        ([], ""),
    ],
)
def test_a_policy_is_better_whose_mean_and_lower_bound_are_above_that_of_what_was_served(
    others, best
):
    """At the level of one of several, so that luck is no merit."""
    assert better_than_online([ONLINE, *others]) == best
    assert better_than_online(others) == ""
