"""What an apprentice would earn with pages of several slots, beside the pages that were served.

Of the apprentice's own page the record has one draw, and of each of its slots what that was drawn
from, after its own slots above. So a served page counts down to the slot where the own draw parts
from it, and from there on weighs nothing. On average over the own draws that might have come, that
is the weight of a cascade (McInerney et al. 2020, https://arxiv.org/abs/2007.12986).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

from bandits.log.records import Apprentice
from bandits.statistics.intervals import ALPHA
from bandits.types import Float64
from simulator.logs.rows import LoggedDecision
from simulator.ope.verdict import Verdict
from simulator.report.report import PageWorth

FEWEST: Final = 100
"""Pages, as many as the weights are worth, below which nothing is known."""
FEW: Final = 1000
"""The same, below which little is known."""
UNTRIED: Final = 0.01
"""The share of own choices that the log never makes from which on nothing is known."""


class _Weighed(NamedTuple):
    """A page: what it earned, what it counts for the apprentice, by which weight, in the last slot.

    ``untried``: the share of the apprentice's own choices that would never have been served.
    """

    earned: float
    counts: float
    weight: float
    untried: float


def page_worth(rows: Sequence[LoggedDecision], held_out: str) -> PageWorth | None:
    """Return what an apprentice would earn with whole pages; None where no page has two slots.

    Args:
        rows: all slots of decisions beside an apprentice, those of a decision side by side.
        held_out: by whose choice a page is served that is held out.
    """
    pages = list(_pages(rows))
    if all(len(page) == 1 for page in pages):
        return None

    # Who is held out is drawn by chance: they tell what other pages than the baseline's earn.
    held = [_weighed(page) for page in pages if _own(page).served == held_out]
    theirs = [_weighed(page) for page in pages if _own(page).served != held_out]
    if not theirs:
        return None
    judged = held or theirs
    earned = np.array([page.earned for page in theirs])
    counts = np.array([page.counts for page in judged])
    gains, spread = counts - earned if judged is theirs else counts, 0.0
    value = float(gains.mean())
    if held:
        value -= float(earned.mean())
        spread = _stderr(earned)

    verdict, reason = _verdict(judged, at_random=bool(held))
    stderr = math.hypot(_stderr(gains), spread)
    known = verdict != "unreliable" and math.isfinite(stderr)
    wide = NormalDist().inv_cdf(1.0 - ALPHA / 2.0) * stderr
    return PageWorth(
        pages=len(pages),
        earned=float(earned.mean()),
        value=float(earned.mean()) + value if known else math.nan,
        difference=value if known else math.nan,
        low=value - wide if known else -math.inf,
        high=value + wide if known else math.inf,
        verdict=verdict,
        reason=reason,
    )


def _pages(rows: Sequence[LoggedDecision]) -> Iterator[list[LoggedDecision]]:
    for _, page in groupby(rows, key=lambda row: row.event_id):
        yield sorted(page, key=lambda row: row.slot)


def _own(page: Sequence[LoggedDecision]) -> Apprentice:
    record = page[0].record
    assert record is not None  # noqa: S101 - chosen by it
    assert record.apprentice is not None  # noqa: S101 - likewise
    return record.apprentice


def _weighed(page: Sequence[LoggedDecision]) -> _Weighed:
    """Return what a page counts for: down to where the apprentice's own draw parts from it."""
    record, own = page[0].record, _own(page)
    assert record is not None  # noqa: S101 - chosen by it
    pmfs = np.frombuffer(own.pmf, np.float64).reshape(-1, len(record.action_ids))
    above, weight, counts, untried = 1.0, 0.0, 0.0, 0.0

    for row in page:
        weight = 0.0
        if above and row.slot < len(own.chosen):
            chosen, mine = record.chosen[row.slot], pmfs[row.slot]
            untried += above * float(mine[record.pmfs()[row.slot] == 0.0].sum())
            weight = above * float(mine[chosen]) / row.propensity
            above = above / row.propensity if own.chosen[row.slot] == chosen else 0.0
        counts += weight * row.reward
    return _Weighed(sum(row.reward for row in page), counts, weight, untried / len(page))


def _verdict(pages: Sequence[_Weighed], *, at_random: bool) -> tuple[Verdict, str]:
    """Return how far an estimate can be relied on, and why."""
    weights = np.array([page.weight for page in pages])
    squares = float(np.square(weights).sum())
    worth = float(weights.sum()) ** 2 / squares if squares else 0.0
    untried = float(np.mean([page.untried for page in pages]))

    whose = f"{len(pages):,} pages held out" if at_random else f"{len(pages):,} pages"
    said = f"{whose} are worth {worth:,.0f} of the apprentice's own in the last slot"
    if untried > UNTRIED:
        return "unreliable", f"{untried:.1%} of its choices are never served: let the baseline draw"
    if worth < FEWEST:
        return "unreliable", said
    return ("weak" if worth < FEW else "reliable"), said


def _stderr(values: Float64) -> float:
    return math.inf if values.size < 2 else float(values.std(ddof=1)) / math.sqrt(values.size)
