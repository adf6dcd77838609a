"""The report of a policy: what it earned, its uplift over the holdout, and a verdict."""

import math

import msgspec

from simulator.doctor.checks.findings import Finding
from simulator.report.shadows.worth import ShadowWorth
from simulator.report.uplift import UpliftLook
from simulator.report.verdicts import Verdict


class ReportedRange(msgspec.Struct, frozen=True):
    """What was read.

    Attributes:
        first_ms: when the first decision was made; 0 without any.
        last_ms: when the last one was made.
        decisions: those whose windows have closed; only these are counted anywhere.
        rows: their slots.
        mean_reward: of a row, as ``banditloop replay`` has it; NaN without any.
        waiting: decisions whose windows are open.
        refused: entries of the log that are no valid rows.
        first_refused: what is wrong with the first of them.
    """

    first_ms: int
    last_ms: int
    decisions: int
    rows: int
    mean_reward: float
    waiting: int
    refused: int
    first_refused: str = ""


class SignalEvents(msgspec.Struct, frozen=True):
    """Reward events of one signal, as they came: late ones and duplicates among them.

    Attributes:
        signal: its name; empty for rewards that name none.
        events: how many came.
        total: the sum of their values.
    """

    signal: str
    events: int
    total: float


class StretchOfTime(msgspec.Struct, frozen=True):
    """What a decision earned in one stretch of the log, of as many decisions as the others.

    Attributes:
        start_ms: when the first of them was made.
        decisions: how many there are, in all groups.
        policy: the mean reward of a decision that the policy served; NaN without any.
        holdout: the mean reward of one that was held out; NaN without any.
    """

    start_ms: int
    decisions: int
    policy: float
    holdout: float


class GroupSummary(msgspec.Struct, frozen=True):
    """One side of the comparison.

    Attributes:
        units: users, or what the holdout's field names; a decision without it is one by itself.
        decisions: how many they have.
        mean: the reward of a decision; NaN without any.
        stderr: its standard error, over units; infinite below two units.
        per_unit: the reward of a unit in the whole range; NaN without any.
    """

    units: int
    decisions: int
    mean: float
    stderr: float
    per_unit: float


class Assignment(msgspec.Struct, frozen=True):
    """Whether units are divided as the spec says.

    Attributes:
        fraction: the share that the spec holds out.
        units: how many units there are.
        held_out: how many of them are in the holdout.
        p_value: of a test that holds at every look, that they are divided so.
        in_both: units with decisions in both groups.
        unserved: decisions that the holdout's policy could not serve, which are in neither.
    """

    fraction: float
    units: int
    held_out: int
    p_value: float
    in_both: int
    unserved: int


class Uplift(msgspec.Struct, frozen=True):
    """What the policy earns more than the holdout, per decision.

    Attributes:
        policy: the policy's side.
        holdout: the other.
        difference: the policy's mean less that of the holdout.
        relative: the same as a share of the holdout's mean; NaN where that is 0.
        low: the lower end of an interval that holds at all looks at once; -infinity: none yet.
        high: the upper end.
        p_value: of a test that holds at every look, the least of all looks.
        alpha: the probability that the interval ever misses the truth.
        worth_finding: the difference that the interval is made to find first.
        skewness: of the difference; above 0.2 the interval may miss more often.
        answer_s: seconds until an answer is expected, if the difference stays what it is; 0: there
            is one; None: nobody can tell.
        worth_finding_s: the same, if the true difference is ``worth_finding``.
        looks: the interval as it was, after each of some decisions.
    """

    policy: GroupSummary
    holdout: GroupSummary
    difference: float
    relative: float
    low: float
    high: float
    p_value: float
    alpha: float
    worth_finding: float
    skewness: float
    answer_s: float | None
    worth_finding_s: float | None
    looks: list[UpliftLook]

    @property
    def conclusive(self) -> bool:
        """Whether the interval does not hold 0."""
        return self.low > 0.0 or self.high < 0.0


