"""What policies earn by windows of time: as if each window were a log of its own."""

from collections.abc import Sequence

import numpy as np
import pytest

from bandits.errors import ReplayError
from policies.personalizer.arguments import with_arguments
from policies.spec import PolicySpec
from simulator.learners.progressive import progressive
from simulator.logs.rows import LoggedDecision, MemoryPiece
from simulator.ope.targets import LoggingTarget, UniformTarget
from simulator.replay import over_time
from simulator.replay.evaluate import OpeQuestion, evaluate

MINUTE = 60_000
BEGIN = 1_700_000_000_000 - 1_700_000_000_000 % (24 * 60 * MINUTE)


def rows(count: int = 400, *, hours: float = 30.0) -> list[LoggedDecision]:
    """A log with hours in which nothing happens."""
    rng = np.random.default_rng(3)
    pmf = np.array([0.6, 0.3, 0.1])
    made = []
    for number in range(count):
        at = number / count * hours
        if 5 < at < 9:
            continue
        chosen = int(rng.choice(3, p=pmf))
        made.append(
            LoggedDecision(
                f"e{number}",
                {"hour": float(rng.integers(24))},
                ["a", "b", "c"],
                chosen,
                float(pmf[chosen]),
                float(rng.random() < (0.2, 0.5, 0.8)[chosen]),
                features=[{"is": name} for name in "abc"],
                pmf=pmf,
                time_ms=BEGIN + int(at * 60 * MINUTE),
            )
        )
    return made


def cut(made: Sequence[LoggedDecision], at: int) -> list[MemoryPiece]:
    return [MemoryPiece(made[:at]), MemoryPiece(made[at:])]


def question(*every_s: int, estimators: Sequence[str] = ("snips", "ips"), **more) -> OpeQuestion:
    return OpeQuestion([LoggingTarget(), UniformTarget()], estimators, every_s=every_s, **more)


def test_each_window_is_what_a_log_of_its_own_would_say_and_the_last_says_all():
    """Also where a piece ends within a window; hours without rows have no window."""
    made = rows(200)
    report = evaluate(question(3600, 6 * 3600), cut(made, 67))
    results = {each.policy: each for each in report.results}
    for at, every_s in enumerate((3600, 6 * 3600)):
        width_ms = 1000 * every_s
        starts = sorted({row.time_ms - row.time_ms % width_ms for row in made})
        for number, start in enumerate(starts):
            whole = [row for row in made if row.time_ms < start + width_ms]
            own = [row for row in whole if row.time_ms >= start]
            alone, so_far = (evaluate(question(), [MemoryPiece(some)]) for some in (own, whole))
            for within, until in zip(alone.results, so_far.results, strict=True):
                for name, place in (("snips", 0), ("ips", 2)):
                    found = results[within.policy].over_time[at + place]
                    assert (found.every_s, found.estimator) == (every_s, name)
                    assert len(found.points) == len(starts)
                    point = found.points[number]
                    first, last = within.estimates[name], until.estimates[name]
                    assert (point.start_ms, point.rows) == (start, len(own))
                    assert point.value == pytest.approx(first.value, abs=1e-12)
                    assert point.interval == pytest.approx(first.interval, abs=1e-12)
                    assert point.verdict == first.verdict
                    assert point.so_far == pytest.approx(last.value, abs=1e-12)
                    assert point.interval_so_far == pytest.approx(last.interval, abs=1e-12)


def test_an_estimator_whose_parameter_is_chosen_from_data_has_windows_too():
    asked = question(3600, estimators=["clipped_ips"], parameters={"clipped_ips": {"clip": "auto"}})
    for result in evaluate(asked, cut(rows(), 100)).results:
        assert all(np.isfinite(point.value) for point in result.over_time[0].points)


def test_a_policy_that_learns_on_the_way_has_windows_whose_last_says_all():
    made = rows(120)
    spec = with_arguments(PolicySpec("p"), "--cb_explore_adf --epsilon 0.2")
    done = progressive(spec, cut(made, 50), every_s=(3600, 24 * 3600))
    hours, days = done.over_time
    assert [each.every_s for each in done.over_time] == [3600, 24 * 3600]
    assert sum(point.rows for point in hours.points) == len(made)
    for found in (hours, days):
        last = found.points[-1]
        assert last.so_far == pytest.approx(done.ips, abs=1e-12)
        half = over_time.Z_95 * done.ips_stderr
        assert last.interval_so_far == pytest.approx((done.ips - half, done.ips + half), abs=1e-12)
    mean = sum(point.rows * point.value for point in days.points) / len(made)
    assert mean == pytest.approx(done.ips, abs=1e-12)
    assert progressive(spec, cut(made, 50)).over_time == []


def test_what_has_no_windows_is_refused(monkeypatch):
    """Widths that do not fit, rows without a time, and more windows than a report may have."""
    with pytest.raises(ReplayError, match="multiple of the shortest"):
        question(3600, 5000)
    timeless = [MemoryPiece([row]) for row in rows(3)]
    for piece in timeless:
        object.__setattr__(piece.rows[0], "time_ms", 0)
    with pytest.raises(ReplayError, match="rows with times"):
        evaluate(question(3600), timeless)
    spec = with_arguments(PolicySpec("p"), "--cb_explore_adf")
    with pytest.raises(ReplayError, match="rows with times"):
        progressive(spec, timeless, every_s=(3600,))
    monkeypatch.setattr(over_time, "MOST_WINDOWS", 5)
    with pytest.raises(ReplayError, match="more than 5 windows"):
        evaluate(question(3600), cut(rows(), 100))
    with pytest.raises(ReplayError, match="more than 5 windows"):
        progressive(spec, cut(rows(60), 10), every_s=(3600,))
