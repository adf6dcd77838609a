"""Parts that every page of a report is drawn with: style, colours, axes and pictures, as SVG."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

COLOURS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
)
WIDTH, LEFT = 760, 150
"""A chart's width, and where names end and bars begin."""
STYLE = """
:root { color-scheme: light dark; --ink: #1b1e23; --soft: #6b7280; --line: #d8dce2;
  --paper: #fff; --card: #f6f7f9 }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa0a6; --line: #3a3f47;
  --paper: #16181c; --card: #1e2126 } }
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
p, td, th { max-width: 46rem } .soft { color: var(--soft) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  font-size: .9rem }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top }
th { color: var(--soft); font-weight: 500 } td.n { text-align: right }
.reliable { color: #2f9e44 } .weak { color: #d9820f } .unreliable { color: #d6336c }
td:first-child { overflow-wrap: anywhere; min-width: 7rem }
h1, p, code { overflow-wrap: anywhere } summary { cursor: pointer; color: var(--soft) }
svg { width: 100%; height: auto; background: var(--card); border-radius: 6px }
text { fill: var(--ink); font-size: 12px }
.axis { stroke: var(--line) } .soft text, text.soft { fill: var(--soft) }
"""


class AxisScale:
    """From values to places, with a few round ticks."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        if not high > low:
            low, high = low - 0.5, high + 0.5
        self._low, self._high, self._start, self._stop = low, high, start, stop

    def __call__(self, value: float) -> float:
        """Return where a value is; at the edge if it is beyond."""
        share = (min(max(value, self._low), self._high) - self._low) / (self._high - self._low)
        return self._start + share * (self._stop - self._start)

    def _ticks(self) -> list[float]:
        """Return the round values of a step of 1, 2 or 5 times a power of ten."""
        rough = (self._high - self._low) / 5
        step = 10.0 ** math.floor(math.log10(rough))
        step *= next(times for times in (1, 2, 5, 10) if step * times >= rough)
        first = math.ceil(self._low / step)
        return [step * number for number in range(first, math.floor(self._high / step) + 1)]

    def vertical_lines(self, y: float) -> list[str]:
        """Return lines down to ``y``, with their values below."""
        return [
            f"<line class='axis' x1='{self(tick):.1f}' x2='{self(tick):.1f}' y1='8' y2='{y:.0f}'/>"
            f"<text class='soft' x='{self(tick):.1f}' y='{y + 14:.0f}'"
            f" text-anchor='middle'>{tick:,.7g}</text>"
            for tick in self._ticks()
        ]

    def horizontal_lines(self, x: float) -> list[str]:
        """Return lines from ``x`` on, with their values before."""
        return [
            f"<line class='axis' x1='{x:.0f}' x2='{WIDTH - 20}' y1='{self(tick):.1f}'"
            f" y2='{self(tick):.1f}'/>"
            f"<text class='soft' x='{x - 6:.0f}' y='{self(tick) + 4:.1f}'"
            f" text-anchor='end'>{tick:,.7g}</text>"
            for tick in self._ticks()
        ]


def colour_of(number: int) -> str:
    """Return the colour of a thing, by its number in the report."""
    return COLOURS[number % len(COLOURS)]


def describe_time(time_ms: int) -> str:
    """Return a time for a reader, in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def svg_picture(height: float, shapes: Sequence[str], label: str = "a chart") -> str:
    """Return a picture of ``WIDTH`` by ``height``, made of shapes.

    Args:
        height: of the picture, in its own units.
        shapes: as SVG.
        label: what it shows, for whoever cannot see it.
    """
    return (
        f"<svg viewBox='0 0 {WIDTH} {height:.0f}' role='img' aria-label='{escape(label)}'>"
        f"{''.join(shapes)}</svg>"
    )