class SegmentDifference(msgspec.Struct, frozen=True):
    """The uplift among the decisions with one value of a field of the context.

    Attributes:
        field: the feature.
        value: what it is there.
        policy: the policy's side.
        holdout: the other.
        difference: the policy's mean less that of the holdout.
        low: the lower end of an interval; those of all segments hold at once, at every look.
        high: the upper end.
        adjusted: the p-value, corrected for the number of segments (Holm 1979).
        conclusive: whether it is below alpha.
    """

    field: str
    value: str
    policy: GroupSummary
    holdout: GroupSummary
    difference: float
    low: float
    high: float
    adjusted: float
    conclusive: bool


class Spread(msgspec.Struct, frozen=True):
    """How widely one group's choices are spread over items.

    Attributes:
        choices: how many there are.
        items: different ones among them.
        effective: as many equally frequent items would have the same entropy.
        head: the share of the choices that are one of the most chosen hundredth of the items.
        novelty: mean bits of surprise, by how often all decisions together chose the item.
    """

    choices: int
    items: int
    effective: float
    head: float
    novelty: float


class SourceWorth(msgspec.Struct, frozen=True):
    """What one source proposed, how often that was chosen, and what it earned.

    Attributes:
        source: its name.
        proposed: share of the slots for which it proposed anything.
        candidates: how many, in the mean over those slots.
        chosen: share of the slots that were filled with something it had proposed.
        alone: share of the slots that were filled with something that nobody else had proposed.
        earned: the mean reward where something was chosen that it had proposed; NaN without any.
        others: the mean reward of the other slots; NaN without any.
    """

    source: str
    proposed: float
    candidates: float
    chosen: float
    alone: float
    earned: float
    others: float


class Drift(msgspec.Struct, frozen=True):
    """How far apart the first and the newest decisions are.

    Attributes:
        what: ``context``, ``candidates`` or ``reward``.
        name: the feature; empty for the others.
        distance: half the sum of the differences of all shares (total variation), from 0 to 1.
        by_chance: the distance to be expected if nothing had changed, were all decisions
            independent.
    """

    what: str
    name: str
    distance: float
    by_chance: float


class ExplorationPrice(msgspec.Struct, frozen=True):
    """What choosing the likeliest action alone would have earned more, per slot.

    Attributes:
        rows: slots that it is estimated from, the newest.
        price: the greedy policy's value less the policy's own; NaN where it cannot be had.
        low: the lower end of a 95% interval, which holds at one look.
        high: the upper end.
        verdict: reliable, weak or unreliable.
        reason: why.
    """

    rows: int
    price: float
    low: float
    high: float
    verdict: str
    reason: str


class PageWorth(msgspec.Struct, frozen=True):
    """What an apprentice would earn with whole pages, where pages have several slots.

    Attributes:
        pages: how many were looked at.
        earned: mean reward of a page that the baseline filled.
        value: what a page of the apprentice is estimated to earn; NaN where that cannot be had.
        difference: the same less ``earned``.
        low: the lower end of a 95% interval of the difference, which holds at one look.
        high: the upper end.
        verdict: reliable, weak or unreliable.
        reason: why.
    """

    pages: int
    earned: float
    value: float
    difference: float
    low: float
    high: float
    verdict: str
    reason: str


class ApprenticeWorth(msgspec.Struct, frozen=True):
    """What an apprentice would have chosen and earned, in the first slots of the newest decisions.

    Attributes:
        rows: how many there are.
        served: by whose choice was served (``first``, ``request``, ``drawn``, ``source``,
            ``holdout``), how many.
        agreed: share of the baseline's choices that were the apprentice's own, too.
        explored: share of the choices that might have been others.
        earned: mean reward of what the baseline served; NaN without any.
        earned_agreed: the same where the apprentice chose alike; NaN without any.
        value: what the apprentice is estimated to earn; NaN where that cannot be had.
        difference: the same less ``earned``.
        low: the lower end of a 95% interval of the difference, which holds at one look.
        high: the upper end.
        verdict: reliable, weak or unreliable.
        reason: why.
        page: the same of whole pages; None where all have one slot.
    """

    rows: int
    served: dict[str, int]
    agreed: float
    explored: float
    earned: float
    earned_agreed: float
    value: float
    difference: float
    low: float
    high: float
    verdict: str
    reason: str
    page: PageWorth | None = None


