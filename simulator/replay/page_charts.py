"""The charts of a report's page, as SVG."""

import math
from collections.abc import Sequence
from html import escape

from simulator.learners.curve import CurvePoint
from simulator.ope.charts import ActionShares, Charts, TimeBucket
from simulator.pages import COLOURS, LEFT, WIDTH, AxisScale, colour_of, describe_time, svg_picture
from simulator.replay.report import NO_LOWER_END, PolicyResult, Trial

SIGNS = {"reliable": "●", "weak": "◐", "unreliable": "○"}


def intervals_chart(results: Sequence[PolicyResult]) -> str:
    """Draw all estimates with their intervals, estimator by estimator."""
    names = dict.fromkeys(name for result in results for name in result.estimates)
    rows = [
        (name, number, result.policy, result.estimates[name])
        for name in names
        for number, result in enumerate(results)
        if name in result.estimates
    ]
    ends = [
        end
        for *_, estimate in rows
        for end in (*estimate.interval, estimate.value)
        if math.isfinite(end)
    ]
    scale = AxisScale(min(ends, default=0.0), max(ends, default=1.0), LEFT, WIDTH - 20)

    shapes, at, before = [], 16.0, ""
    for name, number, policy, estimate in rows:
        # An estimator's name stands beside its first row.
        if name != before:
            at += 8
            shapes.append(f"<text x='10' y='{at + 4:.0f}'>{escape(name)}</text>")
        before = name

        low, high = (scale(end) for end in estimate.interval)
        colour = colour_of(number)
        title = (
            f"{policy}, {name}: {estimate.value:.6g} in {describe_interval(estimate.interval)},"
            f" {estimate.verdict}: {estimate.reason}"
        )
        shapes.append(
            f"<g><title>{escape(title)}</title><line x1='{low:.1f}' x2='{high:.1f}' y1='{at:.0f}'"
            f" y2='{at:.0f}' stroke='{colour}' stroke-width='2'/>"
            f"<text x='{scale(estimate.value):.1f}' y='{at + 5:.0f}' fill='{colour}'"
            f" style='fill:{colour};font-size:15px'"
            f" text-anchor='middle'>{SIGNS[estimate.verdict]}</text></g>"
        )
        at += 16
    return svg_picture(at + 26, scale.vertical_lines(at + 6) + shapes)


def trials_chart(trials: Sequence[Trial]) -> str:
    """Draw each trial's DR value and the lower end it was ranked by, rung by rung.

    A line follows a spec that went on.
    """
    drawn = [trial for trial in trials if math.isfinite(trial.value)]
    rungs = sorted({trial.rung for trial in drawn})
    values = [end for trial in drawn for end in _ends(trial)]
    height = AxisScale(min(values, default=0.0), max(values, default=1.0), 240, 20)
    width = (WIDTH - 100) / max(1, len(rungs))

    # Every rung is a column, in which specs stand side by side.
    shapes, places = height.horizontal_lines(60), dict[tuple[str, int], tuple[float, float]]()
    for rung in rungs:
        column = [trial for trial in drawn if trial.rung == rung]
        for number, trial in enumerate(column):
            x = 80 + width * (rung + 0.8 * number / max(1, len(column)))
            places[trial.spec, rung] = x, height(trial.value)
        for below, label in ((262, f"rung {rung + 1}"), (278, f"{column[0].rows:,} rows")):
            shapes.append(
                f"<text class='soft' x='{80 + width * rung:.0f}' y='{below}'>{label}</text>"
            )

    for trial in drawn:
        shapes += _trial_shapes(trial, height, places)
    return svg_picture(288, shapes)


def _trial_shapes(
    trial: Trial, height: AxisScale, places: dict[tuple[str, int], tuple[float, float]]
) -> list[str]:
    """Return a trial's mark, and the line to the rung that it went on to."""
    shapes = []
    x, y = places[trial.spec, trial.rung]
    after = places.get((trial.spec, trial.rung + 1))
    colour = COLOURS[0] if trial.kept else "var(--soft)"
    if after:
        shapes.append(
            f"<line x1='{x:.1f}' y1='{y:.1f}' x2='{after[0]:.1f}' y2='{after[1]:.1f}'"
            f" stroke='{colour}' opacity='.35'/>"
        )

    low = height(_ends(trial)[0])
    title = (
        f"{trial.spec}: {trial.value:.6g}, at least {describe_lower_end(trial)}, {trial.verdict}"
    )
    shapes.append(
        f"<g><title>{escape(title)}</title><line x1='{x:.1f}' x2='{x:.1f}' y1='{y:.1f}'"
        f" y2='{low:.1f}' stroke='{colour}' stroke-width='2'/>"
        f"<text x='{x:.1f}' y='{y + 5:.1f}' text-anchor='middle'"
        f" style='fill:{colour};font-size:13px'>{SIGNS[trial.verdict]}</text></g>"
    )
    return shapes


def curve_chart(curve: Sequence[CurvePoint]) -> str:
    """Draw how a policy did as it learned."""
    finite = [point for point in curve if math.isfinite(point.value)]
    values = [point.value for point in finite]
    across = AxisScale(0.0, float(curve[-1].rows), 60, WIDTH - 20)
    height = AxisScale(min(values, default=0.0), max(values, default=1.0), 200, 20)

    path = " ".join(
        f"{across(float(point.rows)):.1f},{height(point.value):.1f}" for point in finite
    )
    line = f"<polyline points='{path}' fill='none' stroke='{COLOURS[0]}' stroke-width='2'/>"
    return svg_picture(240, [*across.vertical_lines(220), *height.horizontal_lines(60), line])


