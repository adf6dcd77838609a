"""Line charts as SVG, drawn without a script and without a style of their own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 28
TICKS = 5

Point = tuple[float, float]


@dataclass(frozen=True)
class ChartLine:
    """A line of a chart: its name, its points, and the ends of its interval at each, if known."""

    name: str
    points: Sequence[Point]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def line_chart(
    lines: Sequence[ChartLine], label: str, ends: tuple[str, str], *, zero: bool = False
) -> Markup:
    """Return a chart of some lines; none where there are no two points to join.

    Args:
        lines: up to four.
        label: what it shows, for whoever cannot see it.
        ends: what stands below the first and the last point.
        zero: whether a line at 0 is drawn.
    """
    across = [x for line in lines for x, _ in line.points]
    heights = [y for line in lines for y in _heights(line)] + ([0.0] if zero else [])
    if len(set(across)) < 2 or not heights:
        return Markup()

    place = _Place(min(across), max(across), *_rounded_out(min(heights), max(heights)))
    shapes = [_axis(place, value) for value in place.ticks]
    if zero:
        shapes.append(
            Markup('<line class="zero" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                LEFT, WIDTH - RIGHT, place.y(0.0), place.y(0.0)
            )
        )
    for number, line in enumerate(lines):
        shapes += [_band(place, line, number), _line(place, line, number)]
    for text, x, anchor in ((ends[0], LEFT, "start"), (ends[1], WIDTH - RIGHT, "end")):
        shapes.append(
            Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
                x, HEIGHT - 8, anchor, text
            )
        )
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, label, Markup().join(shapes))


@dataclass(frozen=True)
class _Place:
    """Where values are on the picture."""

    first: float
    last: float
    lowest: float
    highest: float
    step: float

    def x(self, value: float) -> str:
        share = (value - self.first) / (self.last - self.first)
        return f"{LEFT + share * (WIDTH - LEFT - RIGHT):.1f}"

    def y(self, value: float) -> str:
        inside = min(max(value, self.lowest), self.highest)
        share = (inside - self.lowest) / (self.highest - self.lowest)
        return f"{HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM):.1f}"

    @property
    def ticks(self) -> list[float]:
        count = round((self.highest - self.lowest) / self.step)
        return [self.lowest + self.step * number for number in range(count + 1)]


def _heights(line: ChartLine) -> list[float]:
    """Return what a chart has to have room for.

    The first intervals are wide: it is made for those of the later half.
    """
    half = len(line.points) // 2
    every = [y for _, y in line.points] + [*line.low[half:], *line.high[half:]]
    return [y for y in every if math.isfinite(y)]


def _rounded_out(low: float, high: float) -> tuple[float, float, float]:
    """Return round ends that hold both, and the step between ticks."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    rough = (high - low) / TICKS
    step = 10.0 ** math.floor(math.log10(rough))
    step *= next(times for times in (1, 2, 5, 10) if step * times >= rough)
    return math.floor(low / step) * step, math.ceil(high / step) * step, step


def _axis(place: _Place, value: float) -> Markup:
    text = f"{0.0 if abs(value) < place.step / 1e6 else value:.6g}"
    return Markup(
        '<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text x="{}" y="{}" dy="4" text-anchor="end">{}</text>'
    ).format(LEFT, WIDTH - RIGHT, place.y(value), place.y(value), LEFT - 8, place.y(value), text)


def _line(place: _Place, line: ChartLine, number: int) -> Markup:
    points = " ".join(f"{place.x(x)},{place.y(y)}" for x, y in line.points if math.isfinite(y))
    return Markup('<polyline class="line of{}" points="{}"/>').format(number, points)


def _band(place: _Place, line: ChartLine, number: int) -> Markup:
    known = [
        (x, low, high)
        for (x, _), low, high in zip(line.points, line.low, line.high, strict=False)
        if math.isfinite(low) and math.isfinite(high)
    ]
    if len(known) < 2:
        return Markup()
    upper = [f"{place.x(x)},{place.y(high)}" for x, _, high in known]
    lower = [f"{place.x(x)},{place.y(low)}" for x, low, _ in reversed(known)]
    return Markup('<polygon class="band of{}" points="{}"/>').format(
        number, " ".join([*upper, *lower])
    )