class Coverage(msgspec.Struct, frozen=True):
    """How much of what there was to choose among was chosen, in the newest slots.

    Attributes:
        candidates: different items that there were to choose among.
        chosen: different items that were chosen.
    """

    candidates: int
    chosen: int


class GroupExposure(msgspec.Struct, frozen=True):
    """Which share of what was drawn was of a group of items.

    Attributes:
        group: its name; "" for the items of which none is known.
        chosen: how often an item of the group was drawn.
        share: of all that was drawn.
        low: the lower end of the share's interval.
        high: the upper end.
    """

    group: str
    chosen: int
    share: float
    low: float
    high: float


class ExposureReport(msgspec.Struct, frozen=True):
    """What groups of items were shown, of what the policy drew.

    Attributes:
        field: the feature whose values are the groups.
        floor: the share that the newest spec gives each group at least; None: none.
        groups: the most shown first, at most 1,000.
    """

    field: str
    floor: float | None
    groups: list[GroupExposure]


class GroupOutcome(msgspec.Struct, frozen=True):
    """What the decisions with one value of a field of the context earned, by the policy.

    Attributes:
        field: the feature.
        value: what it is there.
        decisions: how many there are.
        units: of how many users they are; a decision that is of none is one by itself.
        mean: reward per decision.
        low: the lower end of the mean's interval, users being what is independent.
        high: the upper end.
    """

    field: str
    value: str
    decisions: int
    units: int
    mean: float
    low: float
    high: float


class PolicyReport(msgspec.Struct, frozen=True):
    """What a policy is worth, as its log shows it.

    Attributes:
        policy: its name.
        range: what was read.
        verdict: what it comes to, and what to do.
        cautions: what is to be known beside it.
        uplift: over the holdout; None where the spec holds nobody out.
        assignment: of units to the holdout, likewise.
        segments: the uplift by field of the context.
        signals: reward events by signal.
        times: rewards over the time of the log.
        choices: by group, how its choices are spread.
        looked_at: slots, the newest, that sources and exploration are judged by.
        coverage: of candidates by choices; None where nothing was looked at closely.
        sources: what each source is worth, by name.
        exploration: its price; None where nothing was looked at closely.
        drifts: how far the first and the newest decisions are apart.
        findings: the doctor's, those that are not ok.
        outcomes: what users of each group got, by field of the context.
        exposure: what groups of items were shown; None where no feature says which there are.
        shadows: what each of the policy's shadows is estimated to earn.
        apprentice: what the policy would have chosen and earned, where it is an apprentice; None
            where it decided itself.
    """

    policy: str
    range: ReportedRange
    verdict: Verdict
    cautions: list[Verdict]
    uplift: Uplift | None
    assignment: Assignment | None
    segments: list[SegmentDifference]
    signals: list[SignalEvents]
    times: list[StretchOfTime]
    choices: dict[str, Spread]
    looked_at: int = 0
    coverage: Coverage | None = None
    sources: list[SourceWorth] = []
    exploration: ExplorationPrice | None = None
    drifts: list[Drift] = []
    findings: list[Finding] = []
    outcomes: list[GroupOutcome] = []
    exposure: ExposureReport | None = None
    shadows: list[ShadowWorth] = []
    apprentice: ApprenticeWorth | None = None


def describe_share(part: float, whole: float) -> str:
    """Return a difference for a reader, as a share: ``+3.1%``; empty where there is none.

    Args:
        part: the difference.
        whole: of what.
    """
    share = part / whole if whole else math.nan
    return f"{share:+.1%}" if math.isfinite(share) else ""


def describe_span(seconds: float) -> str:
    """Return a time for a reader: ``3 hours``."""
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2.0 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} s"