def times_chart(times: Sequence[TimeBucket], policies: Sequence[str]) -> str:
    """Draw the value of each policy over the log's time.

    Args:
        times: stretches of the log.
        policies: whose values to draw, in the order of the colours.
    """
    across = AxisScale(float(times[0].start_ms), float(times[-1].start_ms), 60, WIDTH - 20)
    values = [
        value
        for bucket in times
        for value in (bucket.reward, *bucket.values.values())
        if math.isfinite(value)
    ]
    height = AxisScale(min(values), max(values), 200, 20)

    shapes = []
    for number, policy in enumerate(policies):
        valued = ((bucket, bucket.values.get(policy, math.nan)) for bucket in times)
        points = " ".join(
            f"{across(float(bucket.start_ms)):.1f},{height(value):.1f}"
            for bucket, value in valued
            if math.isfinite(value)
        )
        shapes.append(
            f"<polyline points='{points}' fill='none' stroke='{colour_of(number)}'"
            " stroke-width='1.5'/>"
        )

    # Only the first and the last time are written: there is no room for more.
    labels = "".join(
        f"<text class='soft' x='{across(float(bucket.start_ms)):.0f}' y='222'"
        f" text-anchor='{anchor}'>{describe_time(bucket.start_ms)}</text>"
        for bucket, anchor in ((times[0], "start"), (times[-1], "end"))
    )
    note = (
        "<p class='soft'>IPS value of each policy in each stretch of the log; of the logging"
        " policy, its reward.</p>"
    )
    return note + svg_picture(232, [*height.horizontal_lines(60), *shapes, labels])


def weights_chart(charts: Charts) -> str:
    """Draw a histogram of each policy's weights."""
    shapes, at = [], 10.0
    step = (WIDTH - LEFT - 20) / len(charts.edges)
    for number, (policy, counts) in enumerate(charts.weights.items()):
        most = max(counts) or 1
        shapes.append(f"<text x='10' y='{at + 44:.0f}'>{escape(policy[:20])}</text>")
        for place, count in enumerate(counts):
            tall = 50 * math.log1p(count) / math.log1p(most)
            shapes.append(
                f"<g><title>{escape(policy)}: {count:,} rows of weight from"
                f" {charts.edges[place]:.3g}</title><rect"
                f" x='{LEFT + place * step:.1f}' y='{at + 50 - tall:.1f}' width='{step - 1:.1f}'"
                f" height='{tall:.1f}' fill='{colour_of(number)}'/></g>"
            )
        at += 60

    # Labels are of 0 and of powers of ten.
    labels = [
        f"<text class='soft' x='{LEFT + place * step:.1f}' y='{at + 12:.0f}'>{edge:.3g}</text>"
        for place, edge in enumerate(charts.edges)
        if edge == 0.0 or abs(math.log10(edge) - round(math.log10(edge))) < 1e-9
    ]
    note = "<p class='soft'>Rows by weight; heights are logarithms.</p>"
    return note + svg_picture(at + 22, shapes + labels)


def actions_chart(actions: Sequence[ActionShares], policies: Sequence[str]) -> str:
    """Draw how often the log chose each action, and the share that each policy gives it.

    Args:
        actions: the most frequent first.
        policies: whose shares to draw, in the order of the colours.
    """
    most = max(max(action.share, *action.shares.values()) for action in actions) or 1.0
    shapes, at = [], 18.0
    for action in actions:
        shapes.append(f"<text x='10' y='{at + 4:.0f}'>{escape(action.action[:20])}</text>")
        width = (WIDTH - LEFT - 20) * action.share / most
        shapes.append(
            f"<rect x='{LEFT}' y='{at - 5:.0f}' width='{width:.1f}' height='10'"
            " fill='var(--line)'/>"
        )

        for number, policy in enumerate(policies):
            share = action.shares.get(policy, 0.0)
            x = LEFT + (WIDTH - LEFT - 20) * share / most
            title = f"{policy}: {share:.2%} of choices; the log {action.share:.2%}"
            shapes.append(
                f"<g><title>{escape(title)}</title><circle cx='{x:.1f}' cy='{at:.0f}' r='4'"
                f" fill='{colour_of(number)}'/></g>"
            )
        at += 17

    note = (
        "<p class='soft'>Grey: how often the log chose the action. Dots: the share each policy"
        " gives it.</p>"
    )
    return note + svg_picture(at, shapes)


def describe_interval(interval: tuple[float, float]) -> str:
    """Return an interval for a reader."""
    return f"{interval[0]:.6g} … {interval[1]:.6g}"


def describe_lower_end(trial: Trial) -> str:
    """Return a trial's lower end for a reader; a dash if it has none that can be relied on."""
    return f"{trial.lower:.6g}" if trial.lower > NO_LOWER_END else "-"


def _ends(trial: Trial) -> tuple[float, float]:
    """Return what is drawn of a trial: its lower end, if that can be relied on, and its value."""
    return (trial.lower if trial.lower > NO_LOWER_END else trial.value, trial.value)
