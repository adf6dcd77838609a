"""The shadows of a policy, as a part of its report's page."""

import math
from collections.abc import Sequence
from html import escape

from simulator.report.shadows.worth import ShadowWorth

TONES = {
    "shadow_better": "reliable",
    "shadow_worse": "unreliable",
    "shadow_refused": "unreliable",
    "shadow_failed": "unreliable",
}
"""The colour of a verdict, by its code; others are between."""
HEADS = ("decisions", "slots", "would earn", "served", "difference", "interval")


def shadows_section(shadows: Sequence[ShadowWorth]) -> str:
    """Return a table of the estimates, and what each comes to."""
    heads = "<tr><th>shadow" + "".join(f"<th class='n'>{each}" for each in HEADS) + "</tr>"
    rows = "".join(f"<tr><td>{escape(each.name)}{_cells(each)}</tr>" for each in shadows)
    return (
        "<p class='soft'>What other policies would have earned that followed the same log and"
        " served nobody, by doubly robust evaluation of the newest slots that each has followed."
        " An interval holds at one look.</p>"
        f"<div class='wide'><table>{heads}{rows}</table></div>{''.join(map(_said, shadows))}"
    )


def _cells(shadow: ShadowWorth) -> str:
    known = math.isfinite(shadow.difference)
    numbers = (
        f"{shadow.decisions:,}",
        f"{shadow.rows:,}",
        f"{shadow.value:.5g}" if known else "-",
        f"{shadow.served:.5g}" if known else "-",
        f"{shadow.difference:+.4g}" if known else "-",
        f"{shadow.low:+.4g} … {shadow.high:+.4g}" if known else "-",
    )
    return "".join(f"<td class='n'>{each}" for each in numbers)


def _said(shadow: ShadowWorth) -> str:
    verdict = shadow.verdict
    return (
        f"<p>{escape(shadow.name)}: <b class='{TONES.get(verdict.code, 'weak')}'>"
        f"{escape(verdict.code)}</b>: {escape(verdict.message)}."
        f" <span class='soft'>What to do: {escape(verdict.action)}.</span></p>"
    )
