"""What one shadow of a policy is estimated to earn, as a report has it."""

import math

import msgspec

from simulator.report.verdicts import Verdict


class ShadowWorth(msgspec.Struct, frozen=True):
    """What a shadow is estimated to earn, by doubly robust evaluation.

    Attributes:
        name: the shadow's.
        verdict: what it comes to, and what to do.
        decisions: of how many decisions it says something, since the log's start.
        passed_over: of how many it could say nothing.
        behind_s: how far it is behind the log's end, in seconds of the log.
        rows: slots that it is estimated from, the newest.
        value: what a slot would earn under it; NaN where it cannot be had.
        served: what a slot earned, of the same ones.
        difference: the value less that.
        low: the lower end of the difference's interval, which holds at one look.
        high: the upper end.
        trust: reliable, weak or unreliable; empty without an estimate.
        reason: why it is trusted so far, and no further.
    """

    name: str
    verdict: Verdict
    decisions: int = 0
    passed_over: int = 0
    behind_s: float = 0.0
    rows: int = 0
    value: float = math.nan
    served: float = math.nan
    difference: float = math.nan
    low: float = -math.inf
    high: float = math.inf
    trust: str = ""
    reason: str = ""
