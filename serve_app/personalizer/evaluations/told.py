"""An evaluation as it is answered."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from serve_app.personalizer.evaluations.bodies import (
    EvaluatedPolicy,
    EvaluationBody,
    EvaluationContent,
    EvaluationPoint,
    EvaluationSeries,
    EvaluationSummary,
)
from serve_app.personalizer.evaluations.kept_operations import kept_status, read_time, told_time
from serve_app.store.evaluations.kept import JudgedPolicy, KeptEvaluation
from serve_app.store.evaluations.series import Series, SeriesPoint

_NO_TIME = "0001-01-01T00:00:00"
EXPANDING, ROLLING = "Expanding", "Rolling"
WINDOWS: Mapping[int, str] = {5: EXPANDING, **dict.fromkeys((60, 360, 720, 1440), ROLLING)}
"""By interval in minutes, whether a point is of all the time until then, or of its own interval."""


class AskedSeries(NamedTuple):
    """Which part of the series is asked for: by what interval in minutes, and from when to when."""

    minutes: int
    start_ms: float | None
    end_ms: float | None


def told(
    kept: KeptEvaluation,
    series: Mapping[str, Series] = MappingProxyType({}),
    asked: AskedSeries | None = None,
) -> EvaluationBody:
    """Return an evaluation as it is answered.

    Args:
        kept: the evaluation.
        series: by policy, what it earns over time.
        asked: which part of that is asked for; None: the evaluation is one of a list, which says
            nothing of what was found.
    """
    content = None
    if asked is not None:
        done = kept.status != "Running"
        policies = [
            _told_policy(kept, each, series.get(each.name, {}), asked) for each in kept.found
        ]
        content = EvaluationContent(
            start_time=kept.start if done else _NO_TIME,
            end_time=kept.end if done else _NO_TIME,
            interval_in_minutes=asked.minutes if done else 0,
            value=policies,
        )

    return EvaluationBody(
        id=kept.id,
        name=kept.name,
        start_time=kept.start,
        end_time=kept.end,
        creation_time=told_time(kept.made_ms),
        status=kept_status(kept),
        evaluation_type="Manual",
        optimal_policy=(kept.best or None) if asked else None,
        description=(kept.said or None) if asked else None,
        content=content,
    )


def _told_policy(
    kept: KeptEvaluation, found: JudgedPolicy, series: Series, asked: AskedSeries
) -> EvaluatedPolicy:
    # What was kept of a long time has no short windows: the shortest there are take their place.
    width = next((each for each in sorted(series) if each >= asked.minutes), 0)
    points = _within(series.get(width, ()), width, asked)
    end_ms = 1000 * read_time(kept.end, "endTime").timestamp()
    return EvaluatedPolicy(
        name=found.name,
        policy_source=found.source,
        slot_id="",
        arguments=found.arguments or None,
        summary=EvaluationSummary(
            expected_reward=found.value, confidence_interval=(found.low, found.high)
        ),
        timeseries=EvaluationSeries(
            [
                _told_point(each, WINDOWS[asked.minutes], min(_end(each, width), end_ms))
                for each in points
            ]
        ),
    )


def _within(points: Sequence[SeriesPoint], width: int, asked: AskedSeries) -> list[SeriesPoint]:
    """Return the windows that have some of the time that is asked for."""
    start = float("-inf") if asked.start_ms is None else asked.start_ms
    end = float("inf") if asked.end_ms is None else asked.end_ms
    return [each for each in points if each.start_ms <= end and _end(each, width) > start]


def _end(point: SeriesPoint, width: int) -> int:
    return point.start_ms + 60_000 * width


def _told_point(point: SeriesPoint, window: str, at_ms: float) -> EvaluationPoint:
    value, low, high = point.value, point.low, point.high
    if window == EXPANDING:
        value, low, high = point.so_far, point.so_far_low, point.so_far_high
    return EvaluationPoint(
        time_stamp=told_time(at_ms), expected_reward=value, confidence_interval=(low, high)
    )
